"""What is called unchanged without asking the API server is what its dry run calls unchanged.

Objects of many kinds go through random histories: applied, changed, applied by others, edited by others. After each
step every small mutation of the object is judged; whenever the answer is "certainly unchanged", the dry run has to
agree, in values and in owners. The other way round, an object that nobody touched must not be doubtful.
"""

from __future__ import annotations

import copy
import random
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.apply import fields
from ansible_collections.groundwork.platform.plugins.module_utils.apply.compare import changed_fields
from ansible_collections.groundwork.platform.plugins.module_utils.apply.engine import Applier
from ansible_collections.groundwork.platform.plugins.module_utils.apply.unchanged import certainly_unchanged
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (
    FIELD_MANAGER,
    ApiError,
    Cluster,
    ClusterAuth,
)
from tests.support.control_plane import ControlPlane
from tests.support.kubelet import wait_until

HISTORIES = 3
STEPS = 5
GROUP = "unchanged.example.com"

KINDS = """
{apiVersion: v1, kind: ConfigMap, metadata: {name: c, labels: {a: b}}, data: {x: "1", y: "two"}, binaryData: {z: eA==}}
---
{apiVersion: v1, kind: Secret, metadata: {name: s, annotations: {n: m}}, type: Opaque, data: {k: dmFsdWU=, l: eQ==}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: a}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: b, labels: {x: y}}, automountServiceAccountToken: false}
---
apiVersion: v1
kind: Service
metadata: {name: s}
spec:
  selector: {app: s, tier: web}
  ports:
    - {name: http, port: 80, targetPort: http}
    - {name: dns, port: 53, protocol: UDP, targetPort: 5353}
    - {name: dns-tcp, port: 53, protocol: TCP}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  replicas: 2
  strategy: {rollingUpdate: {maxSurge: 25%, maxUnavailable: 0}}
  selector: {matchLabels: {app: d}}
  template:
    metadata: {labels: {app: d}, annotations: {sum: "12"}}
    spec:
      nodeSelector: {disk: ssd}
      tolerations: [{key: gpu, operator: Exists}]
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      imagePullSecrets: [{name: pull}]
      topologySpreadConstraints:
        - {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: d}}}
      volumes: [{name: tmp, emptyDir: {}}, {name: conf, configMap: {name: c, items: [{key: x, path: x}]}}]
      initContainers: [{name: init, image: "init:1", command: [sh, -c, "true"]}]
      containers:
        - name: main
          image: "main:1"
          args: [one, two]
          ports: [{containerPort: 80}, {containerPort: 443, name: tls, protocol: TCP}]
          env:
            - {name: A, value: "1"}
            - {name: B, valueFrom: {secretKeyRef: {name: s, key: k}}}
            - {name: C, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: "1"}}}
          envFrom: [{configMapRef: {name: c}}]
          resources: {requests: {cpu: 250m, memory: 64Mi}, limits: {memory: 1Gi}}
          readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 5}
          volumeMounts: [{name: tmp, mountPath: /tmp}, {name: conf, mountPath: /conf, readOnly: true}]
        - {name: side, image: "side:1", securityContext: {capabilities: {drop: [ALL]}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: t}
spec:
  serviceName: t
  selector: {matchLabels: {app: t}}
  template:
    metadata: {labels: {app: t}}
    spec: {containers: [{name: db, image: "db:1", ports: [{containerPort: 5432, name: sql}]}]}
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: j}
spec:
  schedule: "0 2 * * *"
  jobTemplate:
    spec:
      backoffLimit: 1
      template: {spec: {restartPolicy: Never, containers: [{name: x, image: "x:1"}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: n}
spec:
  podSelector: {matchLabels: {app: d}}
  policyTypes: [Ingress]
  ingress: [{from: [{namespaceSelector: {}}], ports: [{port: 80, protocol: TCP}]}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: i}
spec:
  tls: [{hosts: [a.example], secretName: tls}]
  rules:
    - host: a.example
      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: p}
spec: {minAvailable: 50%, selector: {matchLabels: {app: d}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: h}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}
  minReplicas: 2
  maxReplicas: 5
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 70}}}]
  behavior: {scaleDown: {stabilizationWindowSeconds: 60, policies: [{type: Percent, value: 50, periodSeconds: 60}]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: r}
rules: [{apiGroups: [""], resources: [pods, configmaps], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: r}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: r}
subjects: [{kind: ServiceAccount, name: a, namespace: default}]
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: q}
spec: {hard: {pods: "100", requests.cpu: "20", limits.memory: 64Gi}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: l}
spec: {limits: [{type: Container, default: {cpu: 500m, memory: 256Mi}, defaultRequest: {cpu: 100m}}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: v}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, storageClassName: none}
---
apiVersion: unchanged.example.com/v1
kind: Thing
metadata: {name: t, labels: {x: y}}
spec:
  text: a
  count: 3
  ratio: 0.5
  whole: 2
  flag: true
  port: 80
  named: http
  plain: [a, b, a]
  words: [a, b]
  table: [{key: one, value: 1}, {key: two, value: 2, more: [x]}]
  ports: [{port: 1}, {port: 1, protocol: UDP}]
  single: {a: 1, b: {c: d}}
  labels: {a: b, c: d}
  free: {anything: [1, {deep: true}], other: {x: y}}
  quantity: 1Gi
  open: {}
"""

