"""What is known of a cluster while it is watched."""

from __future__ import annotations

from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.health.view import View

CRD = ("apiextensions.k8s.io", "CustomResourceDefinition")


def crd(name: str) -> dict[str, Any]:
    return {"apiVersion": f"{CRD[0]}/v1", "kind": CRD[1], "metadata": {"name": name, "uid": name}}


def names(view: View) -> list[str]:
    return sorted(obj["metadata"]["name"] for obj in view.list(CRD))


def test_a_list_of_one_name_says_nothing_of_the_others() -> None:
    view = View()
    view.sync(CRD, [crd("clusters")], name="clusters")
    view.sync(CRD, [crd("backups")], name="backups")
    assert names(view) == ["backups", "clusters"]
    view.sync(CRD, [], name="backups")
    assert names(view) == ["clusters"]
    assert (CRD, "", "backups") in view.seen


def test_a_list_of_all_forgets_what_is_gone() -> None:
    view = View()
    view.sync(CRD, [crd("clusters"), crd("backups")])
    view.sync(CRD, [crd("backups")])
    assert names(view) == ["backups"]
