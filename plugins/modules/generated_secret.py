#!/usr/bin/python
# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that are generated once and kept."""

from __future__ import annotations

DOCUMENTATION = r"""
module: generated_secret
short_description: Keep Secrets whose values are generated once and never shown
version_added: 0.1.0
author: groundwork.platform contributors (@groundwork-platform)
description:
  - Creates Secrets with random values, and adds what is missing to those that are there. A value that is there is
    never replaced.
  - No value leaves the cluster or the process; the result names keys only.
extends_documentation_fragment:
  - groundwork.platform.auth
attributes:
  check_mode:
    support: full
    description: Says which keys would be generated.
  diff_mode:
    support: full
    description: Shows names of keys, never values.
  idempotent:
    support: full
    description: Only what is missing is generated.
options:
  namespace:
    description:
      - Namespace of the Secrets.
    type: str
    required: true
  secrets:
    description:
      - The Secrets to keep.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the Secret.
        type: str
        required: true
      labels:
        description: Labels that it has; others are left alone.
        type: dict
      annotations:
        description: Annotations that it has; others are left alone.
        type: dict
      type:
        description: Type of the Secret when it is created.
        type: str
        default: Opaque
      keys:
        description:
          - Keys to generate, each with C(length) in characters (default V(32)) and C(alphabet), which is
            V(alphanumeric) (the default), V(letters), V(lowercase), V(digits), V(hex), V(safe) (with punctuation
            that needs no escaping), or the characters themselves.
        type: dict
      data:
        description: Keys with values that are given, such as a user's name; they are kept as given.
        type: dict
"""

EXAMPLES = r"""
- name: Keep the database user's credentials
  groundwork.platform.generated_secret:
    namespace: shop
    secrets:
      - name: postgres-app
        type: kubernetes.io/basic-auth
        data:
          username: app
        keys:
          password:
            length: 40
"""

RETURN = r"""
secrets:
  description: What happened to each Secret.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: Its name.
      type: str
    action:
      description: V(created), V(changed) or V(unchanged); in check mode what would happen.
      type: str
    generated:
      description: Keys whose values were generated now.
      type: list
      elements: str
    keys:
      description: All keys that were asked for.
      type: list
      elements: str
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster_module import ClusterModule, connect
from ansible_collections.groundwork.platform.plugins.module_utils.generated_secret import keep


def main() -> None:
    """Keep the Secrets."""
    module = ClusterModule(
        argument_spec={
            "namespace": {"type": "str", "required": True},
            "secrets": {
                "type": "list",
                "elements": "dict",
                "required": True,
                # The values in it are hidden as a whole, see ClusterModule.
                "no_log": False,
                "options": {
                    "name": {"type": "str", "required": True},
                    "labels": {"type": "dict"},
                    "annotations": {"type": "dict"},
                    "type": {"type": "str", "default": "Opaque"},
                    "keys": {"type": "dict", "no_log": False},
                    "data": {"type": "dict"},
                },
            },
        },
        concealed=("secrets",),
    )

    def work(params: Mapping[str, Any]) -> dict[str, Any]:
        outcomes = keep(connect(params), params["namespace"], params["secrets"], module.check_mode)
        changed = [outcome for outcome in outcomes if outcome.action != "unchanged"]
        result: dict[str, Any] = {
            "changed": bool(changed),
            "secrets": [dataclasses.asdict(outcome) for outcome in outcomes],
        }
        if module._diff:
            result["diff"] = [
                {
                    "before": "",
                    "after": "".join(f"{key}: generated\n" for key in outcome.generated) or "data or labels as given\n",
                    "before_header": f"Secret {params['namespace']}/{outcome.name}",
                    "after_header": f"Secret {params['namespace']}/{outcome.name}",
                }
                for outcome in changed
            ]
        return result

    module.work(work)


if __name__ == "__main__":
    main()
