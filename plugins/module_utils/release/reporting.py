# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules around releases share: their connection from parameters, and results from outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, ClusterAuth
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health.options import Options, gate_argument_spec
from ansible_collections.groundwork.platform.plugins.module_utils.release.engine import Outcome, Releases
from ansible_collections.groundwork.platform.plugins.module_utils.release.record import Record, home_of
from ansible_collections.groundwork.platform.plugins.module_utils.release.rollout import Settings


def release_argument_spec() -> dict[str, Any]:
    """The options of what makes a release, as the doc fragments ``releasing`` and ``gate`` document them."""
    return {
        "by": {"type": "dict", "default": {}},
        "history": {"type": "int", "default": 10},
        "force_conflicts": {"type": "bool", "default": False},
        "wait_timeout": {"type": "float", "default": 300},
        "lock_timeout": {"type": "float", "default": 900},
        "retry_timeout": {"type": "float", "default": 120},
        **gate_argument_spec(),
    }


def opened(params: Mapping[str, Any], namespace: str | None, check_mode: bool) -> Releases:
    """The releases that a module's parameters name.

    :param namespace: looked for if it is not known.
    """
    cluster = Cluster(ClusterAuth.from_params(params), params["retry_timeout"])
    namespace = namespace or home_of(cluster, params["name"])
    gate = Options.from_params(params, params["wait_timeout"], namespace)
    settings = Settings(gate, params["force_conflicts"], params["retry_timeout"])
    return Releases(
        cluster, namespace, params["name"], settings, params["history"], check_mode=check_mode,
        lock_timeout=params["lock_timeout"],
    )  # fmt: skip


def migrated(result: Mapping[str, Any]) -> dict[str, Any]:
    """What is recorded of a migration, from its module's result.

    One that failed may have changed anything: what it did to the schema is not known then.
    """
    if result.get("failed"):
        return {"action": "failed"}
    names = (
        "revision", "revision_before", "destructive", "expand_only", "action", "job", "restore_point", "database",
    )  # fmt: skip
    return {name: result[name] for name in names if result.get(name) is not None}


def reported(outcome: Outcome, diff: bool, check_mode: bool) -> dict[str, Any]:
    """An outcome as a module returns it."""
    items = [*outcome.brought.objects(), *outcome.removed]
    result: dict[str, Any] = {
        "changed": outcome.changed,
        "number": outcome.number,
        "action": outcome.action,
        "objects": [item.report() for item in items],
        "lines": outcome.brought.lines,
        "notes": outcome.notes,
    }
    if diff:
        result["diff"] = [item.diff() for item in items if item.action != "unchanged"]
    verdict = outcome.brought.verdict
    if verdict is not None and not check_mode:
        result["gate"] = {"verdict": "healthy", "notes": verdict.notes, "seconds": verdict.seconds}
    return result


def numbered(records: Sequence[Record], number: int, system: str) -> Record:
    """A release by its number.

    :raises Failure: ``no_release`` names those that there are.
    """
    for record in records:
        if record.number == number:
            return record
    known = ", ".join(str(record.number) for record in records) or "none"
    raise Failure("no_release", f"Release {number} of {system}", "is not recorded", f"recorded are {known}",
                  "choose one of those")  # fmt: skip