OBJECT: dict[str, Any] = {"type": "object"}
SCHEMA = {
    "text": {"type": "string"},
    "count": {"type": "integer"},
    "ratio": {"type": "number"},
    "whole": {"type": "number"},
    "flag": {"type": "boolean"},
    "maybe": {"type": "string", "nullable": True},
    "defaulted": {"type": "string", "default": "yes"},
    "port": {"x-kubernetes-int-or-string": True},
    "named": {"x-kubernetes-int-or-string": True},
    "quantity": {"x-kubernetes-int-or-string": True},
    "plain": {"type": "array", "items": {"type": "string"}},
    "words": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    "table": {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["key"],
        "items": {
            **OBJECT,
            "required": ["key"],
            "properties": {
                "key": {"type": "string"},
                "value": {"type": "integer"},
                "more": {"type": "array", "items": {"type": "string"}},
            },
        },
    },
    "ports": {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["port", "protocol"],
        "items": {
            **OBJECT,
            "required": ["port"],
            "properties": {"port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}},
        },
    },
    "single": {**OBJECT, "x-kubernetes-map-type": "atomic", "x-kubernetes-preserve-unknown-fields": True},
    "labels": {**OBJECT, "additionalProperties": {"type": "string"}},
    "free": {**OBJECT, "x-kubernetes-preserve-unknown-fields": True},
    "open": {**OBJECT, "properties": {"inner": {"type": "string"}, "preset": {"type": "integer", "default": 7}}},
}
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    "metadata": {"name": f"things.{GROUP}"},
    "spec": {
        "group": GROUP, "scope": "Namespaced", "names": {"kind": "Thing", "plural": "things"},
        "versions": [{
            "name": "v1", "served": True, "storage": True,
            "schema": {"openAPIV3Schema": {**OBJECT, "properties": {"spec": {**OBJECT, "properties": SCHEMA}}}},
        }],
    },
}  # fmt: skip
# What the server writes in another way than these manifests, so that only its dry run can tell. All others have to be
# certain, or the comparison would be of no use.
DOUBTFUL = {
    # The server fills in fields of list items that are owned as a whole.
    ("StatefulSet", "t"),
    ("LimitRange", "l"),
    # A key of a custom list's items is left out, and what is applied empty is filled in.
    ("Thing", "t"),
}
OBJECTS = list(yaml.safe_load_all(KINDS))
RESPELLED = {"1Gi": "1024Mi", "250m": "0.25", "64Mi": "65536Ki", "20": "20000m", 80: "80", 1: True, 2: 2.0, "1": 1}


