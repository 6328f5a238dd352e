# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what is there of a batch in few requests: one list for many objects of a kind, one read for each of few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from ansible_collections.groundwork.platform.plugins.module_utils.apply.items import Item
from ansible_collections.groundwork.platform.plugins.module_utils.apply.session import Session
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import PAGE, ApiError, Object, Resource

LIST_FROM = 5
"""So many objects of one kind in one namespace are listed rather than read one by one."""
WASTE = 10
"""A list may bring so many objects for each that was asked for; beyond a page, it is given up for single reads."""

Place: TypeAlias = "tuple[Resource, str | None]"


class Snapshot:
    """What was there when it was read.

    :param session: the run.
    :param seen: called for each object that is there, with what is there.
    :param stray: called for each listed object that is not of the batch.
    """

    def __init__(
        self, session: Session, seen: Callable[[Item, Object], None], stray: Callable[[Resource, Object], None]
    ) -> None:
        self._session = session
        self._seen = seen
        self._stray = stray
        self.listed: set[Place] = set()
        """Kinds and namespaces that have been listed whole."""

    def read(self, items: Sequence[Item]) -> None:
        """Read these objects; each is ``known`` then, unless it may not be read alone either."""
        groups: dict[Place, list[Item]] = {}
        for item in items:
            groups.setdefault((item.served, item.obj["metadata"].get("namespace")), []).append(item)
        many = [place for place, group in groups.items() if len(group) >= LIST_FROM]
        self._session.parallel(lambda place: self._list(place, groups[place]), many)
        self._session.parallel(self._get, [item for item in items if not item.known])

    def _list(self, place: Place, group: list[Item]) -> None:
        wanted = {item.obj["metadata"]["name"]: item for item in group}
        most = max(PAGE, WASTE * len(group))
        count = 0
        try:
            for page in self._session.cluster.pages(*place):
                count = len(page.items) if page.first else count + len(page.items)
                for live in page.items:
                    self._take(wanted.get(live["metadata"]["name"]), place[0], live)
                if count + page.remaining > most:
                    return
        except ApiError:
            # Who may read the objects need not be allowed to list them.
            return
        self.listed.add(place)
        for item in group:
            item.known = True

    def _take(self, item: Item | None, resource: Resource, live: Object) -> None:
        if item is None:
            self._stray(resource, live)
        else:
            self._found(item, live)

    def _get(self, item: Item) -> None:
        metadata = item.obj["metadata"]
        try:
            live = self._session.cluster.get(item.served, metadata["name"], metadata.get("namespace"))
        except ApiError:
            # Planning reads it again and says why it can't, together with what is wrong with the others.
            return
        if live is None:
            item.known = True
        else:
            self._found(item, live)

    def _found(self, item: Item, live: Object) -> None:
        item.live, item.known = live, True
        self._seen(item, live)
