# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deletes and creates again what cannot be changed, where that was asked for and loses nothing that matters."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.apply.items import Item
from ansible_collections.groundwork.platform.plugins.module_utils.apply.refuse import immutable
from ansible_collections.groundwork.platform.plugins.module_utils.apply.session import Session
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import ApiError, Object, identity
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

NEVER = {
    ("", "PersistentVolumeClaim"): "its volume's data would be lost",
    ("", "PersistentVolume"): "its data would be lost",
    ("", "Namespace"): "all that is in it would be lost",
    ("apiextensions.k8s.io", "CustomResourceDefinition"): "all objects of its kind would be lost",
    ("postgresql.cnpg.io", "Cluster"): "its databases would be lost",
}
_NEVER_KINDS = {kind for group, kind in NEVER if kind != "Cluster"}
_TRIAL_SUFFIX = "-trial"


class Replacer:
    """Knows what may be replaced, and does it.

    :param asked: what the user allows: kinds (``Job``), or single objects (``Service/api``).
    :raises Failure: ``not_replaceable`` for a kind that is never replaced.
    """

    def __init__(self, session: Session, asked: Collection[str] = ()) -> None:
        self._session = session
        self._asked = frozenset(asked)
        for text in asked:
            if text.partition("/")[0] in _NEVER_KINDS:
                raise Failure("not_replaceable", text, "is never replaced", hint="take it out of replace")

    def plan(self, item: Item, error: ApiError) -> bool:
        """Whether an object whose dry run was refused will be replaced; its result is what will be there then.

        :raises ApiError: the new object would be refused too.
        :raises Failure: ``not_replaceable`` when asked for what would lose data or leave pods behind.
        """
        live = item.live
        kind, name = str(item.obj["kind"]), str(item.obj["metadata"]["name"])
        if live is None or not immutable(error) or not self._asked & {kind, f"{kind}/{name}"}:
            return False
        group = identity(item.obj)[0]
        if (group, kind) in NEVER:
            raise Failure("not_replaceable", item.name, f"is never replaced: {NEVER[group, kind]}", error.message)
        if (group, kind) == ("apps", "StatefulSet") and not _adopts(item.obj, live):
            raise Failure(
                "not_replaceable",
                item.name,
                "cannot be replaced while its pods keep running: its selector changes, so that it would not find them",
                hint="delete it with its pods first, or give the new one another name",
            )
        item.result = self._trial(item)
        item.action, item.waits_for, item.checked = "replaced", "", "server"
        return True

    def _trial(self, item: Item) -> Object:
        """Let the server say what the new object would be, under a name that is free."""
        name = item.obj["metadata"]["name"]
        trial = copy.deepcopy(item.obj)
        trial["metadata"]["name"] = name[: 63 - len(_TRIAL_SUFFIX)].rstrip("-.") + _TRIAL_SUFFIX
        if identity(item.obj)[:2] == ("", "Service"):
            # The old one still has the addresses and ports that the new one asks for.
            for taken in ("clusterIP", "clusterIPs"):
                if trial.get("spec", {}).get(taken) not in ("None", ["None"]):
                    trial.get("spec", {}).pop(taken, None)
            for port in trial.get("spec", {}).get("ports") or []:
                port.pop("nodePort", None)
        try:
            session = self._session
            result = session.cluster.apply(item.served, trial, session.field_manager, session.force, dry_run=True)
        except ApiError as error:
            if "exceeded quota" not in error.message:
                raise
            # The old object's share of the quota is free then.
            result = copy.deepcopy(trial)
        # The name is also in what the server derives from it, such as the labels of a Job's pods.
        text = json.dumps(result).replace(json.dumps(trial["metadata"]["name"]), json.dumps(name))
        named: Object = json.loads(text)
        return named

    def make_room(self, item: Item) -> None:
        """Delete the old object and wait until it is gone; a StatefulSet's pods stay, and the new one adopts them."""
        orphans = identity(item.obj)[:2] == ("apps", "StatefulSet")
        self._session.progress.update(f"replacing {item.name}")
        self._session.delete(item, "Orphan" if orphans else "Foreground")
        self._session.wait_gone([item], self._session.deadline())


def _adopts(obj: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    return bool((obj.get("spec") or {}).get("selector") == (live.get("spec") or {}).get("selector"))
