# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quotas while a release is brought in: they hold what leaves and what comes, and get smaller only at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, Object, Resource

QUOTAS = Resource("", "v1", "ResourceQuota", "resourcequotas", True)
_SUFFIXES = {
    "m": Decimal("0.001"), "": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "P": Decimal(10**15), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30),
    "Ti": Decimal(2**40), "Pi": Decimal(2**50),
}  # fmt: skip


def is_quota(obj: Mapping[str, Any]) -> bool:
    """Whether an object is a ResourceQuota."""
    return bool(obj["kind"] == "ResourceQuota" and obj["apiVersion"] == "v1")


def widened(cluster: Cluster, objects: Sequence[Object], namespace: str | None = None) -> list[Object]:
    """Objects in which no ResourceQuota allows less than the one that is there now."""
    return [_widened(cluster, obj, namespace) if is_quota(obj) else obj for obj in objects]


def _widened(cluster: Cluster, quota: Object, namespace: str | None) -> Object:
    metadata = quota["metadata"]
    live = cluster.get(QUOTAS, metadata["name"], metadata.get("namespace") or namespace or "default")
    return {**quota, "spec": {**quota["spec"], "hard": larger(quota["spec"]["hard"], (live or {}).get("spec", {}))}}


def larger(hard: Mapping[str, Any], live: Mapping[str, Any]) -> dict[str, Any]:
    """Each amount, or the one that is allowed now if that is more.

    :param live: the spec of the quota that is there, if there is one; what it does not limit is not limited before
        the end either.
    """
    present = live.get("hard")
    if present is None:
        return dict(hard)
    return {
        name: present[name] if number(present[name]) > number(amount) else amount
        for name, amount in hard.items()
        if name in present
    }


def number(text: Any) -> Decimal:
    """A quantity of Kubernetes as a number; 0 if it is none."""
    digits = str(text).rstrip("mkKMGTPi")
    try:
        return Decimal(digits) * _SUFFIXES.get(str(text)[len(digits) :], Decimal(1))
    except InvalidOperation:
        return Decimal(0)
