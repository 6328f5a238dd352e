#!/usr/bin/python
# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs of a system, where, and how to reach it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: system_info
short_description: What runs of a system, where, and how to reach it
version_added: 0.1.0
author: groundwork.platform contributors (@groundwork-platform)
description:
  - Reads the workloads of a namespace (Deployments, StatefulSets and CloudNativePG Clusters), their pods, and the
    addresses under which its Services are reached from outside, with one request for each kind.
  - It judges nothing over time; M(groundwork.platform.health_gate) does.
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
  namespace:
    description: Namespace of the system.
    type: str
    required: true
  public:
    description: >-
      What RV(groundwork.platform.compile_system#module:public) says is public. An entry with V(url) is reported as it
      is; for the others the address is read from their Services.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: See what runs
  groundwork.platform.system_info:
    kubeconfig: ~/.kube/config
    context: prod
    namespace: medical-inventory
  register: system

- name: Show it
  ansible.builtin.debug:
    msg: "{{ system.lines }}"
"""

RETURN = r"""
components:
  description: Each workload of the namespace, components first and stores after them.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: Name of the object.
      type: str
    kind:
      description: C(Deployment), C(StatefulSet) or C(Cluster).
      type: str
    ready:
      description: Pods that are ready.
      type: int
    wanted:
      description: Pods that are asked for, by the manifest or by an autoscaler.
      type: int
    healthy:
      description: Whether all wanted pods are ready.
      type: bool
    pods:
      description: Name, node, readiness, phase and restarts of each pod.
      type: list
      elements: dict
    note:
      description: What the object's own status says, such as which instance is the primary.
      type: str
addresses:
  description: Name and URL of what is reached from outside.
  type: list
  elements: dict
  returned: success
  sample: [{"name": "proxy", "url": "http://10.213.7.2:30080"}]
healthy:
  description: Whether something runs and all of it is healthy.
  type: bool
  returned: success
lines:
  description: The same for people, one workload or address a line.
  type: list
  elements: str
  returned: success
  sample: ["api   2/2 ready on node", "proxy http://10.213.7.2:30080"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.groundwork.platform.plugins.module_utils.ansible_module import run
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_auth import ClusterAuth, auth_argument_spec
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_transport import Transport
from ansible_collections.groundwork.platform.plugins.module_utils.report import build, read


def main() -> None:
    """Read a namespace and report it."""
    module = AnsibleModule(
        argument_spec={
            **auth_argument_spec(),
            "namespace": {"type": "str", "required": True},
            "public": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )

    def work() -> dict[str, Any]:
        namespace = module.params["namespace"]
        transport = Transport(ClusterAuth.from_params(module.params).connection())
        try:
            report = build(namespace, read(transport, namespace), module.params["public"])
        finally:
            transport.close()
        return {"changed": False, **report.as_dict()}

    run(module, work)


if __name__ == "__main__":
    main()
