#!/usr/bin/python
# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads built images into a local cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: local_images
short_description: Load built images into a local cluster
version_added: 0.1.0
author: groundwork.platform contributors (@groundwork-platform)
description:
  - Loads the archives that the cluster lacks, found by one listing, and writes C(images.yml), which maps each published
    reference to the one that the cluster has.
  - Images keep their digests, so that a pod names exactly what was built. Docker Desktop alone is given tags made of
    them, as its engine forgets digests of what it loads.
extends_documentation_fragment: groundwork.platform.local_cluster
attributes:
  check_mode:
    support: full
    description: Says which images would be loaded.
  diff_mode:
    support: none
    description: Images have no diff.
  idempotent:
    support: full
    description: Loads only what is not there.
options:
  images:
    description: Built images by name, as RV(groundwork.platform.local_build#module:images) has them.
    type: dict
    required: true
  manifests:
    description: >-
      Files with manifests by their names, as RV(groundwork.platform.local_build#module:manifests) has them. Each is
      copied to C(manifests/<name>.yaml) in O(directory), so that the roles find it whatever the cache holds.
    type: dict
    default: {}
seealso:
  - module: groundwork.platform.local_build
  - module: groundwork.platform.local_cluster
"""

EXAMPLES = r"""
- name: Load what was built
  groundwork.platform.local_images:
    directory: "{{ inventory_dir }}/.cluster"
    checkout: "{{ playbook_dir }}/.."
    images: "{{ build.images }}"
"""

RETURN = r"""
loaded:
  description: Names of the images that were loaded; in check mode, that would be.
  type: list
  elements: str
  returned: success
images:
  description: What C(images.yml) says.
  type: dict
  returned: success
  sample: {"docker.io/library/redis:8.0": "docker.io/groundwork/redis@sha256:..."}
failure:
  description: The failure as data, with C(code), C(object), C(cause), C(evidence) and C(hint).
  type: dict
  returned: failure
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.groundwork.platform.plugins.module_utils.ansible_module import run
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import service
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.providers import AUTO, NAMES


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "checkout": {"type": "path", "required": True},
            "name": {"type": "str"},
            "subnet": {"type": "str"},
            "provider": {"type": "str", "choices": [AUTO, *NAMES], "default": AUTO},
            "kubeconfig": {"type": "path"},
            "context": {"type": "str"},
            "images": {"type": "dict", "required": True},
            "manifests": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    run(module, lambda: work(module.params, check_mode=module.check_mode))


def work(params: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """Load the images and lay out the manifests."""
    return service.load(service.Place.of(params, check_mode=check_mode), params["images"], params["manifests"])


if __name__ == "__main__":
    main()
