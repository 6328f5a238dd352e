# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When an object is ready: one pure rule per kind.

A rule gets the object and a view of what surrounds it, and says ready, progressing or failed, with the reason
in words. It looks at no clock and asks nothing of the cluster.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object
from ansible_collections.groundwork.platform.plugins.module_utils.health.view import (
    Kind,
    View,
    changed_at,
    event_text,
    kind_of,
    newest_event,
    timestamp,
)


class State(enum.Enum):
    """How far an object is."""

    READY = "ready"
    PROGRESSING = "progressing"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True)
class Readiness:
    """What a rule says.

    :param message: the predicate of a sentence about the object, such as ``has 1 of 2 pods available``.
    :param code: of a failure, in snake_case.
    :param hint: of a failure: what to do.
    :param note: something to tell although the object is ready.
    :param grace: seconds after which ``progressing`` counts as failed, None if only the deadline ends it.
    """

    state: State
    message: str = ""
    code: str = ""
    hint: str = ""
    note: str = ""
    grace: float | None = None

    @property
    def ready(self) -> bool:
        """Whether the object is ready."""
        return self.state is State.READY


READY = Readiness(State.READY)
Rule = Callable[[Object, View], Readiness]
SELECTOR_GRACE = 20.0
"""Seconds for which a Service may select no ready pod after everything else is ready."""
CLASS_GRACE = 30.0
"""Seconds for which a claim may name a StorageClass, or need a volume, that is not there."""
PROVISION_GRACE = 60.0
"""Seconds for which making a volume may fail."""
PROVISIONER_GRACE = 120.0
"""Seconds for which a provisioner may not answer."""
CONTROLLER_GRACE = 45.0
"""Seconds for which a controller may report an error that it tries to overcome, such as a store it cannot reach."""


def progressing(message: str, grace: float | None = None, code: str = "", hint: str = "") -> Readiness:
    """Not ready yet."""
    return Readiness(State.PROGRESSING, message, code=code, hint=hint, grace=grace)


def failed(code: str, message: str, hint: str = "") -> Readiness:
    """Certain not to get ready by itself."""
    return Readiness(State.FAILED, message, code, hint)


def noted(note: str) -> Readiness:
    """Ready, but there is something to tell."""
    return Readiness(State.READY, note=note)


class Rules:
    """The rules of the collection, and those of the user before them.

    :param own: the user's, each for one kind.
    """

    def __init__(self, own: Mapping[Kind, Rule] | None = None) -> None:
        self._own = dict(own or {})

    def has_state(self, kind: Kind) -> bool:
        """Whether objects of a kind can be anything other than there."""
        return kind in self._own or kind not in STATIC

    def readiness(self, obj: Object, view: View) -> Readiness:
        """Judge one object by the rule of its kind."""
        if obj["metadata"].get("deletionTimestamp"):
            return failed("terminating", "is being deleted", "find out who deletes it")
        kind = kind_of(obj)
        if kind in self._own:
            return _unobserved(obj) or self._own[kind](obj, view)
        if kind in STATIC:
            return READY
        if kind in RULES:
            return (_conventions(obj) if is_custom(kind) else None) or RULES[kind](obj, view)
        return _custom(obj, view)


def readiness(obj: Object, view: View) -> Readiness:
    """Judge one object by the collection's own rule of its kind."""
    return Rules().readiness(obj, view)


def has_state(kind: Kind) -> bool:
    """Whether objects of a kind can be anything other than there, by the collection's own rules."""
    return Rules().has_state(kind)


def is_custom(kind: Kind) -> bool:
    """Whether a kind is no part of Kubernetes itself."""
    group = kind[0]
    return ("." in group and not group.endswith(".k8s.io")) or group == "gateway.networking.k8s.io"


# Helpers


def _status(obj: Mapping[str, Any]) -> dict[str, Any]:
    return dict(obj.get("status") or {})


def _condition(obj: Mapping[str, Any], name: str) -> dict[str, Any]:
    for condition in _status(obj).get("conditions") or []:
        if condition.get("type") == name:
            return dict(condition)
    return {}


def _why(condition: Mapping[str, Any]) -> str:
    """A condition's reason and message, as far as it has them."""
    return ": ".join(str(part) for part in (condition.get("reason"), condition.get("message")) if part)


