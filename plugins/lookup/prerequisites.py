# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the systems of a cluster need to be installed there: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
name: prerequisites
short_description: What the systems of a cluster need to be installed there
version_added: 0.1.0
author: groundwork.platform contributors (@groundwork-platform)
description:
  - Reads the systems of the inventory's group C(systems) whose C(system_cluster) is the given cluster, and returns the
    roles of this collection that what they declare depends on, in the order in which they are to be run.
  - A system whose file is not valid is left out here, as its own play says what is wrong with it.
options:
  _terms:
    description: Inventory name of the cluster.
    required: true
notes:
  - It reads C(system_name), C(system_path), C(system_environment) and C(system_overrides) of each system, as the role
    P(groundwork.platform.system#role) does.
"""

EXAMPLES = r"""
- name: Show what this cluster is to get
  ansible.builtin.debug:
    msg: "{{ query('groundwork.platform.prerequisites', inventory_hostname) }}"
"""

RETURN = r"""
_raw:
  description: Names of roles.
  type: list
  elements: str
  sample: [metrics_server, cloudnative_pg]
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.manifests.capabilities import capabilities
from ansible_collections.groundwork.platform.plugins.module_utils.model.system import load

# Those that are delivered, each after what it needs itself.
ORDER = ("metrics_server", "cloudnative_pg")
SYSTEMS = Path(__file__).resolve().parents[2] / "systems"


def needed(host: str, variables: Mapping[str, Any]) -> set[str]:
    """What one system needs of its cluster.

    :param host: its inventory name.
    :param variables: its inventory variables.
    :raises Failure: its file is not there or not valid.
    """
    loaded = load(
        str(variables.get("system_name") or host),
        [str(folder) for folder in variables.get("system_path") or [SYSTEMS]],
        str(variables.get("system_environment") or ""),
        variables.get("system_overrides") or {},
    )
    return set(capabilities(loaded.system).needed)


class LookupModule(LookupBase):
    """Derives a cluster's prerequisites from its systems."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: object) -> list[str]:
        """Return the roles for one cluster, in order."""
        self.set_options(var_options=variables, direct=kwargs)
        if len(terms) != 1:
            raise AnsibleError("groundwork.platform.prerequisites takes the name of one cluster")
        found: set[str] = set()
        for host in (variables or {}).get("groups", {}).get("systems", []):
            hostvars = (variables or {})["hostvars"][host]
            if hostvars.get("system_cluster") != terms[0]:
                continue
            try:
                found |= needed(host, hostvars)
            except Failure as failure:
                Display().v(f"{host} is left out of what {terms[0]} needs: {failure.sentence}", host=terms[0])
        return [name for name in ORDER if name in found]
