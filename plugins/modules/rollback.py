#!/usr/bin/python
# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Return to a recorded release."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback
short_description: Return a system to an earlier release
version_added: 0.1.0
author: groundwork.platform contributors (@groundwork-platform)
description:
  - Applies the objects of a release that M(groundwork.platform.release) has recorded, waits until all of it is healthy,
    removes what has come since, and records that as a release of its own.
  - A release whose images cannot run on the database's schema as it is now is refused, with the reason and what to do
    instead. That is so where a migration since was destructive, or where nobody could tell. The revision is read in the
    database's primary where CloudNativePG runs it, so that somebody who has migrated by hand is noticed. Where it
    cannot be read, what the releases have recorded counts, and that is said.
  - Images that were named by a tag are brought back by the digest that ran then.
  - Secrets, volume claims and the namespace stay as they are, and a database's volumes never shrink.
  - A component that is released as blue and green is switched back at once where its old colour still runs.
extends_documentation_fragment:
  - groundwork.platform.auth
  - groundwork.platform.gate
  - groundwork.platform.releasing
attributes:
  check_mode:
    support: full
    description: Says what would change, by the server's own dry run; refuses what would be refused.
  diff_mode:
    support: full
    description: Shows each object that changes or goes.
  idempotent:
    support: partial
    description: >-
      Returning to the release that serves changes nothing. With O(to=0) each run goes back one more release, except
      that a newer one which failed is returned from first.
options:
  name:
    description:
      - Name of the system.
    type: str
    required: true
  namespace:
    description:
      - Namespace of its record. By default it is looked for in all namespaces.
    type: str
  to:
    description:
      - Number of the release to return to. V(0) is the last good one before what is there now.
    type: int
    default: 0
  expand_only:
    description:
      - Declare that whatever was done to the database's schema since only adds to it, so that the older images can run
        on it. It outweighs what migrations were found to do, and what nobody has recorded.
    type: bool
    default: false
seealso:
  - module: groundwork.platform.release
  - module: groundwork.platform.release_info
"""

EXAMPLES = r"""
- name: Return to the last good release
  groundwork.platform.rollback:
    kubeconfig: ~/.kube/config
    context: prod
    name: shop

- name: See what returning to release 12 would change
  groundwork.platform.rollback:
    name: shop
    to: 12
  check_mode: true
  diff: true

- name: Return although somebody has added an index by hand
  groundwork.platform.rollback:
    name: shop
    expand_only: true
"""

RETURN = r"""
number:
  description: Number under which the return is recorded; that of the release itself where nothing had to change.
  type: int
  returned: success
restores:
  description: Number of the release that serves again.
  type: int
  returned: success
action:
  description: V(rolled_back), or V(unchanged) where the release serves already.
  type: str
  returned: success
objects:
  description: What happened to each object, as M(groundwork.platform.apply) returns it; removed ones at the end.
  type: list
  elements: dict
  returned: success
gate:
  description: The gate's verdict, its notes, and how long it took.
  type: dict
  returned: success, not in check mode
lines:
  description: What strategies did, one sentence each.
  type: list
  elements: str
  returned: success
notes:
  description: What is to be told although all is well.
  type: list
  elements: str
  returned: success
schema:
  description: The database's schema that decided whether the older images can run. Null where all of them run now.
  type: dict
  returned: success
  contains:
    revision:
      description: Its revision. Null where nobody knows.
      type: str
    source:
      description: V(database) where it was read there, V(record) where the releases' record had to do.
      type: str
    unread:
      description: Why the database could not be asked. Empty where it was, and where no release had a migration.
      type: str
failure:
  description: >-
    Why it failed, as data. Holds C(code), C(object), C(cause), C(evidence) and C(hint). Where the database's schema
    forbids it, the code is V(schema_newer), V(schema_older) after somebody has taken it back, or V(schema_unknown)
    after somebody has migrated by hand.
  type: dict
  returned: failure
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster_module import ClusterModule
from ansible_collections.groundwork.platform.plugins.module_utils.release.reporting import (
    opened,
    release_argument_spec,
    reported,
)


def main() -> None:
    """Return to an earlier release."""
    module = ClusterModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "namespace": {"type": "str"},
            "to": {"type": "int", "default": 0},
            "expand_only": {"type": "bool", "default": False},
            **release_argument_spec(),
        },
    )

    def work(params: Mapping[str, Any]) -> dict[str, Any]:
        releases = opened(params, params["namespace"], module.check_mode)
        outcome = releases.rollback(params["to"], params["by"], params["expand_only"])
        more = {"restores": outcome.restores, "schema": outcome.schema}
        return {**reported(outcome, module._diff, module.check_mode), **more}

    module.work(work)


if __name__ == "__main__":
    main()