@pytest.fixture(scope="module")
def things(control_plane: ControlPlane) -> Iterator[None]:
    """The definition of the custom kind."""
    cluster = Cluster(ClusterAuth(kubeconfig=str(control_plane.kubeconfig)))
    Applier(cluster).run([DEFINITION])
    yield
    Applier(cluster).remove([DEFINITION])
    cluster.close()


def mutations(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Each small change: a path, and what to put there; DELETE takes it away."""
    if (path and path[0] in ("apiVersion", "kind")) or path[:2] in (("metadata", "name"), ("metadata", "namespace")):
        return
    if path and path != ("metadata",):
        yield path, DELETE
        yield path, None
        if isinstance(value, (str, int)) and value in RESPELLED:
            yield path, RESPELLED[value]
    if isinstance(value, dict):
        if path not in ((), ("metadata",)):
            yield path, {}
            yield (*path, "added"), "x"
        if path == ("spec", "open"):
            yield (*path, "preset"), 7
        if "containerPort" in value or "port" in value:
            yield (*path, "protocol"), "TCP"
        for key, item in value.items():
            yield from mutations(item, (*path, key))
    elif isinstance(value, list):
        yield path, []
        yield path, value[::-1]
        yield path, value[:-1]
        yield path, [*value, *copy.deepcopy(value[:1])]
        for index, item in enumerate(value):
            yield from mutations(item, (*path, index))
    elif isinstance(value, bool):
        yield path, not value
    elif isinstance(value, int):
        yield path, value + 1
    elif isinstance(value, str):
        yield path, value + "x"


DELETE = object()


def mutated(obj: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(obj)
    place = changed
    for key in path[:-1]:
        place = place[key]
    if value is DELETE:
        del place[path[-1]]
    else:
        place[path[-1]] = copy.deepcopy(value)
    return changed


class History:
    """One object and what happens to it."""

    def __init__(self, cluster: Cluster, obj: dict[str, Any], namespace: str, seed: int) -> None:
        self.cluster = cluster
        self.random = random.Random(f"{obj['kind']} {seed}")  # noqa: S311
        self.obj = copy.deepcopy(obj)
        self.obj["metadata"]["name"] += f"-{uuid.uuid4().hex[:6]}"
        self.obj["metadata"]["namespace"] = namespace
        self.resource = cluster.resource(obj["apiVersion"], obj["kind"])
        self.past = [self.obj]
        cluster.apply(self.resource, self.obj)

    def live(self) -> dict[str, Any]:
        found = self.cluster.get(self.resource, self.obj["metadata"]["name"], self.obj["metadata"]["namespace"])
        assert found is not None
        return found

    def variant(self) -> dict[str, Any]:
        possible = list(mutations(self.obj))
        return mutated(self.obj, *self.random.choice(possible)) if possible else self.obj

    def step(self) -> None:
        """Something happens; what the server refuses has not happened."""
        changed = self.variant()
        name, namespace = self.obj["metadata"]["name"], self.obj["metadata"]["namespace"]
        other = self.random.choice(["we", "we", "apply", "force", "edit"])
        try:
            if other == "we":
                self.cluster.apply(self.resource, changed, force=self.random.random() < 0.5)
                self.obj = changed
                self.past.append(changed)
            elif other == "edit":
                section = self.random.choice([key for key in changed if key not in ("apiVersion", "kind")])
                patch = {section: changed[section]}
                self.cluster.merge(self.resource, name, namespace, patch, field_manager="editor")
            else:
                self.cluster.apply(self.resource, changed, "other", force=other == "force")
        except ApiError as error:
            assert error.status in (400, 409, 422, 500), error.message

    def check(self) -> None:
        """Compare all answers of now with the dry run's."""
        variants = [*self.past, *(mutated(self.obj, path, value) for path, value in mutations(self.obj))]
        while True:
            live = self.live()
            certain = [one for one in variants if certainly_unchanged(one, live, FIELD_MANAGER)]
            results = [self.cluster.apply(self.resource, one, dry_run=True) for one in certain]
            # A controller may have written in between; what was read then says nothing.
            if self.live()["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]:
                break
        for one, result in zip(certain, results, strict=True):
            assert changed_fields(live, result) == [], one
            assert fields.owned(live, FIELD_MANAGER) == fields.owned(result, FIELD_MANAGER), one


# The same custom kind with nothing for the server to fill in, so that all its other fields are compared too.
COMPLETE = copy.deepcopy(OBJECTS[-1])
COMPLETE["metadata"]["name"] = "u"
COMPLETE["spec"].update(ports=[{"port": 1, "protocol": "TCP"}, {"port": 1, "protocol": "UDP"}], open={"inner": "x"})
OBJECTS.append(COMPLETE)


@pytest.mark.parametrize("obj", OBJECTS, ids=lambda obj: f"{obj['kind']}-{obj['metadata']['name']}")
def test_agrees_with_the_dry_run(cluster: Cluster, namespace: str, things: None, obj: dict[str, Any]) -> None:
    for seed in range(HISTORIES):
        history = History(cluster, obj, namespace, seed)
        certain = certainly_unchanged(history.obj, history.live(), FIELD_MANAGER)
        assert certain != ((obj["kind"], obj["metadata"]["name"]) in DOUBTFUL)
        history.check()
        for _number in range(STEPS):
            history.step()
            history.check()


CONFIG_MAPS = [
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"m{number}"}, "data": {"a": "1"}}
    for number in range(12)
]


