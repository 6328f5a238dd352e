#!/usr/bin/python
# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Publish, list and roll back model versions on a volume."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_volume
short_description: Publish, list and roll back model versions on a volume
version_added: 0.1.0
author: groundwork.platform contributors (@groundwork-platform)
description:
  - Keeps versions of a model, each a folder that never changes, on a PersistentVolumeClaim that pods mount
    read-only. The link C(current) leads
    to one of them and is switched by one rename, so that readers that follow it take a new version up without a
    restart.
  - A version is judged on the controller first, sent as a whole with its C(SHA256SUMS), made durable and verified
    on the volume, judged by the
    image's own command where it has one, and only then given its name.
  - What is there is asked of a running pod that mounts the claim. Writing takes a short-lived pod of the same
    image, user and restrictions; its
    fixed name C(models-publisher) keeps two writers apart. The image needs Python 3.9 or later.
extends_documentation_fragment:
  - groundwork.platform.auth
attributes:
  check_mode:
    support: full
    description: Says what would become current; the publishing pod is tried as a server-side dry run.
  diff_mode:
    support: full
    description: Shows the current version before and after.
  idempotent:
    support: partial
    description: >-
      Publishing a version that is current changes nothing; rolling back without O(version) goes back one more
      each time.
requirements:
  - websocket-client (comes with kubernetes)
options:
  state:
    description:
      - V(published) makes O(version) current, sending O(source) where it is not on the volume yet.
      - V(listed) only returns what is there.
      - V(rolled_back) makes an earlier version current again.
    type: str
    choices: [published, listed, rolled_back]
    default: published
  namespace:
    description: Namespace of the system.
    type: str
    required: true
  claim:
    description: Name of the PersistentVolumeClaim.
    type: str
    default: models
  version:
    description:
      - The version to publish.
      - For O(state=rolled_back) the version to return to; without it, the one that was current before. From
        the first version it returns to none,
        and the application to whatever it does without a model.
    type: str
    default: ""
  source:
    description:
      - A model file or a folder of files. A single JSON file becomes C(model.json).
      - A C(SHA256SUMS) among them is verified; a C(model.json) must name O(version) as its C(version), or
        C(built-in), or none.
      - Needed for O(state=published).
    type: path
  keep:
    description: Versions to keep after publishing. The current one and the one before it always stay.
    type: int
    default: 5
  check_command:
    description: >-
      A command of the image that judges a model's folder, given as its last argument. An image that lacks it is
      not asked.
    type: list
    elements: str
    default: [check-model]
  timeout:
    description: Seconds until the publishing pod must run.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Publish a version
  groundwork.platform.model_volume:
    context: prod
    namespace: medical-inventory
    version: 2.0.0
    source: models/medical_inventory-2.0.0/

- name: See what is there
  groundwork.platform.model_volume:
    context: prod
    namespace: medical-inventory
    state: listed
  register: models

- name: Go back to the version before
  groundwork.platform.model_volume:
    context: prod
    namespace: medical-inventory
    state: rolled_back
"""

RETURN = r"""
current:
  description: The version that is current afterwards; in check mode, would be. Empty when there is none.
  type: str
  returned: success
  sample: 2.0.0
previous:
  description: The version to which V(rolled_back) would return.
  type: str
  returned: success
  sample: 1.4.0
versions:
  description: All versions on the volume, oldest first.
  type: list
  elements: dict
  returned: success
  contains:
    version:
      description: Its name.
      type: str
    digest:
      description: SHA-256 of its C(SHA256SUMS).
      type: str
    published:
      description: When it was published.
      type: str
    bytes:
      description: Its size.
      type: int
verdict:
  description: What the image's own judgement was.
  type: str
  returned: when a version was published
  sample: judged good by the image
pruned:
  description: Versions that were removed.
  type: list
  elements: str
  returned: when a version was published
failure:
  description: What went wrong, as data; C(msg) says the same in words.
  returned: failure
  type: dict
  contains:
    code:
      description: >-
        V(model_invalid), V(model_refused), V(model_busy), V(no_pod), V(publisher), V(exec), or what the
        connection says.
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
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster_module import ClusterModule, connect
from ansible_collections.groundwork.platform.plugins.module_utils.models.publishing import Models


def main() -> None:
    """Entry point of the module."""
    module = ClusterModule(
        argument_spec={
            "state": {"type": "str", "choices": ["published", "listed", "rolled_back"], "default": "published"},
            "namespace": {"type": "str", "required": True},
            "claim": {"type": "str", "default": "models"},
            "version": {"type": "str", "default": ""},
            "source": {"type": "path"},
            "keep": {"type": "int", "default": 5},
            "check_command": {"type": "list", "elements": "str", "default": ["check-model"]},
            "timeout": {"type": "int", "default": 120},
        },
        required_if=[("state", "published", ("version", "source"))],
    )

    def work(params: Mapping[str, Any]) -> dict[str, Any]:
        models = Models(
            connect(params), params["namespace"], params["claim"], module.check_mode, float(params["timeout"])
        )
        if params["state"] == "listed":
            return models.listed()
        if params["state"] == "rolled_back":
            return models.rolled_back(params["version"])
        return models.published(params["version"], Path(params["source"]), params["keep"], params["check_command"])

    module.work(work)


if __name__ == "__main__":
    main()
