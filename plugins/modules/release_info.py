#!/usr/bin/python
# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recorded releases of a system."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_info
short_description: List the recorded releases of a system
version_added: 0.1.0
author: groundwork.platform contributors (@groundwork-platform)
description:
  - Lists what M(groundwork.platform.release) and M(groundwork.platform.rollback) have recorded, newest first.
extends_documentation_fragment:
  - groundwork.platform.auth
attributes:
  check_mode:
    support: full
    description: Can run in check mode, as it changes nothing.
  diff_mode:
    support: N/A
    description: Does not change anything, so there is nothing to compare.
  idempotent:
    support: full
    description: Never changes anything.
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
  number:
    description:
      - Return the objects of this release, too, with digests in place of what is secret.
    type: int
seealso:
  - module: groundwork.platform.release
  - module: groundwork.platform.rollback
"""

EXAMPLES = r"""
- name: See which releases there are
  groundwork.platform.release_info:
    name: shop
  register: history

- name: Show them
  ansible.builtin.debug:
    msg: "{{ history.lines }}"
"""

RETURN = r"""
releases:
  description: The releases, newest first.
  type: list
  elements: dict
  returned: success
  contains:
    number:
      description: Its number, from 1 in the order in which releases were begun.
      type: int
    outcome:
      description: V(pending), V(deployed), V(superseded), V(failed) or V(rolled_back).
      type: str
    started:
      description: When it was begun, in UTC.
      type: str
    finished:
      description: When its outcome was written, in UTC.
      type: str
    by:
      description: User and host, and the job of AWX if one did it.
      type: dict
    images:
      description: Image references and the digests that they stood for.
      type: dict
    schema:
      description: Revision of the database's schema after it, and what the migration did.
      type: dict
    gate:
      description: Verdict, seconds, objects and notes of the gate.
      type: dict
    failure:
      description: Why it failed, if it did.
      type: dict
    restores:
      description: Number of the release that it returned to; 0 if it is no return.
      type: int
    collection:
      description: Version of the collection that made it.
      type: str
    source:
      description: What it was made from.
      type: str
current:
  description: Number of the release that serves; 0 if none does.
  type: int
  returned: success
namespace:
  description: Where they are recorded.
  type: str
  returned: success
lines:
  description: The releases for people, one a line.
  type: list
  elements: str
  returned: success
  sample: ["   2  deployed     2026-11-21T18:00:00Z  ops@runner", "   1  superseded   2026-11-20T09:12:44Z  ops@runner"]
stages:
  description: The objects of the release that O(number) names, by stage.
  type: dict
  returned: with O(number)
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster_module import ClusterModule, connect
from ansible_collections.groundwork.platform.plugins.module_utils.release.record import Store, home_of, live
from ansible_collections.groundwork.platform.plugins.module_utils.release.reporting import numbered


def main() -> None:
    """List the releases."""
    module = ClusterModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "namespace": {"type": "str"},
            "number": {"type": "int"},
        },
    )

    def work(params: Mapping[str, Any]) -> dict[str, Any]:
        cluster = connect(params)
        namespace = params["namespace"] or home_of(cluster, params["name"])
        store = Store(cluster, namespace, params["name"])
        records = store.list()
        serving = live(records)
        result = {
            "changed": False,
            "namespace": namespace,
            "releases": [record.summary() for record in records],
            "current": serving.number if serving is not None else 0,
            "lines": [record.line() for record in records],
        }
        if params["number"] is not None:
            result["stages"] = store.load(numbered(records, params["number"], params["name"])).stages
        return result

    module.work(work)


if __name__ == "__main__":
    main()
