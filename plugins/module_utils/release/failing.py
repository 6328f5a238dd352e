# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done about a release that failed, and how that is told: the cause, what was done, and what remains."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.release import pausing
from ansible_collections.groundwork.platform.plugins.module_utils.release.compatibility import REFUSALS
from ansible_collections.groundwork.platform.plugins.module_utils.release.engine import (
    LOST,
    ReleaseFailed,
    Releases,
    Wanted,
)
from ansible_collections.groundwork.platform.plugins.module_utils.release.record import (
    Record,
    live,
    previous_good,
)

ROLLBACK, KEEP, PAUSE = "rollback", "keep", "pause"
POLICIES = (ROLLBACK, KEEP, PAUSE)
UNJUDGED = frozenset(
    {
        "unreachable", "unauthorised", "forbidden", "tls", "credentials", "wrong_cluster", "context_not_found",
        "kubeconfig_invalid", "missing_library", "locked", "concurrent_release", "record_damaged", "record_newer",
        "bad_release_key", "bad_strategy", "bad_option", "bad_condition", "bad_endpoint", LOST,
    }
)  # fmt: skip
"""Codes of failures that say nothing of the release: nobody could look at it, or somebody else is at work."""


@dataclasses.dataclass
class Handled:
    """What was done.

    :param number: of the release that failed; 0 if it was not recorded.
    :param action: ``rolled_back``, ``kept``, ``paused`` or ``rollback_failed``.
    :param done: what was done, in sentences.
    :param remains: what is left to do, in sentences.
    :param sentence: all of it, beginning with the failure.
    """

    number: int
    action: str
    done: list[str]
    remains: list[str]
    failure: Failure

    @property
    def sentence(self) -> str:
        """The failure, what was done, and what remains."""
        return " ".join([self.failure.sentence, *self.done, *self.remains])


def as_failure(given: Mapping[str, Any], system: str) -> Failure:
    """The failure of an earlier task, as it was told."""
    data = given.get("failure") if isinstance(given.get("failure"), Mapping) else given
    texts = {key: str((data or {}).get(key) or "") for key in ("code", "object", "cause", "evidence", "hint")}
    if not texts["cause"]:
        texts |= {"code": texts["code"] or "failed", "object": f"The release of {system}",
                  "cause": f"failed: {given.get('msg') or 'the task said nothing'}".rstrip(".")}  # fmt: skip
    number = (data or {}).get("release")
    failure = Failure(**texts)
    return ReleaseFailed.of(failure, number) if isinstance(number, int) else failure


def handle(releases: Releases, wanted: Wanted, failure: Failure, policy: str) -> Handled:
    """Record that a release failed, and do about it what was asked for. Raises nothing: what goes wrong is told."""
    handled = Handled(0, "kept", [], [], failure)
    if failure.code in UNJUDGED:
        handled.remains.append("Nothing was judged or taken back: run again to go on.")
        return handled
    try:
        record = releases.record_failed(wanted, failure)
        handled.number = record.number
        _act(releases, wanted, handled, policy, record)
    except Failure as error:
        handled.remains.append(f"What was to be done about it could not be: {error.sentence} Run again to go on.")
    return handled


def _act(releases: Releases, wanted: Wanted, handled: Handled, policy: str, record: Record) -> None:
    records = releases.store.list()
    serving, target = live(records), previous_good(records)
    name = f"Release {record.number}"
    if serving is not None and serving.number > record.number:
        handled.done.append(f"Another run has brought in release {serving.number} since, which serves.")
        return None
    if policy == PAUSE:
        return _pause(releases, wanted, handled, record)
    if policy == KEEP:
        handled.remains.append(f"{name} stays as it is, as asked for: mend it and run again, or roll back.")
        return None
    if target is None:
        handled.remains.append(
            f"{name} stays as it is, since there is no earlier good one to return to: mend it and run again."
        )
        return None
    return _return(releases, handled, name, serving or target)


def _return(releases: Releases, handled: Handled, name: str, target: Record) -> None:
    try:
        outcome = releases.rollback(by={"reason": f"{name} failed"})
    except Failure as failure:
        if failure.code in REFUSALS:
            handled.remains.append(f"{name} stays as it is: {failure.sentence}")
            return
        handled.action = "rollback_failed"
        handled.done.append(f"Its rollback to release {target.number} failed too: {failure.sentence}")
        written = ", ".join(sorted(item.name for item in releases.written)[:8])
        handled.remains.append(
            f"The rollback has changed {written}, which stays so: run playbooks/rollback.yml once that is mended."
            if written
            else f"The rollback has changed nothing, so what {name.lower()} changed is still there; run "
            "playbooks/rollback.yml once that is mended."
        )
        return
    handled.action = "rolled_back"
    if outcome.action == "unchanged":
        handled.done.append(f"{name} had changed nothing that release {target.number}, which goes on serving, needs.")
    else:
        handled.done.append(
            f"{name} was rolled back: release {target.number} serves again, recorded as release {outcome.number}."
        )
    handled.done += [f"{note[0].upper()}{note[1:]}." for note in outcome.notes]


def _pause(releases: Releases, wanted: Wanted, handled: Handled, record: Record) -> None:
    objects = [obj for stage in wanted.stages.values() for obj in stage]
    paused = pausing.pause(releases.cluster, releases.namespace, objects)
    record.paused = paused
    releases.store.save(record)
    handled.action = "paused"
    if not paused:
        handled.remains.append(f"Release {record.number} stays as it is: there is no rollout under way to pause.")
        return
    handled.done.append(f"The rollout of {', '.join(paused)} is paused; pods that were ready go on serving.")
    by_hand = pausing.command(releases.namespace, paused)
    this = f"; to go on with this one as it is, run {by_hand}" if by_hand else ""
    handled.remains.append(f"To go on with a mended release, run again; to return, run playbooks/rollback.yml{this}.")
