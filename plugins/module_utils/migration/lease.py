# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock in the cluster that its holder loses when it dies: a Lease that is renewed while work goes on."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import ApiError, Cluster, Object, Resource
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

DURATION = 30
"""Seconds without renewal after which a lease counts as abandoned."""
RENEWAL = 8.0
POLL = 1.0


class LeaseLock:
    """Holds one Lease.

    :param name: of the Lease.
    :param waiting: told who holds it, while waiting.
    """

    def __init__(
        self, cluster: Cluster, namespace: str, name: str, waiting: Callable[[str], None] | None = None
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._waiting = waiting or (lambda holder: None)
        self.identity = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._resource = Resource("coordination.k8s.io", "v1", "Lease", "leases", True)
        self._done = threading.Event()
        self._lost = threading.Event()
        self._renewed = 0.0

    @contextlib.contextmanager
    def held(self, timeout: float) -> Iterator[LeaseLock]:
        """Hold it for as long as the block runs.

        :param timeout: seconds to wait for another holder.
        :raises Failure: ``locked`` names the holder.
        """
        self._acquire(timeout)
        thread = threading.Thread(target=self._renew, name=f"lease {self._name}", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._done.set()
            thread.join(2 * POLL)
            self._release()

    @property
    def lost(self) -> bool:
        """Whether somebody else took it since, because it could not be renewed in time."""
        if not self._lost.is_set() and self._cluster.clock.now() - self._renewed > DURATION:
            # A process that was stopped for a while goes on before its thread has looked.
            self._renew_once()
        return self._lost.is_set()

    def _acquire(self, timeout: float) -> None:
        clock = self._cluster.clock
        deadline = clock.now() + timeout
        seen: tuple[str, str] = ("", "")
        since = clock.now()
        while True:
            lease = self._cluster.get(self._resource, self._name, self._namespace)
            spec = (lease or {}).get("spec") or {}
            holder = str(spec.get("holderIdentity") or "")
            # Whether a holder still renews is told by whether its mark changes, on our own clock: theirs may be wrong.
            mark = (holder, str(spec.get("renewTime")))
            if mark != seen:
                seen, since = mark, clock.now()
            abandoned = clock.now() - since > int(spec.get("leaseDurationSeconds") or DURATION)
            if (not holder or holder == self.identity or abandoned) and self._take(lease):
                return
            if clock.now() > deadline:
                raise Failure(
                    "locked", f"Lease {self._namespace}/{self._name}", f"was held by {holder} for {timeout:.0f} s",
                    hint="wait until that run is over, or see whether it hangs",
                )  # fmt: skip
            if holder:
                self._waiting(holder)
            clock.sleep(POLL)

    def _take(self, lease: Object | None) -> bool:
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": DURATION,
            "acquireTime": _now(),
            "renewTime": _now(),
        }
        try:
            if lease is None:
                metadata = {"name": self._name, "namespace": self._namespace}
                self._cluster.create(
                    self._resource,
                    {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec},
                )
            else:
                self._cluster.replace(self._resource, {**lease, "spec": {**(lease.get("spec") or {}), **spec}})
            self._renewed = self._cluster.clock.now()
        except ApiError as error:
            if error.status == 409:
                return False
            raise
        return True

    def _renew(self) -> None:
        while not self._done.wait(RENEWAL) and not self._lost.is_set():
            with contextlib.suppress(Failure):
                self._renew_once()

    def _renew_once(self) -> None:
        began = self._cluster.clock.now()
        lease = self._cluster.get(self._resource, self._name, self._namespace)
        if lease is None or (lease.get("spec") or {}).get("holderIdentity") != self.identity:
            self._lost.set()
            return
        lease["spec"]["renewTime"] = _now()
        try:
            self._cluster.replace(self._resource, lease)
        except ApiError as error:
            # Our other thread was faster, or somebody has just taken it: the next look tells.
            if error.status != 409:
                raise
            return
        self._renewed = began

    def _release(self) -> None:
        """Give it back at once; if that can't be said, it runs out."""
        with contextlib.suppress(Failure):
            lease = self._cluster.get(self._resource, self._name, self._namespace)
            if lease is not None and (lease.get("spec") or {}).get("holderIdentity") == self.identity:
                lease["spec"]["holderIdentity"] = ""
                self._cluster.replace(self._resource, lease)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
