#!/usr/bin/python
# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One verdict on the health of a set of objects."""

from __future__ import annotations

DOCUMENTATION = r"""
module: health_gate
short_description: Wait until objects are healthy, or say why they never will be
version_added: 0.1.0
author: groundwork.platform contributors (@groundwork-platform)
description:
  - Watches the given objects and what they own, together, and gives one verdict.
  - An object is judged by the rules of its kind; of workloads only the pods of the new revision count.
  - What will not heal by itself (an image that does not exist, a missing Secret, a refusal by Pod Security, a crash
    loop, and so on) ends the wait at once or after a short grace, and the failure names the root cause with the
    chain from the workload to the container, the last log lines and events.
extends_documentation_fragment:
  - groundwork.platform.auth
attributes:
  check_mode:
    support: full
    description: Looks once, without waiting, and does not fail.
  diff_mode:
    support: N/A
    description: Does not change anything, so there is nothing to compare.
  idempotent:
    support: full
    description: Never changes anything.
options:
  definition:
    description:
      - An object, a list of objects, or YAML text with one or more documents. C(apiVersion), C(kind) and the name
        and namespace in C(metadata) are enough.
    type: raw
  src:
    description:
      - Path of a file of manifests (YAML or JSON), or of a folder of them.
    type: path
  namespace:
    description:
      - Namespace of namespaced objects that name none.
    type: str
  timeout:
    description:
      - Seconds after which the verdict is bad if it is not good before.
    type: float
    default: 300
  stable_for:
    description:
      - Seconds for which everything has to stay ready without a restart before the verdict is good.
    type: float
    default: 0
  max_restarts:
    description:
      - Restarts of one container after which its crashing counts as permanent.
    type: int
    default: 3
seealso:
  - module: groundwork.platform.apply
  - module: kubernetes.core.k8s_info
"""

EXAMPLES = r"""
- name: See whether a release is healthy and stays so for half a minute
  groundwork.platform.health_gate:
    src: manifests/
    namespace: shop
    timeout: 300
    stable_for: 30

- name: Wait for one Deployment
  groundwork.platform.health_gate:
    definition:
      apiVersion: apps/v1
      kind: Deployment
      metadata:
        name: api
        namespace: shop
"""

RETURN = r"""
verdict:
  description: V(healthy); in check mode also V(not_healthy).
  type: str
  returned: success
objects:
  description: State of each object.
  type: list
  elements: dict
  returned: success
  contains:
    object:
      description: Kind, namespace and name.
      type: str
    state:
      description: V(ready), V(progressing) or V(failed).
      type: str
    message:
      description: What its rule says of it.
      type: str
notes:
  description: What is to be told although all is well, such as an autoscaler without metrics.
  type: list
  elements: str
  returned: success
seconds:
  description: How long it took.
  type: float
  returned: success
failure:
  description: The first reason.
  type: dict
  returned: failure
  contains:
    code:
      description: Kind of the cause, such as V(image_not_found), V(crash_loop) or V(timeout).
      type: str
    object:
      description: Which object is not healthy.
      type: str
    cause:
      description: Why.
      type: str
    evidence:
      description: What was seen.
      type: str
    hint:
      description: What to do.
      type: str
    chain:
      description: From the object down to the container.
      type: list
      elements: str
    logs:
      description: Last lines of the container's log, without what looks like a credential.
      type: list
      elements: str
    events:
      description: Last events about the pod.
      type: list
      elements: str
    all:
      description: All reasons, causes first.
      type: list
      elements: dict
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.apply.objects import load
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_module import ClusterModule, connect
from ansible_collections.groundwork.platform.plugins.module_utils.health.gate import Gate, gate_targets
from ansible_collections.groundwork.platform.plugins.module_utils.health.pods import Policy
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress


def main() -> None:
    """Judge the objects."""
    module = ClusterModule(
        argument_spec={
            "definition": {"type": "raw"},
            "src": {"type": "path"},
            "namespace": {"type": "str"},
            "timeout": {"type": "float", "default": 300},
            "stable_for": {"type": "float", "default": 0},
            "max_restarts": {"type": "int", "default": 3},
        },
        concealed=("definition",),
        required_one_of=[["definition", "src"]],
    )

    def work(params: Mapping[str, Any]) -> dict[str, Any]:
        cluster = connect(params)
        targets = gate_targets(load(params["definition"], params["src"]), cluster, params["namespace"])
        gate = Gate(
            cluster,
            targets,
            params["timeout"],
            params["stable_for"],
            Policy(max_restarts=params["max_restarts"]),
            Progress(params["namespace"] or cluster.connection.context or "gate"),
        )
        verdict = gate.look() if module.check_mode else gate.run()
        return {
            "changed": False,
            "verdict": "healthy" if verdict.healthy else "not_healthy",
            "objects": verdict.objects,
            "notes": verdict.notes,
            "seconds": verdict.seconds,
        }

    module.work(work)


if __name__ == "__main__":
    main()
