#!/usr/bin/python
# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Has a local cluster there, or not there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: local_cluster
short_description: Make, keep, describe or remove a local Kubernetes cluster
version_added: 0.1.0
author: groundwork.platform contributors (@groundwork-platform)
description:
  - Brings a local cluster from whatever state it is in to a Ready node, and writes the files by which everybody else
    reaches it.
  - An embedded cluster that died with its machine, lost its processes or was interrupted while it was made is
    continued, with the data that it had. Certificates are renewed 30 days before they expire; other programs or
    another configuration restart what they concern.
  - Removal ends exactly the processes in the cluster's own control groups and leaves no process, mount, network
    namespace, link, control group or file.
extends_documentation_fragment: groundwork.platform.local_cluster
requirements:
  - for V(embedded), root on Debian 12 or later with containerd, runc, iptables, ipset, conntrack, iproute2 and
    containernetworking-plugins
  - cryptography and PyYAML, as ansible-core has them
attributes:
  check_mode:
    support: full
    description: Says whether the cluster would be made or removed; what cannot work is refused as without check mode.
  diff_mode:
    support: none
    description: A cluster has no diff.
  idempotent:
    support: full
    description: A cluster that runs as it should is left alone, which takes a fraction of a second to find out.
options:
  state:
    description:
      - V(present) has the cluster running and its node Ready.
      - V(absent) removes it, with everything that belongs to it.
      - V(checked) changes nothing, refuses what could not work, and says which provider it would be.
      - V(status) changes nothing and says what runs.
    type: str
    choices: [present, absent, checked, status]
    default: present
  binaries:
    description: >-
      Path of each compiled program, as RV(groundwork.platform.local_build#module:binaries) has them. V(embedded) needs
      C(kubernetes).
    type: dict
    default: {}
  images:
    description: >-
      Built images, as RV(groundwork.platform.local_build#module:images) has them. V(embedded) loads C(pause) and
      C(coredns) while it starts and ignores the others; without C(coredns) the cluster resolves no names.
    type: dict
    default: {}
  timeout:
    description: Seconds until the cluster must be ready.
    type: int
    default: 300
seealso:
  - module: groundwork.platform.local_build
  - module: groundwork.platform.local_images
"""

EXAMPLES = r"""
- name: Have the local cluster
  groundwork.platform.local_cluster:
    directory: "{{ inventory_dir }}/.cluster"
    checkout: "{{ playbook_dir }}/.."
    binaries: "{{ build.binaries }}"
    images: "{{ build.images }}"

- name: Use one that exists
  groundwork.platform.local_cluster:
    directory: "{{ inventory_dir }}/.cluster"
    checkout: "{{ playbook_dir }}/.."
    kubeconfig: ~/lab.kubeconfig
    context: lab

- name: Remove it
  groundwork.platform.local_cluster:
    directory: "{{ inventory_dir }}/.cluster"
    checkout: "{{ playbook_dir }}/.."
    state: absent
"""

RETURN = r"""
provider:
  description: Where the cluster comes from.
  type: str
  returned: success
  sample: embedded
name:
  description: The cluster's name.
  type: str
  returned: success
  sample: groundwork-0a1b2c
builds_images:
  description: Whether the cluster takes image archives, so that images are worth building.
  type: bool
  returned: unless O(state=absent)
kubeconfig:
  description: Path of the kubeconfig with this cluster's one context.
  type: str
  returned: unless O(state=absent)
node_address:
  description: Address at which NodePorts of an embedded cluster answer.
  type: str
  returned: for an embedded cluster, unless O(state=absent)
  sample: 10.217.40.2
server:
  description: URL of an embedded cluster's API server.
  type: str
  returned: for an embedded cluster, unless O(state=absent)
  sample: https://10.217.40.2:6443
uid:
  description: UID of the namespace C(kube-system).
  type: str
  returned: for O(state=present), outside of check mode
status:
  description: >-
    What runs. C(state) is V(absent), V(stopped), V(degraded) or V(running); for an embedded cluster there are C(node)
    with readiness and reason, C(processes) with process number, restarts and resident memory, C(resident_mib) of all
    of them with shared pages counted once, and C(uptime_seconds).
  type: dict
  returned: for O(state=status)
other_clusters:
  description: Names of further embedded clusters that belong to the same checkout.
  type: list
  elements: str
  returned: for O(state=status)
failure:
  description: The failure as data.
  type: dict
  returned: failure
  contains:
    code:
      description: >-
        What kind it is, such as V(not_root), V(packages_missing), V(too_little_disk), V(too_little_memory),
        V(subnet_in_use), V(unknown_provider), V(bad_kubeconfig), V(wrong_cluster), V(foreign_cluster),
        V(daemon_failed) or V(no_space).
      type: str
    object:
      description: What failed.
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
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.groundwork.platform.plugins.module_utils.ansible_module import run
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import service
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.providers import AUTO, NAMES


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent", "checked", "status"], "default": "present"},
            "directory": {"type": "path", "required": True},
            "checkout": {"type": "path", "required": True},
            "name": {"type": "str"},
            "subnet": {"type": "str"},
            "provider": {"type": "str", "choices": [AUTO, *NAMES], "default": AUTO},
            "kubeconfig": {"type": "path"},
            "context": {"type": "str"},
            "binaries": {"type": "dict", "default": {}},
            "images": {"type": "dict", "default": {}},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    run(module, lambda: work(module.params, check_mode=module.check_mode))


def work(params: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """Dispatch on the state that is asked for."""
    place = service.Place.of(params, check_mode=check_mode)
    if params["state"] == "present":
        binary = params["binaries"].get("kubernetes")
        return service.present(place, Path(binary) if binary else None, params["images"])
    states = {"absent": service.absent, "checked": service.checked, "status": service.status}
    return states[params["state"]](place)


if __name__ == "__main__":
    main()
