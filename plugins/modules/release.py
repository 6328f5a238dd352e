#!/usr/bin/python
# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One recorded release."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Bring in a release of a system, judge it and record it in the cluster
version_added: 0.1.0
author: groundwork.platform contributors (@groundwork-platform)
description:
  - Applies a batch of objects as M(groundwork.platform.apply) does, waits until all of it is healthy as
    M(groundwork.platform.health_gate) does, removes what earlier releases of the same system had and this one does
    not, and records the release in the namespace. M(groundwork.platform.rollback) returns to a recorded release.
  - The same content again is no new release. What others have changed of it is put right; nothing is recorded.
  - Components may be brought in as blue and green or as a canary, see O(strategies). A run that is killed is continued
    by the next one.
  - One run at a time releases a system. Another one waits and then finds that its release has been made, or makes it.
  - The record never holds a value of a Secret, nor a text that looks like a credential, but a keyed digest.
extends_documentation_fragment:
  - groundwork.platform.auth
  - groundwork.platform.gate
  - groundwork.platform.releasing
attributes:
  check_mode:
    support: full
    description: Says what would change, by the server's own dry run, and what the strategies would do.
  diff_mode:
    support: full
    description: Shows each object that changes or goes; values of Secrets are masked always.
  idempotent:
    support: full
    description: The content that the last release has is not released again, and nothing is written.
options:
  name:
    description:
      - Name of the system, under which its releases are recorded.
    type: str
    required: true
  namespace:
    description:
      - Namespace of the record, and of namespaced objects that name none.
    type: str
    required: true
  state:
    description:
      - V(deployed) brings the release in.
      - V(failed) is for the rescue of a play. It records that an earlier task of the release has failed, unless that
        is recorded already, and then does what O(on_failure) says. It does not fail itself; RV(msg) holds the failure,
        what was done and what remains.
    type: str
    choices: [deployed, failed]
    default: deployed
  definition:
    description:
      - The objects to bring in. An object, a list of objects, or YAML text with one or more documents.
    type: raw
  src:
    description:
      - Path of a file of manifests (YAML or JSON), or of a folder of them.
    type: path
  applied:
    description:
      - Objects that earlier tasks have applied, by the name of their stage. They are part of the release and of its
        record, and a rollback brings them back, but they are not applied here.
    type: dict
    default: {}
  strategies:
    description:
      - How components are brought in, by the name of their Deployment. All others are rolling.
      - C(type) is V(rolling), V(blue_green) or V(canary).
      - For V(blue_green), C(keep_old) are the seconds for which the new one is watched after the switch, and the old
        one goes on running; null keeps it until the next release. Default is 30.
      - For V(canary), C(steps) are the percentages of the replicas that are new, rising to 100, and C(pause) the
        seconds for which each is watched. Default is [10, 50, 100] and 60.
    type: dict
    default: {}
  migration:
    description:
      - What M(groundwork.platform.migration) returned, if the release has a migration. What it says of the schema is
        recorded, and decides whether a later rollback is possible; C(database) says where a rollback can ask for the
        revision.
    type: dict
    default: {}
  source:
    description:
      - What the release was made from, such as a digest or a revision of its files.
    type: str
    default: ""
  on_failure:
    description:
      - What to do about a release that failed, with O(state=failed).
      - V(rollback) returns to the last good release. Where there is none, or where the database's schema forbids it,
        the failed one is kept, and that is said.
      - V(keep) leaves everything as it is.
      - V(pause) stops the rollouts that are under way. C(spec.paused) is set on Deployments, a partition on
        StatefulSets. The next release lets them go on.
    type: str
    choices: [rollback, keep, pause]
    default: rollback
  failure:
    description:
      - The result of the task that failed, with O(state=failed), of which C(msg) and C(failure) are read.
    type: dict
    default: {}
seealso:
  - module: groundwork.platform.rollback
  - module: groundwork.platform.release_info
  - module: groundwork.platform.apply
"""

EXAMPLES = r"""
- name: Release a shop, its api by a canary
  groundwork.platform.release:
    name: shop
    namespace: shop
    src: manifests/
    strategies:
      api: {type: canary, steps: [10, 50, 100], pause: 60}
    wait_timeout: 600