def _observed(obj: Mapping[str, Any]) -> bool:
    """Whether the status is about the present spec."""
    generation = obj["metadata"].get("generation")
    return generation is None or _status(obj).get("observedGeneration") == generation


# Workloads


def _deployment(obj: Object, view: View) -> Readiness:
    spec, status = obj["spec"], _status(obj)
    if not _observed(obj):
        return progressing("has not been seen by its controller yet")
    wanted = int(spec.get("replicas", 1))
    updated, available = int(status.get("updatedReplicas", 0)), int(status.get("availableReplicas", 0))
    total = int(status.get("replicas", 0))
    done = updated >= wanted and total <= updated and available >= wanted
    if done:
        return READY
    if spec.get("paused"):
        return failed("paused", "is paused, so its rollout does not go on", "resume it with kubectl rollout resume")
    progress = _condition(obj, "Progressing")
    if progress.get("reason") == "ProgressDeadlineExceeded" and _since_change(obj, progress):
        deadline = spec.get("progressDeadlineSeconds", 600)
        return failed("progress_deadline", f"has made no progress for {deadline} s")
    if updated < wanted:
        return progressing(f"has {updated} of {wanted} pods updated")
    if total > updated:
        return progressing(f"has {total - updated} old pods left")
    return progressing(f"has {available} of {wanted} pods available")


def _since_change(obj: Object, condition: Mapping[str, Any]) -> bool:
    """Whether a missed progress deadline is about the present spec and no relic of an earlier rollout."""
    deadline = float(obj["spec"].get("progressDeadlineSeconds", 600))
    updated = timestamp(condition.get("lastUpdateTime")) or 0.0
    return updated >= changed_at(obj) + deadline - 2


def _stateful_set(obj: Object, view: View) -> Readiness:
    spec, status = obj["spec"], _status(obj)
    if not _observed(obj):
        return progressing("has not been seen by its controller yet")
    wanted = int(spec.get("replicas", 1))
    ready, available = int(status.get("readyReplicas", 0)), int(status.get("availableReplicas", 0))
    updated, total = int(status.get("updatedReplicas", 0)), int(status.get("replicas", 0))
    strategy = spec.get("updateStrategy") or {}
    partition = int((strategy.get("rollingUpdate") or {}).get("partition") or 0)
    rolled = status.get("currentRevision") == status.get("updateRevision")
    if strategy.get("type") != "OnDelete":
        must = max(wanted - partition, 0)
        if (updated < must) if partition else (not rolled and updated < wanted):
            return progressing(f"has {updated} of {must} pods updated")
    if ready < wanted:
        return progressing(f"has {ready} of {wanted} pods ready")
    if available < wanted:
        return progressing(f"has {available} of {wanted} pods available")
    if total > wanted:
        return progressing(f"has {total - wanted} pods too many")
    if not rolled and strategy.get("type") == "OnDelete":
        return noted(f"has {wanted - updated} pods of the old revision until they are deleted (OnDelete)")
    if not rolled and not partition:
        return progressing("has not finished its rollout")
    return READY


def _daemon_set(obj: Object, view: View) -> Readiness:
    status = _status(obj)
    if status.get("observedGeneration") is None or not _observed(obj):
        return progressing("has not been seen by its controller yet")
    absent = _on_absent_nodes(obj, view)
    desired = int(status.get("desiredNumberScheduled", 0)) - len(absent)
    updated, available = int(status.get("updatedNumberScheduled", 0)), int(status.get("numberAvailable", 0))
    manual = (obj["spec"].get("updateStrategy") or {}).get("type") == "OnDelete"
    note = f"leaves out nodes that are cordoned or not ready: {', '.join(sorted(absent))}" if absent else ""
    if not manual and updated < desired:
        return progressing(f"has {updated} of {desired} pods updated")
    if available < desired:
        return progressing(f"has {available} of {desired} pods available")
    if manual and updated < desired:
        return noted(f"has {desired - updated} pods of the old revision until they are deleted (OnDelete)")
    return noted(note) if note else READY