def test_what_a_policy_changes_is_dry_run(cluster: Cluster, namespace: str) -> None:
    """A mutating policy that came after the objects: only the dry run can tell what writing them would make of them."""
    assert {item.action for item in Applier(cluster, namespace).run(CONFIG_MAPS)} == {"created"}
    assert {item.checked for item in Applier(cluster, namespace).run(CONFIG_MAPS)} == {"fields"}
    api_version = "admissionregistration.k8s.io/v1"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["configmaps"]}
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    expression = 'Object{metadata: Object.metadata{annotations: {"mutated": "yes"}}}'
    policy = {
        "apiVersion": api_version, "kind": "MutatingAdmissionPolicy", "metadata": {"name": namespace},
        "spec": {
            "matchConstraints": {"namespaceSelector": selector, "resourceRules": [rule]},
            "reinvocationPolicy": "Never", "failurePolicy": "Fail",
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
        },
    }  # fmt: skip
    binding = {
        "apiVersion": api_version, "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": namespace},
        "spec": {"policyName": namespace},
    }  # fmt: skip
    Applier(cluster).run([policy, binding])
    try:

        def mutated() -> bool:
            items = Applier(cluster, namespace, check_mode=True).run(CONFIG_MAPS)
            assert {item.checked for item in items} == {"server"}
            return {item.action for item in items} == {"changed"}

        # The server takes a moment to load a policy.
        wait_until(mutated)
    finally:
        Applier(cluster).remove([policy, binding])
    assert {item.checked for item in Applier(cluster, namespace).run(CONFIG_MAPS)} == {"fields"}


def test_who_may_not_see_webhooks_has_everything_dry_run(
    control_plane: ControlPlane, cluster: Cluster, namespace: str
) -> None:
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "create", "patch"]}]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "w"}, "rules": rules}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "w"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "w"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "writer"}],
    }  # fmt: skip
    Applier(cluster, namespace).run([role, binding])
    writer = Cluster(ClusterAuth(kubeconfig=str(control_plane.user_kubeconfig("writer"))))
    wait_until(lambda: allowed(writer, namespace))
    assert {item.action for item in Applier(writer, namespace).run(CONFIG_MAPS)} == {"created"}
    again = Applier(writer, namespace).run(CONFIG_MAPS)
    assert {(item.action, item.checked) for item in again} == {("unchanged", "server")}


def allowed(cluster: Cluster, namespace: str) -> bool:
    try:
        cluster.list(cluster.resource("v1", "ConfigMap"), namespace, patience=0)
    except ApiError:
        return False
    return True
