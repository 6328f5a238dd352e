# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many replicas a workload starts with that an autoscaler will own.

A workload without ``spec.replicas`` and with the annotation :data:`ANNOTATION` starts with that many, which belong to
:data:`MANAGER`: an autoscaler takes them over without a conflict, and applying the workload again leaves them alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object, describe
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

ANNOTATION = "groundwork.platform/initial-replicas"
MANAGER = "groundwork.platform/initial"


def wanted(obj: Mapping[str, Any]) -> int | None:
    """How many an object starts with; None if it says nothing of it, or has replicas of its own.

    :raises Failure: ``bad_manifest``.
    """
    text = (obj["metadata"].get("annotations") or {}).get(ANNOTATION)
    if text is None or "replicas" in (obj.get("spec") or {}):
        return None
    try:
        return int(text)
    except ValueError:
        raise Failure(
            "bad_manifest", describe(obj), f'has an annotation {ANNOTATION} "{text}" that is no number'
        ) from None


def to_hand_over(obj: Mapping[str, Any], live: Mapping[str, Any] | None, manager: str) -> int | None:
    """How many replicas to give to the initial manager, so that applying an object without replicas keeps them.

    Two cases: they were ours until this release, and giving them up would set them to 1; or they are nobody's, since
    an earlier run ended between creating the object and setting them.
    """
    count = wanted(obj)
    if count is None or live is None:
        return None
    managers = _managers(live)
    present = int(live["spec"].get("replicas", 1))
    if managers == {manager}:
        return present
    if not managers and present != count:
        return count
    return None


def patch(obj: Mapping[str, Any], count: int) -> Object:
    """What the initial manager applies."""
    metadata = obj["metadata"]
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "metadata": {"name": metadata["name"], "namespace": metadata.get("namespace")},
        "spec": {"replicas": count},
    }


def _managers(live: Mapping[str, Any]) -> set[str]:
    return {
        str(entry.get("manager"))
        for entry in live["metadata"].get("managedFields") or []
        if "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    }