def _on_absent_nodes(obj: Object, view: View) -> set[str]:
    """Nodes whose pod of a DaemonSet need not be ready: the node itself is not, or is being emptied."""
    absent = set()
    for pod in view.pods(str(obj["metadata"].get("uid"))):
        node = view.get(("", "Node"), "", str((pod.get("spec") or {}).get("nodeName")))
        if node is None or pod_ready(pod):
            continue
        cordoned = bool((node.get("spec") or {}).get("unschedulable"))
        if cordoned or _condition(node, "Ready").get("status") != "True":
            absent.add(str(node["metadata"]["name"]))
    return absent


def _replica_set(obj: Object, view: View) -> Readiness:
    wanted, status = int(obj["spec"].get("replicas", 1)), _status(obj)
    if not _observed(obj):
        return progressing("has not been seen by its controller yet")
    available = int(status.get("availableReplicas", 0))
    return READY if available >= wanted else progressing(f"has {available} of {wanted} pods available")


def _job(obj: Object, view: View) -> Readiness:
    if _condition(obj, "Complete").get("status") == "True":
        return READY
    for name in ("Failed", "FailureTarget"):
        condition = _condition(obj, name)
        if condition.get("status") == "True":
            return failed("job_failed", f"failed: {_why(condition)}")
    if _condition(obj, "Suspended").get("status") == "True" or obj["spec"].get("suspend"):
        return noted("is suspended")
    status = _status(obj)
    wanted = int(obj["spec"].get("completions") or 1)
    return progressing(f"has {int(status.get('succeeded') or 0)} of {wanted} pods completed")


def _cron_job(obj: Object, view: View) -> Readiness:
    jobs = sorted(
        view.owned(str(obj["metadata"].get("uid")), ("batch", "Job")),
        key=lambda job: str(job["metadata"].get("creationTimestamp")),
    )
    if jobs and _condition(jobs[-1], "Failed").get("status") == "True":
        return noted(f"its newest Job {jobs[-1]['metadata']['name']} failed: {_why(_condition(jobs[-1], 'Failed'))}")
    return READY


def _pod(obj: Object, view: View) -> Readiness:
    status = _status(obj)
    phase = status.get("phase")
    if phase == "Succeeded":
        return READY
    if phase == "Failed":
        return failed("pod_failed", f"failed: {status.get('reason') or ''} {status.get('message') or ''}".strip(" :"))
    if pod_ready(obj):
        return READY
    return progressing(f"is {phase or 'Pending'} and not ready")


def pod_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod's Ready condition holds."""
    return bool(_condition(pod, "Ready").get("status") == "True")


# Storage and network


def _claim(obj: Object, view: View) -> Readiness:
    phase = _status(obj).get("phase")
    if phase == "Bound":
        return READY
    if phase == "Lost":
        return failed("claim_lost", "has lost its volume", "restore the PersistentVolume or the data from a backup")
    name = obj["spec"].get("storageClassName")
    storage_class = storage_class_of(obj, view)
    defaults = default_classes(view) if name is None else []
    if storage_class is None and name != "" and view.knows(("storage.k8s.io", "StorageClass")):
        missing = f"StorageClass {name}, which does not exist" if name else "no StorageClass, and none is the default"
        message, hint = f"is not bound: it asks for {missing}", "install that StorageClass, or name another"
        return progressing(message, CLASS_GRACE, "storage_class_missing", hint)
    events = view.events(str(obj["metadata"].get("uid")))
    event = newest_event(events, "ProvisioningFailed", "FailedBinding", "ExternalProvisioning", "VolumeMismatch")
    reason, text = str((event or {}).get("reason") or ""), event_text(event)
    if reason == "ProvisioningFailed":
        message, hint = f"gets no volume: {text}", "see the storage driver and its limits"
        return progressing(message, PROVISION_GRACE, "provisioning_failed", hint)
    if (storage_class or {}).get("volumeBindingMode") == "WaitForFirstConsumer":
        # Whether it gets bound shows at the pods that use it.
        return noted("gets its volume when a pod first uses it")
    provisioner = str((storage_class or {}).get("provisioner") or "")
    if name == "" or provisioner == "kubernetes.io/no-provisioner" or reason in ("FailedBinding", "VolumeMismatch"):
        message = "is not bound: no PersistentVolume fits it, and nothing makes one" + (f" ({text})" if text else "")
        return progressing(message, CLASS_GRACE, "claim_unbound", "create a PersistentVolume that fits it")
    if reason == "ExternalProvisioning":
        message = f"is not bound: it waits for provisioner {provisioner or 'of its class'}"
        return progressing(message, PROVISIONER_GRACE, "no_provisioner", "see whether that provisioner runs")
    several = ""
    if len(defaults) > 1:
        several = (
            f" (of {len(defaults)} default StorageClasses {storage_class_name(storage_class)}, the newest, counts)"
        )
    return progressing("is not bound to a volume yet" + several)


