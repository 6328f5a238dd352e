# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which kinds something changes on their way into the cluster, so that only the server can say what will be there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import ApiError, Cluster, Resource

GROUP = "admissionregistration.k8s.io"
# The API server's own plugins change Pods at each update, by settings that nobody can read from outside.
_BUILT_IN = ("", "pods")


class Mutators:
    """The mutating webhooks and policies of a cluster.

    They count by what they may match: their selectors and conditions are not evaluated, since one that matches too
    much here only costs a dry run.

    :param cluster: read at once; where it may not be read, every kind may be changed.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._rules: list[Mapping[str, Any]] = []
        self._unknown = False
        try:
            for version in cluster.versions(GROUP):
                self._read(cluster, f"{GROUP}/{version}")
        except ApiError:
            self._unknown = True

    def _read(self, cluster: Cluster, api_version: str) -> None:
        webhooks = cluster.find_resource(api_version, "MutatingWebhookConfiguration")
        for configuration in cluster.list(webhooks).items if webhooks else ():
            for webhook in configuration.get("webhooks") or []:
                self._rules += webhook.get("rules") or []
        policies = cluster.find_resource(api_version, "MutatingAdmissionPolicy")
        for policy in cluster.list(policies).items if policies else ():
            constraints = (policy.get("spec") or {}).get("matchConstraints") or {}
            self._rules += constraints.get("resourceRules") or [{}]

    def may_change(self, resource: Resource) -> bool:
        """Whether an update of this kind may be changed by one of them."""
        if self._unknown or (resource.group, resource.plural) == _BUILT_IN:
            return True
        return any(_matches(rule, resource) for rule in self._rules)


def _matches(rule: Mapping[str, Any], resource: Resource) -> bool:
    """Whether a rule speaks of updates of a kind, in any version: equivalent versions are converted for a webhook."""
    return (
        _has(rule.get("operations"), ("*", "UPDATE"))
        and _has(rule.get("apiGroups"), ("*", resource.group))
        and _has(rule.get("resources"), ("*", "*/*", resource.plural, f"{resource.plural}/*"))
    )


def _has(values: Iterable[str] | None, any_of: tuple[str, ...]) -> bool:
    return values is None or any(value in any_of for value in values)
