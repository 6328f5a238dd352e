# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all steps of one run share: the cluster, the options, and the requests on behalf of one object."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ansible_collections.groundwork.platform.plugins.module_utils.apply.items import Item
from ansible_collections.groundwork.platform.plugins.module_utils.apply.refuse import Refusals, conflicting, still_there
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (
    FIELD_MANAGER,
    ApiError,
    Clock,
    Cluster,
    Object,
    Resource,
)
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress

THREADS = 8
PATIENCE = 120.0
"""Seconds for which a webhook that can't be reached, or a kind that is being set up, is waited for."""
CHECK_PATIENCE = 30.0
"""The same at most, in check mode."""

T = TypeVar("T")
R = TypeVar("R")


class Outages:
    """Since when the webhook of a kind has not answered: waiting for it once is enough for all objects of the kind."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[Resource, float] = {}
        self._lock = threading.Lock()

    def seconds(self, resource: Resource) -> float:
        """How long it has been silent; this is when it is noticed, if it was not known."""
        now = self._clock.now()
        with self._lock:
            return now - self._since.setdefault(resource, now)

    def known(self, resource: Resource) -> bool:
        """Whether it was silent when it was last asked."""
        return resource in self._since

    def restart(self) -> None:
        """Begin to count anew: what has been done since may have brought it up."""
        with self._lock:
            self._since = dict.fromkeys(self._since, self._clock.now())

    def over(self, resource: Resource) -> None:
        """It answers."""
        if resource in self._since:
            with self._lock:
                self._since.pop(resource, None)


class Session:
    """One run against one cluster.

    :param force: take over fields that other managers own, instead of failing.
    :param take_over: names of managers whose fields are taken over, and who then own nothing any more.
    :param check_mode: only say what would happen.
    :param patience: seconds; see :data:`PATIENCE`.
    """

    def __init__(
        self,
        cluster: Cluster,
        field_manager: str = FIELD_MANAGER,
        force: bool = False,
        take_over: Collection[str] = (),
        check_mode: bool = False,
        patience: float = PATIENCE,
        progress: Progress | None = None,
    ) -> None:
        self.cluster = cluster
        self.field_manager = field_manager
        self.force = force
        self.take_over = frozenset(take_over)
        self.check_mode = check_mode
        self.patience = patience
        self.progress = progress or Progress("apply")
        self.refusals = Refusals()
        self.outages = Outages(cluster.clock)

    def deadline(self, seconds: float | None = None) -> float:
        """The moment at which patience, or so many seconds, will have passed."""
        return self.cluster.clock.now() + (self.patience if seconds is None else seconds)

    def passed(self, deadline: float) -> bool:
        """Whether a deadline is over."""
        return self.cluster.clock.now() > deadline

    @staticmethod
    def parallel(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Do it for each, some at a time; results in order. The first exception ends what has not begun."""
        if len(items) < 2:
            return [work(item) for item in items]
        with ThreadPoolExecutor(min(THREADS, len(items))) as pool:
            futures = [pool.submit(work, item) for item in items]
            try:
                return [future.result() for future in futures]
            except BaseException:
                # What makes one give up, such as a server that is gone, would only make all others wait as long.
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def live(self, item: Item) -> Object | None:
        """What is there of an object.

        :raises Failure: in the words of the object.
        """
        metadata = item.obj["metadata"]
        try:
            return self.cluster.get(item.served, metadata["name"], metadata.get("namespace"))
        except ApiError as error:
            raise self.refusals.explained(error, item) from error

    def settled(self, name: str, read: Callable[[], Object | None]) -> Object | None:
        """What is there once what is being deleted is gone: applying to that would be lost with it."""
        deadline = self.deadline()
        while True:
            live = read()
            if live is None or not live["metadata"].get("deletionTimestamp"):
                return live
            if self.check_mode:
                return None
            if self.passed(deadline):
                raise still_there(name, live)
            self.progress.update(f"waiting for {name} to be deleted")
            self.cluster.clock.sleep(0.3)

    def apply(self, item: Item, dry_run: bool = False) -> Object:
        """Server-side apply of an object, once more with force where all who object are to be taken over."""
        try:
            return self._apply(item, self.force, dry_run)
        except ApiError as error:
            owners = conflicting(error) if error.status == 409 else {}
            if not owners or not self.take_over.issuperset(owners):
                raise
        return self._apply(item, True, dry_run)

    def _apply(self, item: Item, force: bool, dry_run: bool) -> Object:
        # What has been dry-run strictly is the very same object when it is written.
        strict = dry_run or item.checked != "server"
        done = self.cluster.apply(item.served, item.obj, self.field_manager, force, dry_run=dry_run, strict=strict)
        self.outages.over(item.served)
        return done

    def delete(self, item: Item, propagation: str = "Background") -> None:
        """Delete what was there of an object, and nothing that has come under its name since."""
        if item.live is None:
            raise AssertionError(f"{item.name} is not there")
        metadata = item.live["metadata"]
        try:
            self.cluster.delete(
                item.served, metadata["name"], metadata.get("namespace"), propagation, uid=metadata["uid"]
            )
        except ApiError as error:
            raise self.refusals.explained(error, item) from error

    def wait_gone(self, items: Sequence[Item], deadline: float) -> None:
        """Wait until what was there of each object is no more.

        :raises Failure: ``timeout`` names what is still there and its finalizers.
        """
        waiting = list(items)
        while True:
            lives = self.parallel(self.live, waiting)
            waiting = [
                item
                for item, live in zip(waiting, lives, strict=True)
                if live and item.live and live["metadata"]["uid"] == item.live["metadata"]["uid"]
            ]
            if not waiting:
                return
            if self.passed(deadline):
                raise still_there(waiting[0].name, self.live(waiting[0]) or {"metadata": {}})
            self.progress.update(f"waiting for {waiting[0].name} to be deleted")
            self.cluster.clock.sleep(0.3)