def _volume(obj: Object, view: View) -> Readiness:
    status = _status(obj)
    if status.get("phase") == "Failed":
        return failed(
            "volume_failed", f"failed: {status.get('reason') or ''} {status.get('message') or ''}".strip(" :")
        )
    return READY if status.get("phase") else progressing("has not been seen by its controller yet")


def storage_class_of(claim: Mapping[str, Any], view: View) -> Object | None:
    """The StorageClass of a claim; of several default ones the newest, as the API server chooses since 1.26."""
    name = claim["spec"].get("storageClassName")
    if name is not None:
        return view.get(("storage.k8s.io", "StorageClass"), "", str(name))
    return max(
        default_classes(view), key=lambda item: str(item["metadata"].get("creationTimestamp") or ""), default=None
    )


def default_classes(view: View) -> list[Object]:
    """The StorageClasses that are marked as default."""
    mark = "storageclass.kubernetes.io/is-default-class"
    return [
        item
        for item in view.list(("storage.k8s.io", "StorageClass"))
        if (item["metadata"].get("annotations") or {}).get(mark) == "true"
    ]


def storage_class_name(storage_class: Mapping[str, Any] | None) -> str:
    """Name of a StorageClass; empty for none."""
    return str(storage_class["metadata"]["name"]) if storage_class else ""


def _service(obj: Object, view: View) -> Readiness:
    spec = obj["spec"]
    if spec.get("type") == "ExternalName":
        return READY
    if spec.get("type") == "LoadBalancer" and not (_status(obj).get("loadBalancer") or {}).get("ingress"):
        return progressing("has no address from its load balancer yet")
    selector = spec.get("selector")
    if not selector or _ready_endpoints(obj, view):
        return READY
    if not view.knows(("discovery.k8s.io", "EndpointSlice")):
        return noted("may have no endpoints: EndpointSlices cannot be read")
    workloads = list(_workloads_selected(obj, view))
    if workloads and all(int(workload["spec"].get("replicas", 1)) == 0 for workload in workloads):
        return noted("has no endpoints, since its workload is scaled to 0")
    text = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    return progressing(f"has no ready endpoint for its selector {text}", SELECTOR_GRACE, "no_endpoints")


def _ready_endpoints(service: Object, view: View) -> bool:
    metadata = service["metadata"]
    for piece in view.list(("discovery.k8s.io", "EndpointSlice"), metadata.get("namespace")):
        if (piece["metadata"].get("labels") or {}).get("kubernetes.io/service-name") != metadata["name"]:
            continue
        for endpoint in piece.get("endpoints") or []:
            # A missing condition means ready.
            if (endpoint.get("conditions") or {}).get("ready") is not False:
                return True
    return False


def _workloads_selected(service: Object, view: View) -> Iterator[Object]:
    """Workloads whose pods a Service selects, so that one scaled to 0 is not taken for a fault."""
    selector = service["spec"]["selector"]
    for kind in (("apps", "Deployment"), ("apps", "StatefulSet")):
        for workload in view.list(kind, service["metadata"].get("namespace")):
            labels = ((workload["spec"].get("template") or {}).get("metadata") or {}).get("labels") or {}
            if all(labels.get(key) == value for key, value in selector.items()):
                yield workload


# Scaling, definitions and the rest


