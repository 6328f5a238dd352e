# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changed between two states of an object, and how to show it without showing a secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

try:
    import yaml
except ImportError:  # ansible_module.run says so before anything needs it
    yaml = None  # type: ignore[assignment]

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object, describe

# Written by the server at each change of anything, or by controllers: no sign of a change that was asked for.
NOISE = ("managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink")
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def significant(obj: Mapping[str, Any]) -> Object:
    """An object without what the server and controllers write into it."""
    plain = {key: value for key, value in obj.items() if key != "status"}
    plain["metadata"] = {key: value for key, value in (obj.get("metadata") or {}).items() if key not in NOISE}
    return plain


def changed_fields(before: Mapping[str, Any], after: Mapping[str, Any], limit: int = 50) -> list[str]:
    """Paths of the fields that differ, such as ``.spec.replicas``; names only, so safe to print.

    :param limit: no more than so many.
    """
    found: list[str] = []

    def walk(old: Any, new: Any, path: str) -> None:
        if len(found) >= limit or old == new:
            return
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            for key in sorted({*old, *new}, key=str):
                walk(old.get(key), new.get(key), f"{path}.{key}")
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            for index, (one, other) in enumerate(zip(old, new, strict=True)):
                walk(one, other, f"{path}[{index}]")
        else:
            found.append(path or ".")

    walk(significant(before), significant(after), "")
    return found


def ansible_diff(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> dict[str, str]:
    """The entry of a module's ``diff`` for one object; values of a Secret are masked always, changed or not."""
    shown = describe(after or before or {})
    old, new = significant(before) if before else None, significant(after) if after else None
    old, new = _masked(old, new, "(before)"), _masked(new, old, "(after)")
    return {
        "before_header": shown,
        "after_header": shown,
        "before": _text(old),
        "after": _text(new),
    }


def _masked(obj: Object | None, other: Object | None, mark: str) -> Object | None:
    if obj is None:
        return None
    if obj.get("kind") != "Secret":
        return obj
    masked = dict(obj)
    for section in ("data", "stringData"):
        if isinstance(obj.get(section), Mapping):
            theirs = (other or {}).get(section) or {}
            masked[section] = {
                key: "*****" if other is None or key not in theirs or theirs[key] == value else f"***** {mark}"
                for key, value in obj[section].items()
            }
    annotations = masked["metadata"].get("annotations") or {}
    if LAST_APPLIED in annotations:
        masked["metadata"] = {**masked["metadata"], "annotations": {**annotations, LAST_APPLIED: "*****"}}
    return masked


def _text(obj: Object | None) -> str:
    if obj is None:
        return ""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(obj, Dumper=dumper, default_flow_style=False, sort_keys=True, width=160))
