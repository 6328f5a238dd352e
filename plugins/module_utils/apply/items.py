# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One object of a batch on its way, and what came of it."""

from __future__ import annotations

import dataclasses
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.apply.compare import ansible_diff, changed_fields
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object, Resource, describe


@dataclasses.dataclass
class Item:
    """One object of a batch.

    :param resource: None while its CustomResourceDefinition is not there yet.
    :param waits_for: what has to be applied before the server can judge it; empty if it can.
    :param live: what was there, None if nothing. Not kept for an object that is known to be unchanged.
    :param known: whether ``live`` has just been read.
    :param result: what is there now, or what the dry run said; None for an unchanged object that was not dry-run.
    :param action: ``created``, ``changed``, ``replaced``, ``unchanged``, ``deleted`` or ``pruned``.
    :param checked: how it was checked before it was written: ``server``, ``fields``, ``schema`` or ``none``.
    """

    obj: Object
    resource: Resource | None = None
    waits_for: str = ""
    live: Object | None = None
    known: bool = False
    result: Object | None = None
    action: str = ""
    checked: str = "server"
    written: bool = False

    @property
    def name(self) -> str:
        """As messages name it."""
        return describe(self.obj)

    @property
    def served(self) -> Resource:
        """Its resource, once that is known to be there."""
        if self.resource is None:
            raise AssertionError(f"{self.name} has no resource yet")
        return self.resource

    def report(self) -> dict[str, Any]:
        """As a module returns it."""
        metadata = self.obj["metadata"]
        report = {
            "api_version": self.obj["apiVersion"],
            "kind": self.obj["kind"],
            "namespace": metadata.get("namespace"),
            "name": metadata["name"],
            "action": self.action,
            "checked": self.checked,
        }
        if self.action in ("changed", "replaced") and self.live and self.result:
            # A change of owners alone is one too: it decides what a later run removes.
            report["changed_fields"] = changed_fields(self.live, self.result) or [".metadata.managedFields"]
        return report

    def diff(self) -> dict[str, str]:
        """As a module returns it in diff mode."""
        if self.action in ("deleted", "pruned"):
            return ansible_diff(self.live, None)
        return ansible_diff(self.live, self.result or self.obj)