def _autoscaler(obj: Object, view: View) -> Readiness:
    able, active = _condition(obj, "AbleToScale"), _condition(obj, "ScalingActive")
    if able.get("status") == "False" and able.get("reason") == "FailedGetScale":
        message, hint = f"cannot read the scale of its target: {_why(able)}", "correct scaleTargetRef"
        return progressing(message, CONTROLLER_GRACE, "scaling_inactive", hint)
    if not active and not able:
        # It looks at each every 15 s (--horizontal-pod-autoscaler-sync-period), and only then says what is wrong.
        return progressing("has not been looked at by its controller yet")
    if active.get("status") != "False":
        return READY
    reason = str(active.get("reason"))
    if reason == "ScalingDisabled":
        return READY
    if reason.startswith("FailedGet") or reason == "FailedComputeMetricsReplicas":
        # Metrics of new pods take a minute to arrive; scaling waits for them, the release need not.
        return noted(f"has no metrics yet: {_why(active)}")
    return failed("scaling_inactive", f"cannot scale: {_why(active)}", "correct its target and its metrics")


def _disruption_budget(obj: Object, view: View) -> Readiness:
    if not _observed(obj):
        return progressing("has not been seen by its controller yet")
    status, allowed = _status(obj), _condition(obj, "DisruptionAllowed")
    if allowed.get("reason") == "SyncFailed":
        return noted(f"protects nothing: {_why(allowed)}")
    expected, desired = int(status.get("expectedPods") or 0), int(status.get("desiredHealthy") or 0)
    if expected and desired >= expected:
        return noted(f"never allows a disruption: it wants {desired} of {expected} pods healthy, so no node drains")
    return READY


def _definition(obj: Object, view: View) -> Readiness:
    accepted = _condition(obj, "NamesAccepted")
    if accepted.get("status") == "False":
        return failed("names_not_accepted", f"uses names that are taken: {_why(accepted)}", "rename it")
    if _condition(obj, "Established").get("status") == "True" and accepted.get("status") == "True":
        return READY
    return progressing("is not established yet")


def _namespace(obj: Object, view: View) -> Readiness:
    if _status(obj).get("phase") == "Terminating":
        return failed("terminating", "is being deleted", "find out who deletes it")
    return READY


def _postgres(obj: Object, view: View) -> Readiness:
    status, spec = _status(obj), obj["spec"]
    phase, reason = str(status.get("phase") or ""), str(status.get("phaseReason") or "")
    text = f'is in phase "{phase}"' + (f": {reason}" if reason else "")
    if phase in POSTGRES_DEAD:
        return failed("postgres_failed", text, "see the operator's documentation of that phase")
    wanted, ready = int(spec.get("instances", 1)), int(status.get("readyInstances") or 0)
    if phase in POSTGRES_STUCK:
        hint = "see the operator's log"
        return progressing(f"{text}, {ready} of {wanted} instances ready", CONTROLLER_GRACE, "postgres_failed", hint)
    if phase != "Cluster in healthy state":
        return progressing(
            f"{text}, {ready} of {wanted} instances ready" if phase else "has not been seen by its operator yet"
        )
    if ready < wanted:
        return progressing(f"has {ready} of {wanted} instances ready")
    if int(status.get("instances") or 0) > wanted:
        return progressing(f"has {int(status['instances']) - wanted} instances too many")
    image = spec.get("imageName")
    if image and status.get("image") and status["image"] != image:
        return progressing("has not taken over its new image yet")
    return READY


POSTGRES_DEAD = (
    "Cluster is unrecoverable and needs manual intervention",
    "Waiting for user action",
    "Invalid cluster definition",
    "Cluster has incomplete or invalid image catalog",
    "Cluster cannot proceed to reconciliation due to an unknown plugin being required",
    "Cluster cannot execute instance online upgrade due to missing architecture binary",
)


POSTGRES_STUCK = (
    "Unable to create required cluster objects",
    "Cluster cannot proceed to reconciliation due to an error while interacting with plugins",
)


def _certificate(obj: Object, view: View) -> Readiness:
    """Issuing before Ready: a certificate that is renewed stays Ready with the old one meanwhile."""
    issuing = _condition(obj, "Issuing")
    if issuing.get("status") == "True":
        blocked = _blocked_request(obj, view)
        if blocked:
            hint = "correct the issuer, or create it"
            return progressing(f"is not being issued: {blocked}", CONTROLLER_GRACE, "certificate_failed", hint)
        return progressing(f"is being issued: {_why(issuing)}")
    if issuing.get("status") == "False" and _status(obj).get("lastFailureTime") and not _holds(obj, "Ready"):
        # cert-manager tries again after an hour at the earliest.
        return failed("certificate_failed", f"could not be issued: {_why(issuing)}", "see its CertificateRequest")
    return _by_condition("Ready")(obj, view)


