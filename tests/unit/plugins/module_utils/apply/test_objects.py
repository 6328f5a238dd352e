"""Manifests in, objects out."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.apply import order
from ansible_collections.groundwork.platform.plugins.module_utils.apply.compare import ansible_diff, changed_fields
from ansible_collections.groundwork.platform.plugins.module_utils.apply.objects import (
    canonical_image,
    load,
    refuse_duplicates,
    rewrite_images,
)
from ansible_collections.groundwork.platform.plugins.module_utils.apply.schema import Schemas
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure


def config_map(name: str = "a", **data: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_reads_lists_texts_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n---\n---\n")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    (tmp_path / "a.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [secret]}))
    (tmp_path / "notes.txt").write_text("none of it")
    names = [obj["metadata"]["name"] for obj in load([config_map("x")], str(tmp_path))]
    assert names == ["x", "s", "b"]
    assert load(config_map("y"))[0]["metadata"]["name"] == "y"


def test_dates_stay_text() -> None:
    assert load("apiVersion: v1\nkind: A\nmetadata: {name: a, annotations: {d: 2026-01-01}}")[0]["metadata"][
        "annotations"
    ] == {"d": "2026-01-01"}


def test_string_data_becomes_data() -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s"},
        "stringData": {"k": "v"},
        "data": {"o": "eA=="},
    }
    assert load(secret)[0]["data"] == {"o": "eA==", "k": base64.b64encode(b"v").decode()}


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ("a: [", "not valid YAML at line"),
        ("just text", "definition"),
        ([{"kind": "A"}], "Document 1 of definition has no apiVersion"),
        ([config_map(), {"apiVersion": "v1", "kind": "B", "metadata": {}}], "Document 2"),
        ([{"apiVersion": "v1", "kind": "B", "metadata": {"generateName": "x-"}}], "metadata.name"),
        ([7], "not an object"),
    ],
)
def test_bad_manifests_are_named(definition: Any, words: str) -> None:
    with pytest.raises(Failure) as caught:
        load(definition)
    assert caught.value.code == "bad_manifest"
    assert words in caught.value.sentence


def test_a_missing_file_is_named() -> None:
    with pytest.raises(Failure, match=r"/not/there\.yaml does not exist"):
        load(None, "/not/there.yaml")


def test_duplicates_are_refused() -> None:
    with pytest.raises(Failure, match="ConfigMap a is defined twice"):
        refuse_duplicates([config_map(), config_map(other="1")])


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("redis", "docker.io/library/redis:latest"),
        ("redis:8.0", "docker.io/library/redis:8.0"),
        ("me/app:1", "docker.io/me/app:1"),
        ("ghcr.io/me/app:1", "ghcr.io/me/app:1"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("redis@sha256:aa", "docker.io/library/redis@sha256:aa"),
    ],
)
def test_canonical_image(reference: str, full: str) -> None:
    assert canonical_image(reference) == full


def test_images_are_replaced_wherever_they_are_named() -> None:
    operator = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "o"},
        "spec": {
            "containers": [{"image": "redis:8.0", "env": [{"name": "I", "value": "docker.io/library/redis:8.0"}]}]
        },
    }
    cluster = {
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Cluster",
        "metadata": {"name": "c"},
        "spec": {"imageName": "redis:8.0"},
    }
    text = config_map(image="docker.io/library/redis:8.0")
    done = rewrite_images([operator, cluster, text], {"docker.io/library/redis:8.0": "here/redis@sha256:1"})
    container = done[0]["spec"]["containers"][0]
    assert container["image"] == container["env"][0]["value"] == done[1]["spec"]["imageName"] == "here/redis@sha256:1"
    assert done[2] == text


def test_order() -> None:
    kinds = {
        "Namespace": "v1",
        "CustomResourceDefinition": "apiextensions.k8s.io/v1",
        "ClusterRole": "rbac.authorization.k8s.io/v1",
        "ConfigMap": "v1",
        "Service": "v1",
        "Deployment": "apps/v1",
        "Widget": "example.com/v1",
        "ValidatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
    }
    found = [order.phase_of({"apiVersion": version, "kind": kind}) for kind, version in kinds.items()]
    assert found == sorted(found)
    assert order.phase_of({"apiVersion": "serving.knative.dev/v1", "kind": "Service"}) == order.CUSTOM


def test_what_the_server_writes_is_no_change() -> None:
    before = {**config_map(a="1"), "status": {"x": 1}}
    before["metadata"] = {"name": "a", "resourceVersion": "1", "generation": 1, "managedFields": [{}]}
    after = {**config_map(a="1"), "metadata": {"name": "a", "resourceVersion": "2", "generation": 2}}
    assert changed_fields(before, after) == []
    assert changed_fields(before, config_map(a="2", b="3")) == [".data.a", ".data.b"]


def test_secrets_are_masked_in_diffs() -> None:
    last = {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": '{"data": {"k": "AAAA"}}'}}
    before = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", **last},
        "data": {"k": "AAAA", "same": "CCCC"},
    }
    after = {**before, "data": {"k": "BBBB", "same": "CCCC", "new": "DDDD"}}
    for diff in (ansible_diff(before, after), ansible_diff(None, after), ansible_diff(before, None)):
        shown = diff["before"] + diff["after"]
        assert not any(value in shown for value in ("AAAA", "BBBB", "CCCC", "DDDD"))
    assert ansible_diff(before, after)["before"] != ansible_diff(before, after)["after"]


def test_schema_of_a_definition() -> None:
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "properties": {
                    "size": {"type": "integer"},
                    "mode": {"type": "string", "enum": ["a", "b"]},
                    "free": {"type": "object"},
                    "any": {"x-kubernetes-int-or-string": True},
                    "map": {"type": "object", "additionalProperties": {"type": "string"}},
                },
            }
        },
    }
    definition = {"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}}

    def problems(**spec: Any) -> list[str] | None:
        obj = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec}
        return Schemas(None).problems(obj, None, definition)  # type: ignore[arg-type] # not asked

    assert problems(size=1, mode="a", free={"x": 1}, any="5", map={"k": "v"}) == []
    assert problems(size="1") == [".spec.size is str, not integer"]
    assert problems(size=True) == [".spec.size is bool, not integer"]
    assert problems(size=1, mode="c") == [".spec.mode is none of a, b"]
    assert problems(size=1, typo=1) == [".spec.typo is unknown"]
    assert problems(size=1, map={"k": 1}) == [".spec.map.k is int, not string"]
    assert problems() == [".spec.size is missing"]


@pytest.mark.parametrize(
    ("image", "policy", "kept"),
    [
        # A registry need not be asked for what a digest names, and there may be none.
        ("redis:8.0", "Always", "IfNotPresent"),
        ("redis:8.0", "Never", "Never"),
        # Not ours to change: nothing was put in its place.
        ("other:1", "Always", "Always"),
    ],
)
def test_an_image_that_is_named_by_its_digest_is_not_always_pulled(image: str, policy: str, kept: str) -> None:
    container = {"name": "c", "image": image, "imagePullPolicy": policy}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}}
    [rewritten] = rewrite_images([pod], {"docker.io/library/redis:8.0": "localhost/redis@sha256:" + "0" * 64})
    assert rewritten["spec"]["containers"][0]["imagePullPolicy"] == kept
    assert container["imagePullPolicy"] == policy
