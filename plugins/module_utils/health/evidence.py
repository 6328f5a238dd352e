# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What proves a diagnosis: last log lines and events, fetched for a few of them, without any secret."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (
    ApiError,
    Cluster,
    Object,
    Resource,
    Unreachable,
)
from ansible_collections.groundwork.platform.plugins.module_utils.health.judge import Diagnosis
from ansible_collections.groundwork.platform.plugins.module_utils.health.missing import ANSWER
from ansible_collections.groundwork.platform.plugins.module_utils.health.redact import (
    plain_values_of,
    redact,
    scrub,
    secrets_of,
    values_of,
)
from ansible_collections.groundwork.platform.plugins.module_utils.health.view import View, event_count

LOG_LINES = 15
EVENTS = 5
LOGS = 60
"""Logs that are read at once at most: one for each kind of trouble of each target, however many pods it has."""
SHOWN = 4
"""Logs that are read only to be shown."""
READERS = 8
"""Logs that are read at the same time."""
READ_TIME = 1.2
"""Seconds for all of them; those that a node has not given out by then are done without."""
SECRETS_READ = 20
"""Secrets that one verdict may read at most, to know what to mask."""

_SECRETS = Resource("", "v1", "Secret", "secrets", True)


class Evidence:
    """Logs and events about pods in trouble.

    Before a log or event of a pod is shown, the Secrets that the pod takes values from are read, so that their values
    can be masked wherever they stand. Where that is not allowed, what looks like a credential is masked still.
    """

    def __init__(self, cluster: Cluster, view: View) -> None:
        self._cluster, self._view = cluster, view
        self._fetched: dict[tuple[str, str], tuple[int, list[str]]] = {}
        self._secrets: dict[tuple[str, str], list[str]] = {}
        self._plain: set[str] = set()

    @property
    def logs(self) -> Mapping[tuple[str, str], Sequence[str]]:
        """The logs read so far, as they are: only to look for causes in, never to show."""
        return {key: lines for key, (_restarts, lines) in self._fetched.items()}

    def read(self, diagnoses: Iterable[Diagnosis], limit: int = LOGS) -> None:
        """Fetch the logs that tell who is to blame, unless they are known already.

        Side by side, and not for long: a node that is gone must not hold up a verdict that is certain.
        """
        wanted: dict[tuple[str, str], tuple[int, Mapping[str, Any]]] = {}
        for diagnosis in diagnoses:
            signal = diagnosis.signal
            if signal is None or signal.pod is None or not signal.container:
                continue
            key = (str(signal.pod["metadata"].get("uid")), signal.container)
            restarts = _restarts(signal.pod, signal.container)
            if (key not in self._fetched or self._fetched[key][0] != restarts) and len(wanted) < limit:
                wanted[key] = (restarts, signal.pod)
        if not wanted:
            return
        pool = concurrent.futures.ThreadPoolExecutor(READERS, thread_name_prefix="logs")
        reading = {pool.submit(self._log, pod, key[1]): key for key, (_restarts, pod) in wanted.items()}
        done, _late = concurrent.futures.wait(reading, READ_TIME)
        for future in done:
            self._fetched[reading[future]] = (wanted[reading[future]][0], future.result())
        pool.shutdown(wait=False, cancel_futures=True)

    def detail(self, diagnosis: Diagnosis) -> dict[str, Any]:
        """A diagnosis as data, with the logs that were read and the last events."""
        signal, lines, events = diagnosis.signal, list[str](), list[str]()
        known: set[str] = set()
        if signal is not None and signal.pod is not None:
            uid = str(signal.pod["metadata"].get("uid"))
            known = self._known(signal.pod)
            lines = [redact(line, known) for line in self._fetched.get((uid, signal.container), (0, []))[1]]
            events = [redact(_line(event), known) for event in self._view.events(uid)][-EVENTS:]
        evidence = redact(diagnosis.evidence, known)
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if last:
            evidence += ("; " if evidence else "") + f"its log ends with: {last[:300]}"
        return {
            "code": diagnosis.code,
            "object": diagnosis.target,
            "cause": redact(diagnosis.cause, known),
            "evidence": evidence,
            "hint": diagnosis.hint,
            "because": diagnosis.because,
            "chain": list(diagnosis.chain),
            "logs": lines,
            "events": events,
        }

    def clean(self, document: Any) -> Any:
        """Any result without what looks like a credential, or is known to be one."""
        values = set(self._plain)
        for known in self._secrets.values():
            values.update(known)
        return scrub(document, values)

    def _log(self, pod: Mapping[str, Any], container: str) -> list[str]:
        metadata = pod["metadata"]
        for previous in (False, True):
            lines = self._cluster.logs(
                str(metadata["namespace"]), str(metadata["name"]), container, LOG_LINES, previous, READ_TIME
            )
            if lines and not lines[0].startswith("unable to retrieve container logs"):
                return lines
        return []

    def _known(self, pod: Mapping[str, Any]) -> set[str]:
        """Values that are secrets of a pod."""
        found = set(plain_values_of(pod))
        self._plain |= found
        namespace = str(pod["metadata"].get("namespace"))
        for name in sorted(secrets_of(pod)):
            if (namespace, name) not in self._secrets and len(self._secrets) < SECRETS_READ:
                self._secrets[(namespace, name)] = self._values(namespace, name)
            found.update(self._secrets.get((namespace, name), ()))
        return found

    def _values(self, namespace: str, name: str) -> list[str]:
        try:
            path = _SECRETS.path(namespace, name)
            # Not for long: the API server has just answered others.
            secret: Object = self._cluster.transport.request("GET", path, patience=1.0, timeout=ANSWER)
        except (ApiError, Unreachable):
            return []
        return list(values_of(secret or {}))


def _restarts(pod: Mapping[str, Any], container: str) -> int:
    status = pod.get("status") or {}
    for item in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        if item.get("name") == container:
            return int(item.get("restartCount") or 0)
    return 0


def _line(event: Object) -> str:
    count = event_count(event)
    times = f" ({count} times)" if count > 1 else ""
    message = " ".join(str(event.get("message") or event.get("note") or "").split())
    return f"{event.get('type')} {event.get('reason')}: {message}{times}"