def _blocked_request(obj: Object, view: View) -> str:
    """Why the newest request of a certificate does not go on; empty if it does."""
    requests = view.owned(str(obj["metadata"].get("uid")), ("cert-manager.io", "CertificateRequest"))
    newest = max(requests, key=lambda item: str(item["metadata"].get("creationTimestamp") or ""), default=None)
    ready = _condition(newest or {}, "Ready")
    message = str(ready.get("message") or "")
    return _why(ready) if ready.get("reason") in ("Failed", "Denied") or "not found" in message else ""


def _cluster_policy(obj: Object, view: View) -> Readiness:
    if _status(obj).get("state") == "ignored":
        message, hint = "is ignored, as there is another ClusterPolicy", "keep only one"
        return failed("cluster_policy_ignored", message, hint)
    return _by_field("state", "ready")(obj, view)


def _holds(obj: Object, name: str) -> bool:
    return bool(_condition(obj, name).get("status") == "True")


def _erring(name: str, code: str, hint: str, grace: float = CONTROLLER_GRACE) -> Rule:
    """As :func:`_by_condition`; a controller that says False keeps trying, and gets a grace for it."""

    def rule(obj: Object, view: View) -> Readiness:
        found = _by_condition(name)(obj, view)
        if not found.ready and _condition(obj, name).get("status") == "False":
            return dataclasses.replace(found, grace=grace, code=code, hint=hint)
        return found

    return rule


def _by_condition(*names: str) -> Rule:
    """Ready when the conditions hold for the present generation; a resource without them is not ready."""

    def rule(obj: Object, view: View) -> Readiness:
        for name in names:
            condition = _condition(obj, name)
            observed = condition.get("observedGeneration")
            current = observed is None or observed == obj["metadata"].get("generation")
            if condition.get("status") != "True" or not current:
                why = _why(condition)
                return progressing(f"is not {name} yet" + (f": {why}" if why and current else ""))
        return READY

    return rule


def _by_field(path: str, good: object, bad: tuple[object, ...] = ()) -> Rule:
    def rule(obj: Object, view: View) -> Readiness:
        value: Any = _status(obj)
        for key in path.split("."):
            value = (value or {}).get(key)
        if value == good:
            return READY
        if value in bad:
            message = str(_status(obj).get("message") or _status(obj).get("error") or "")
            return failed("resource_failed", f"has {path} {value}" + (f": {message}" if message else ""))
        return progressing(f"has {path} {'unset' if value is None else value}, not yet {good}")

    return rule


def _route(obj: Object, view: View) -> Readiness:
    parents = _status(obj).get("parents") or []
    wanted = len((obj.get("spec") or {}).get("parentRefs") or [])
    if len(parents) < wanted:
        return progressing("has not been seen by its gateway yet")
    for parent in parents:
        for name in ("Accepted", "ResolvedRefs"):
            condition = _condition({"status": parent}, name)
            if condition.get("status") != "True":
                return progressing(f"is not {name} by its gateway: {_why(condition)}")
    return READY


def _unobserved(obj: Object) -> Readiness | None:
    if "observedGeneration" in _status(obj) and not _observed(obj):
        return progressing("has not been seen by its controller yet")
    return None


def _conventions(obj: Object) -> Readiness | None:
    """What the conventions of conditions say before any rule of a kind; None if they say nothing."""
    unobserved = _unobserved(obj)
    if unobserved:
        return unobserved
    reconciling, stalled = _condition(obj, "Reconciling"), _condition(obj, "Stalled")
    if stalled.get("status") == "True":
        return failed("stalled", f"is stalled: {_why(stalled)}")
    if reconciling.get("status") == "True":
        return progressing(f"is being reconciled: {_why(reconciling)}")
    return None


def _custom(obj: Object, view: View) -> Readiness:
    """A kind without a rule of its own."""
    found = _conventions(obj)
    if found:
        return found
    for name in ("Ready", "Available"):
        if _condition(obj, name):
            return _by_condition(name)(obj, view)
    return READY


