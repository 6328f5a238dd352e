"""Trees of owned fields, what is certain without asking the server, and what messages say."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.apply import fields, replicas
from ansible_collections.groundwork.platform.plugins.module_utils.apply.admission import Mutators
from ansible_collections.groundwork.platform.plugins.module_utils.apply.items import Item
from ansible_collections.groundwork.platform.plugins.module_utils.apply.prune import Extent, SetName
from ansible_collections.groundwork.platform.plugins.module_utils.apply.refuse import Refusals, conflicting, immutable
from ansible_collections.groundwork.platform.plugins.module_utils.apply.unchanged import certainly_unchanged
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import ApiError, Listing, Resource
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

ME = "me"


def entry(tree: dict[str, Any], manager: str = ME, operation: str = "Apply", **more: Any) -> dict[str, Any]:
    return {
        "manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": tree,
        **more,
    }  # fmt: skip


def obj(*entries: dict[str, Any], **content: Any) -> dict[str, Any]:
    metadata = {"name": "a", "managedFields": list(entries)}
    return {"apiVersion": "v1", "kind": "Thing", "metadata": metadata, **content}


PORTS = {
    "f:spec": {
        "f:ports": {
            'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}},
            'k:{"port":81,"protocol":"UDP"}': {".": {}, "f:port": {}, "f:protocol": {}},
        }
    }
}
LIVE_PORTS = [{"port": 80, "protocol": "TCP", "targetPort": 80}, {"port": 81, "protocol": "UDP"}]


def certain(live: dict[str, Any], **content: Any) -> bool:
    wanted = {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a"}, **content}
    return certainly_unchanged(wanted, live, ME)


def test_what_is_certain() -> None:
    data = obj(entry({"f:data": {"f:x": {}, "f:y": {}}}), data={"x": "1", "y": "2", "theirs": "3"})
    assert certain(data, data={"x": "1", "y": "2"})
    assert certain(obj())
    ports = obj(entry(PORTS), spec={"ports": LIVE_PORTS})
    assert certain(ports, spec={"ports": [{"port": 80}, {"port": 81, "protocol": "UDP"}]})


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"data": {"x": "1"}},
        {"data": {"x": "1", "y": "3"}},
        {"data": {"x": "1", "y": "2", "z": "3"}},
        {"data": {"x": "1", "y": "2", "theirs": "3"}},
        {"data": {"x": 1, "y": "2"}},
        {"data": {"x": None, "y": "2"}},
        {"data": {"x": "1", "y": "2"}, "more": {}},
        {"data": ["x", "y"]},
    ],
)
def test_what_is_doubtful(content: dict[str, Any]) -> None:
    live = obj(entry({"f:data": {"f:x": {}, "f:y": {}}}), data={"x": "1", "y": "2", "theirs": "3"})
    assert not certain(live, **content)


@pytest.mark.parametrize(
    "ports",
    [
        [{"port": 81, "protocol": "UDP"}, {"port": 80}],
        [{"port": 80}],
        [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "UDP"}],
        [{"port": 80}, {"port": 81}],
        [{"port": 80}, {"port": 80}],
    ],
)
def test_doubtful_lists(ports: list[dict[str, Any]]) -> None:
    assert not certain(obj(entry(PORTS), spec={"ports": LIVE_PORTS}), spec={"ports": ports})


@pytest.mark.parametrize(
    "other",
    [
        [entry({"f:data": {"f:x": {}}}, apiVersion="v0")],
        [entry({"f:data": {"f:x": {}}}), entry({}, apiVersion="v0")],
        [entry({"f:data": {"f:x": {}}}, operation="Update")],
        [entry({"f:data": {"f:x": {}}}, subresource="status")],
        [entry({"f:data": {"f:x": {}}}, manager="other")],
    ],
)
def test_only_what_we_applied_in_this_version_counts(other: list[dict[str, Any]]) -> None:
    assert not certain(obj(*other, data={"x": "1"}), data={"x": "1"})


def test_something_that_was_applied_empty_and_filled_by_another_is_doubtful() -> None:
    whole, parts = entry({"f:open": {}}), entry({"f:open": {"f:x": {}}}, manager="other")
    assert certain(obj(whole, open={"x": 1}), open={"x": 1})
    assert not certain(obj(whole, parts, open={"x": 1}), open={"x": 1})


def test_one_true_and_one_point_zero_are_three() -> None:
    for value in (True, 1.0, "1"):
        assert not certain(obj(entry({"f:x": {}}), x=1), x=value)


def test_trees() -> None:
    one, other = {"f:a": {}, "f:b": {"f:c": {}}}, {"f:b": {"f:d": {}}, "f:a": {"f:x": {}}}
    assert fields.union(one, other) == {"f:a": {".": {}, "f:x": {}}, "f:b": {"f:c": {}, "f:d": {}}}
    assert fields.without(one, other) == {"f:b": {"f:c": {}}}


def test_removing() -> None:
    live = {"spec": {"ports": copy.deepcopy(LIVE_PORTS), "set": ["a", "b"], "map": {"x": 1}, "kept": 1}}
    tree = {**PORTS["f:spec"], "f:set": {'v:"a"': {}}, "f:map": {".": {}, "f:x": {}}, "f:absent": {}}
    fields.remove(live, {"f:spec": tree})
    assert live == {"spec": {"ports": [], "set": ["b"], "kept": 1}}


def test_taking_over() -> None:
    csa = entry({"f:data": {"f:x": {}}}, manager="kubectl", operation="Update")
    status = entry({"f:status": {}}, manager="kubectl", operation="Update", subresource="status")
    old = entry({"f:old": {}}, manager="kubectl", operation="Update", apiVersion="v0")
    own = entry({"f:data": {"f:y": {}}})
    assert fields.handed_over(obj(csa, status, old, own), ["kubectl"], ME) == [
        {**own, "fieldsV1": {"f:data": {"f:x": {}, "f:y": {}}}}, status,
    ]  # fmt: skip
    assert fields.handed_over(obj(csa), ["kubectl"], ME) == [entry({"f:data": {"f:x": {}}})]
    assert fields.taken_over(obj(own, status), ["kubectl", ME], ME) == []


class FakeCluster:
    """As much of a cluster as :class:`Mutators` asks."""

    def __init__(self, forbidden: bool = False, **kinds: list[dict[str, Any]]) -> None:
        self._kinds, self._forbidden = kinds, forbidden

    def versions(self, _group: str) -> list[str]:
        return ["v1"]

    def find_resource(self, _version: str, kind: str) -> Resource | None:
        return Resource("g", "v1", kind, kind.lower(), False) if kind in self._kinds else None

    def list(self, resource: Resource) -> Listing:
        if self._forbidden:
            raise ApiError("forbidden", "x", "is forbidden", status=403)
        return Listing(self._kinds[resource.kind], "1")


def hook(**rule: Any) -> dict[str, Any]:
    rules = {"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "resources": ["configmaps"], **rule}
    return {"webhooks": [{"rules": [rules]}]}


MAPS = Resource("", "v1", "ConfigMap", "configmaps", True)


@pytest.mark.parametrize(
    ("hooks", "may"),
    [
        ([], False),
        ([hook()], True),
        ([hook(operations=["CREATE"])], False),
        ([hook(operations=["*"])], True),
        ([hook(resources=["*/*"], apiGroups=["*"])], True),
        ([hook(resources=["configmaps/*"])], True),
        ([hook(apiGroups=["apps"])], False),
        ([{"webhooks": [{}]}], False),
    ],
)
def test_which_kinds_webhooks_may_change(hooks: list[dict[str, Any]], may: bool) -> None:
    mutators = Mutators(FakeCluster(MutatingWebhookConfiguration=hooks))  # type: ignore[arg-type]
    assert mutators.may_change(MAPS) is may
    assert mutators.may_change(Resource("", "v1", "Pod", "pods", True))


def test_policies_and_what_may_not_be_listed() -> None:
    policy = {"spec": {"matchConstraints": {"resourceRules": [hook()["webhooks"][0]["rules"][0]]}}}
    for policies in ([policy], [{"spec": {}}]):
        assert Mutators(FakeCluster(MutatingAdmissionPolicy=policies)).may_change(MAPS)  # type: ignore[arg-type]
    forbidden = FakeCluster(forbidden=True, MutatingWebhookConfiguration=[])
    assert Mutators(forbidden).may_change(MAPS)  # type: ignore[arg-type]


def error(message: str, status: int = 422, causes: list[dict[str, Any]] | None = None) -> ApiError:
    return ApiError("invalid", "x", "is not accepted", status=status, message=message, causes=causes or [])


@pytest.mark.parametrize(
    ("message", "is_so"),
    [
        ("spec.selector: Invalid value: {}: field is immutable", True),
        ("spec: Forbidden: updates to statefulset spec for fields other than 'replicas' are forbidden", True),
        ('spec.clusterIPs[0]: Invalid value: ["10.0.0.1"]: may not change once set', True),
        ("spec.resources.requests.storage: Forbidden: field can not be less than status.capacity", True),
        ("cannot change roleRef", True),
        ("spec.replicas: Invalid value: -1: must be greater than or equal to 0", False),
    ],
)
def test_what_is_immutable(message: str, is_so: bool) -> None:
    assert immutable(error(message)) is is_so
    assert not immutable(error(message, status=409))


def test_managers_of_a_conflict() -> None:
    causes = [
        {"field": ".spec.replicas", "message": 'conflict with "kubectl-client-side-apply" using apps/v1 at 2026'},
        {"field": ".data.a", "message": 'conflict with "a \\"quoted\\" one" with subresource "scale"'},
        {"field": ".data.b", "message": "conflict with something else"},
    ]
    assert conflicting(error("", 409, causes)) == {
        "kubectl-client-side-apply": [".spec.replicas"],
        'a \\"quoted\\" one': [".data.a"],
        "conflict with something else": [".data.b"],
    }


def test_masking() -> None:
    value = "line one\nline two"
    secret = {"kind": "Secret", "data": {"k": base64.b64encode(value.encode()).decode(), "short": "eA==", "n": None}}
    masks = Refusals([secret, {"kind": "ConfigMap", "data": {"k": "plain"}}])
    said = f'"line one\\nline two" {value} {secret["data"]["k"]} line two, plain x'
    assert masks.mask(said) == '"*****" ***** ***** *****, plain x'
    assert masks.mask('data[k]: Invalid value: "x\\"y": bad, {Value:77}', secret=True) == (
        "data[k]: Invalid value: *****: bad, {Value: *****}"
    )
    item = Item({**secret, "apiVersion": "v1", "metadata": {"name": "s"}})
    failure = masks.explained(error('data: Invalid value: "x": field is immutable', causes=[{"field": "data"}]), item)
    assert failure.cause == "changes what cannot be changed: data"
    assert '"x"' not in failure.sentence


def test_extents() -> None:
    objects = [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "b"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "a"}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "r"}},
    ]
    extent = Extent.of(objects)
    annotations = extent.annotations("a")
    assert list(annotations.values()) == ["ClusterRole.rbac.authorization.k8s.io,Deployment.apps,Secret", "b"]
    assert Extent.read({"metadata": {"namespace": "a", "annotations": annotations}}) == extent
    assert Extent.read({"metadata": {"namespace": "a"}}) == Extent(namespaces=frozenset({"a"}))
    assert str(SetName("shop", "demo")) == "ApplySet Secret demo/shop"


def test_replicas_to_hand_over() -> None:
    started = {"metadata": {"name": "d", "annotations": {replicas.ANNOTATION: "3"}}, "kind": "Deployment"}
    ours = obj(entry({"f:spec": {"f:replicas": {}}}), spec={"replicas": 5})
    assert replicas.to_hand_over(started, ours, ME) == 5
    assert replicas.to_hand_over(started, obj(spec={"replicas": 1}), ME) == 3
    assert replicas.to_hand_over(started, obj(spec={"replicas": 3}), ME) is None
    theirs = obj(entry({"f:spec": {"f:replicas": {}}}, manager="autoscaler"), spec={"replicas": 5})
    assert replicas.to_hand_over(started, theirs, ME) is None
    assert replicas.to_hand_over({**started, "spec": {"replicas": 2}}, ours, ME) is None
    started["metadata"]["annotations"][replicas.ANNOTATION] = "many"
    with pytest.raises(Failure, match="that is no number"):
        replicas.wanted(started)
