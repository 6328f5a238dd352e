#!/usr/bin/python
# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: compile_system
short_description: Compile a system file to Kubernetes objects
version_added: 0.1.0
author:
  - groundwork.platform contributors (@groundwork-platform)
description:
  - Reads a system's C(system.yml), the file of one environment and overrides, merges them once, checks the whole and
    returns the Kubernetes objects that it stands for, in the order in which they are applied.
  - Maps merge, lists and scalars replace, C(null) removes. System files hold no Jinja.
  - All mistakes are reported together, each with file, line, path, what was found, what was expected and the likely
    name for a misspelt one. Nothing is read from or sent to a cluster.
  - The same input gives the same result to the byte.
options:
  name:
    description: Name of the system, which is that of its folder.
    type: str
    required: true
  path:
    description: Folders in which the system's folder is looked up. The first one that has it wins.
    type: list
    elements: path
    required: true
  environment:
    description: Which file of the system's C(environments) folder is merged over C(system.yml).
    type: str
    required: true
  overrides:
    description: Merged over both files, in the same form.
    type: dict
    default: {}
  images:
    description:
      - Published image references mapped to those under which the cluster has the images, as for a mirror.
      - An image that is not among them is used as published.
    type: dict
    default: {}
  components:
    description:
      - The collection's pinned components, as the role P(groundwork.platform.components#role) has them. Images of
        stores and proxies come from here.
    type: dict
    default: {}
requirements:
  - PyYAML
seealso:
  - module: groundwork.platform.apply
  - module: groundwork.platform.generated_secret
  - module: groundwork.platform.migration
attributes:
  check_mode:
    support: full
    description: Nothing is changed in any mode.
  diff_mode:
    support: none
    description: Nothing is changed in any mode.
  idempotent:
    support: full
    description: The same input gives the same result.
"""

EXAMPLES = r"""
- name: Compile Medical Inventory for production
  groundwork.platform.compile_system:
    name: medical_inventory
    path: [systems]
    environment: prod
    components: "{{ components }}"
  register: compiled

- name: Compile another release, with images from a mirror
  groundwork.platform.compile_system:
    name: medical_inventory
    path: [/srv/systems, systems]
    environment: staging
    overrides:
      image: medical-inventory/api:1.1.0
      components:
        api:
          replicas: {min: 3, max: 8}
    images:
      docker.io/library/redis:8.0: mirror.example/redis:8.0
    components: "{{ components }}"
"""

RETURN = r"""
namespace:
  description: Namespace of the system.
  returned: success
  type: str
  sample: medical-inventory
stages:
  description: The objects, by stage.
  returned: success
  type: dict
  contains:
    foundation:
      description: Namespace, quota, service accounts, network policies and volumes.
      type: list
      elements: dict
    secrets:
      description: What M(groundwork.platform.generated_secret) makes.
      type: list
      elements: dict
    stores:
      description: Data stores.
      type: list
      elements: dict
    migration:
      description: The Job for M(groundwork.platform.migration), or nothing.
      type: dict
    components:
      description: Deployments and what belongs to them.
      type: list
      elements: dict
migration:
  description: Options of M(groundwork.platform.migration) besides its Job - the database, the tool and what to observe.
  returned: success
  type: dict
public:
  description: What can be reached from outside of the cluster.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the entry.
      type: str
    component:
      description: The component that is reached.
      type: str
    service:
      description: Its Service.
      type: str
    type:
      description: V(NodePort), or V(ClusterIP) where a gateway or a port-forward leads to it.
      type: str
    scheme:
      description: V(http).
      type: str
    port:
      description: Port of the nodes or of the Service.
      type: int
    host:
      description: Its name in the environment's domain, or nothing.
      type: str
    routes:
      description: Path to the component that answers there.
      type: dict
  sample:
    - component: proxy
      host: ""
      name: proxy
      port: 30080
      routes: {/: api, /ws: websocket}
      scheme: http
      service: proxy
      type: NodePort
smoke:
  description: >-
    What has to answer through its Service before a release is good, as O(groundwork.platform.release#module:http_gates)
    takes it; what is public by a node port.
  returned: success
  type: list
  elements: dict
  sample: [{name: smoke check of proxy, path: /readyz, service: {name: proxy, port: http}}]
strategies:
  description: How components take over that are not simply rolled, as M(groundwork.platform.release) takes it.
  returned: success
  type: dict
  sample: {api: {type: canary, steps: [10, 50, 100], pause: 60}}
on_failure:
  description: V(rollback), V(keep) or V(pause).
  returned: success
  type: str
digest:
  description: Digest of the system's files with everything merged over them.
  returned: success
  type: str
capabilities:
  description: What the system expects of its cluster.
  returned: success
  type: dict
  contains:
    declared:
      description: What the environment counts on.
      type: list
      elements: str
    needed:
      description: What the objects cannot do without.
      type: list
      elements: str
    pending:
      description: What is counted on and not delivered by the collection yet, with what happens instead.
      type: dict
withheld:
  description: What the system's file asks for and is left out here.
  returned: success
  type: list
  elements: dict
  contains:
    object:
      description: Kind and name, or the key of the system's file where it is no one object.
      type: str
    needs:
      description: The capability that brings it; empty where the collection does not derive it yet.
      type: str
    why:
      description: Why it is left out, and what is done without it.
      type: str
  sample:
    - {object: ScaledObject/api, needs: keda, why: "local does not count on keda: scaling is by CPU and memory only"}
notes:
  description: What differs in this environment, one sentence each.
  returned: success
  type: list
  elements: str
  sample: [api-gpu does not run in local]
failure:
  description: What is wrong, as data; C(msg) says the same in words.
  returned: failure
  type: dict
  contains:
    code:
      description: V(system_invalid), V(system_not_found), V(environment_not_found), V(image_not_pinned) or
        V(image_version_unknown).
      type: str
    object:
      description: What is wrong.
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
    errors:
      description: All mistakes, for V(system_invalid).
      type: list
      elements: dict
      contains:
        file:
          description: Where it is; V(system_overrides) for what came from the inventory.
          type: str
        line:
          description: Its line, where there is one.
          type: int
        path:
          description: Keys from the root.
          type: str
        found:
          description: What stands there.
          type: str
        expected:
          description: What should.
          type: str
        nearest:
          description: What was probably meant, or nothing.
          type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.groundwork.platform.plugins.module_utils.ansible_module import run
from ansible_collections.groundwork.platform.plugins.module_utils.manifests.compile import compile_system


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "path": {"type": "list", "elements": "path", "required": True},
            "environment": {"type": "str", "required": True},
            "overrides": {"type": "dict", "default": {}},
            "images": {"type": "dict", "default": {}},
            "components": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    run(module, lambda: {"changed": False, **compile_system(**module.params)})


if __name__ == "__main__":
    main()