STATIC: frozenset[Kind] = frozenset(
    {
        *(("", kind) for kind in ("ConfigMap", "Secret", "ServiceAccount", "LimitRange", "ResourceQuota", "Endpoints")),
        *(("rbac.authorization.k8s.io", kind) for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")),
        *(
            ("admissionregistration.k8s.io", kind)
            for kind in (
                "MutatingWebhookConfiguration",
                "ValidatingWebhookConfiguration",
                "ValidatingAdmissionPolicy",
                "ValidatingAdmissionPolicyBinding",
                "MutatingAdmissionPolicy",
                "MutatingAdmissionPolicyBinding",
            )
        ),
        ("networking.k8s.io", "NetworkPolicy"),
        ("networking.k8s.io", "IngressClass"),
        ("scheduling.k8s.io", "PriorityClass"),
        ("storage.k8s.io", "StorageClass"),
        ("node.k8s.io", "RuntimeClass"),
        ("discovery.k8s.io", "EndpointSlice"),
        ("coordination.k8s.io", "Lease"),
        ("monitoring.coreos.com", "ServiceMonitor"),
        ("monitoring.coreos.com", "PodMonitor"),
        ("monitoring.coreos.com", "PrometheusRule"),
        ("postgresql.cnpg.io", "ScheduledBackup"),
        ("postgresql.cnpg.io", "ImageCatalog"),
        ("postgresql.cnpg.io", "ClusterImageCatalog"),
    }
)
"""Kinds that are ready as soon as they exist."""

RULES: dict[Kind, Rule] = {
    ("apps", "Deployment"): _deployment,
    ("apps", "StatefulSet"): _stateful_set,
    ("apps", "DaemonSet"): _daemon_set,
    ("apps", "ReplicaSet"): _replica_set,
    ("batch", "Job"): _job,
    ("batch", "CronJob"): _cron_job,
    ("", "Pod"): _pod,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "PersistentVolume"): _volume,
    ("", "Service"): _service,
    ("", "Namespace"): _namespace,
    ("autoscaling", "HorizontalPodAutoscaler"): _autoscaler,
    ("policy", "PodDisruptionBudget"): _disruption_budget,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
    ("apiregistration.k8s.io", "APIService"): _by_condition("Available"),
    ("postgresql.cnpg.io", "Cluster"): _postgres,
    ("postgresql.cnpg.io", "Backup"): _by_field("phase", "completed", ("failed", "invalid backup definition")),
    ("postgresql.cnpg.io", "Database"): _by_field("applied", True),
    ("cert-manager.io", "Certificate"): _certificate,
    ("cert-manager.io", "Issuer"): _erring("Ready", "issuer_failed", "correct the issuer"),
    ("cert-manager.io", "ClusterIssuer"): _erring("Ready", "issuer_failed", "correct the issuer"),
    ("external-secrets.io", "ExternalSecret"): _erring(
        "Ready", "secret_sync_failed", "see its SecretStore, and whether the key is there"
    ),
    ("external-secrets.io", "SecretStore"): _erring("Ready", "secret_store_failed", "correct its access"),
    ("external-secrets.io", "ClusterSecretStore"): _erring("Ready", "secret_store_failed", "correct its access"),
    ("gateway.networking.k8s.io", "GatewayClass"): _by_condition("Accepted"),
    ("gateway.networking.k8s.io", "Gateway"): _by_condition("Accepted", "Programmed"),
    ("gateway.networking.k8s.io", "HTTPRoute"): _route,
    ("keda.sh", "ScaledObject"): _by_condition("Ready"),
    ("monitoring.coreos.com", "Prometheus"): _by_condition("Available", "Reconciled"),
    ("monitoring.coreos.com", "Alertmanager"): _by_condition("Available", "Reconciled"),
    ("nvidia.com", "ClusterPolicy"): _cluster_policy,
    ("snapshot.storage.k8s.io", "VolumeSnapshot"): _by_field("readyToUse", True),
    ("velero.io", "BackupStorageLocation"): _by_field("phase", "Available"),
    ("velero.io", "Backup"): _by_field("phase", "Completed", ("Failed", "PartiallyFailed", "FailedValidation")),
}
"""Kinds with a rule of their own."""
