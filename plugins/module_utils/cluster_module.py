# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules that speak to a cluster share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.groundwork.platform.plugins.module_utils.ansible_module import run
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, ClusterAuth
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_auth import auth_argument_spec
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_transport import PATIENCE

HIDDEN = "VALUE_NOT_SHOWN"


class ClusterModule(AnsibleModule):  # type: ignore[misc] # ansible-core carries no types
    """A module with the connection options, which keeps manifests out of logs.

    Manifests hold secrets in some of their fields only. Masking all of their values (``no_log``) would mask the
    names in every result, so instead they are taken out of what is logged and returned, as a whole.

    :param concealed: names of parameters that may hold secrets.
    """

    def __init__(self, argument_spec: Mapping[str, Any], concealed: tuple[str, ...] = (), **options: Any) -> None:
        self._concealed = (*concealed, "kubeconfig")
        spec = {**auth_argument_spec(), **argument_spec}
        super().__init__(argument_spec=spec, supports_check_mode=True, **options)

    def _log_invocation(self) -> None:
        """Say in the system log that the module ran, and not with what."""
        self.log("Invoked")

    def fail_json(self, *arguments: Any, **keywords: Any) -> None:
        """Fail, also for bad parameters, without returning what may hold secrets."""
        self._conceal()
        super().fail_json(*arguments, **keywords)

    def work(self, core: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        """Call the core with the parameters, and exit with its result."""
        given = dict(self.params)
        self._conceal()
        run(self, lambda: core(given))

    def _conceal(self) -> None:
        for name in self._concealed:
            # A path of a kubeconfig is worth showing.
            if self.params.get(name) and not (name == "kubeconfig" and isinstance(self.params[name], str)):
                self.params[name] = HIDDEN


def connect(params: Mapping[str, Any], patience: float = PATIENCE) -> Cluster:
    """The cluster that the parameters name."""
    return Cluster(ClusterAuth.from_params(params), patience)