- name: Release, and go back by itself if that fails
  block:
    - name: Release
      groundwork.platform.release:
        name: shop
        namespace: shop
        src: manifests/
  rescue:
    - name: Go back
      groundwork.platform.release:
        name: shop
        namespace: shop
        src: manifests/
        state: failed
        failure: "{{ ansible_failed_result }}"
      register: handled

    - name: Say why, what was done, and what remains
      ansible.builtin.fail:
        msg: "{{ handled.msg }}"
"""

RETURN = r"""
number:
  description: >-
    Number of the release; in check mode the one that it would get. With O(state=failed) that of the release that
    failed, 0 where it is not recorded.
  type: int
  returned: success
action:
  description: >-
    V(deployed), or V(unchanged) where the last release has the same content. With O(state=failed) V(rolled_back),
    V(kept), V(paused) or V(rollback_failed).
  type: str
  returned: success
objects:
  description: What happened to each object, as M(groundwork.platform.apply) returns it; removed ones at the end.
  type: list
  elements: dict
  returned: with O(state=deployed)
gate:
  description: The gate's verdict, its notes, and how long it took.
  type: dict
  returned: with O(state=deployed), not in check mode
lines:
  description: What strategies did, one sentence each; in check mode what they would do.
  type: list
  elements: str
  returned: with O(state=deployed)
  sample: ["api: 1 of 4 pods run the new version", "api: all pods run the new version"]
notes:
  description: What is to be told although all is well, such as what is no longer part of the release and stays.
  type: list
  elements: str
  returned: with O(state=deployed)
done:
  description: What was done about the failure, in sentences.
  type: list
  elements: str
  returned: with O(state=failed)
remains:
  description: What is left to do, in sentences.
  type: list
  elements: str
  returned: with O(state=failed)
msg:
  description: The failure, what was done, and what remains.
  type: str
  returned: with O(state=failed)
failure:
  description: >-
    Why it failed, as data. Holds C(code), C(object), C(cause), C(evidence) and C(hint), what
    M(groundwork.platform.health_gate) returns of a gate that failed, and in C(release) the number under which the
    failed release is recorded, if it is.
  type: dict
  returned: failure
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.apply.objects import load
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_module import ClusterModule
from ansible_collections.groundwork.platform.plugins.module_utils.release.engine import Wanted
from ansible_collections.groundwork.platform.plugins.module_utils.release.failing import as_failure, handle
from ansible_collections.groundwork.platform.plugins.module_utils.release.reporting import (
    migrated,
    opened,
    release_argument_spec,
    reported,
)


def main() -> None:
    """Bring a release in, or deal with one that failed."""
    module = ClusterModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "namespace": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["deployed", "failed"], "default": "deployed"},
            "definition": {"type": "raw"},
            "src": {"type": "path"},
            "applied": {"type": "dict", "default": {}},
            "strategies": {"type": "dict", "default": {}},
            "migration": {"type": "dict", "default": {}},
            "source": {"type": "str", "default": ""},
            "on_failure": {"type": "str", "choices": ["rollback", "keep", "pause"], "default": "rollback"},
            "failure": {"type": "dict", "default": {}},
            **release_argument_spec(),
        },
        concealed=("definition", "applied", "failure"),
        required_one_of=[["definition", "src"]],
    )

    def work(params: Mapping[str, Any]) -> dict[str, Any]:
        releases = opened(params, params["namespace"], module.check_mode)
        wanted = Wanted(
            {**params["applied"], "components": load(params["definition"], params["src"])},
            strategies=params["strategies"],
            schema=migrated(params["migration"]),
            source=params["source"],
            by=params["by"],
        )
        if params["state"] == "deployed":
            return reported(releases.release(wanted), module._diff, module.check_mode)
        failure = as_failure(params["failure"], params["name"])
        if module.check_mode:
            return {"changed": False, "number": 0, "action": "kept", "done": [], "remains": [], "msg": failure.sentence}
        handled = handle(releases, wanted, failure, params["on_failure"])
        return {
            "changed": True, "number": handled.number, "action": handled.action, "done": handled.done,
            "remains": handled.remains, "msg": handled.sentence,
        }  # fmt: skip

    module.work(work)


if __name__ == "__main__":
    main()
