"""Releases that look broken for a while and get healthy: none of them may be condemned."""

from __future__ import annotations

from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, Object
from tests.support.catalogue.actions import after, create, delete, delete_pods, resource
from tests.support.catalogue.broken import dead_webhook, healthy, waits
from tests.support.catalogue.case import Healing
from tests.support.catalogue.objects import (
    FOREVER,
    Place,
    claim,
    config_map,
    container,
    deployment,
    executes,
    job,
    mounted,
    pod,
    quota,
    secret,
    service,
    stateful_set,
)

# A folder that outlives a container's restart, so that a program can do otherwise the second time.
KEPT, KEPT_AT = mounted("kept", "/kept", emptyDir={})


def _label(namespace: str) -> str:
    return f"example.test/{namespace}"


def _label_the_node(cluster: Cluster, namespace: str) -> None:
    """What a node that comes later would bring."""
    (node,) = cluster.list(resource("v1", "Node")).items
    patch = {"metadata": {"labels": {_label(namespace): "here"}}}
    cluster.merge(resource("v1", "Node"), node["metadata"]["name"], None, patch)


def _delete_the_webhook(cluster: Cluster, namespace: str) -> None:
    delete("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", namespace)(cluster, namespace)


def _make_the_class(cluster: Cluster, namespace: str) -> None:
    """One more StorageClass, as the default one is."""
    classes = resource("storage.k8s.io/v1", "StorageClass")
    (model, *_others) = cluster.list(classes).items
    made = {key: value for key, value in model.items() if key != "metadata"}
    cluster.create(classes, {**made, "metadata": {"name": namespace}})


def _store_comes_later(place: Place) -> list[Object]:
    connect = "redis-cli -h store ping | grep PONG || { echo 'cannot connect to store:6379'; exit 1; }; sleep infinity"
    server = ["sh", "-c", "sleep 8; exec redis-server --save '' --dir /tmp --protected-mode no"]
    ready = executes("redis-cli ping | grep PONG")
    return [
        stateful_set(pod(container(place.shell, *server, readinessProbe=ready))),
        service("store"),
        deployment(pod(container(place.shell, connect)), "api"),
    ]


def _rolling_out_slowly(place: Place) -> list[Object]:
    env = [{"name": "RELEASE", "value": "2"}]
    return [stateful_set(pod(container(place.shell, *FOREVER, env=env, readinessProbe=executes("true"))), replicas=2)]


def _replaced(place: Place) -> list[Object]:
    spec = pod(container(place.shell, *FOREVER, env=[{"name": "RELEASE", "value": "2"}]))
    return [deployment(spec, strategy={"type": "Recreate"})]


def _slow_to_end(place: Place) -> list[Object]:
    spec = pod(container(place.shell, "trap 'sleep 8; exit 0' TERM; while :; do sleep 0.2; done"))
    return [deployment({**spec, "terminationGracePeriodSeconds": 20}, strategy={"type": "Recreate"})]


def _claimed(storage_class: str | None = None) -> Any:
    volume, mount = mounted("data", "/data", persistentVolumeClaim={"claimName": "data"})
    wanted = {"storageClassName": storage_class} if storage_class else {}
    return lambda place: [
        claim(**wanted),
        deployment(pod(container(place.shell, *FOREVER, volumeMounts=[mount]), volumes=[volume])),
    ]


HEALING = [
    Healing(
        "slow-start",
        "ready only after 20 s",
        lambda place: [
            deployment(
                pod(
                    container(
                        place.shell,
                        "sleep 20; touch /tmp/ready; sleep infinity",
                        readinessProbe=executes("test -f /tmp/ready"),
                    )
                )
            )
        ],
        "Readiness probe failed",
    ),
    Healing(
        "one-restart",
        "the program fails once",
        lambda place: [
            deployment(
                pod(
                    container(
                        place.shell,
                        "test -f /kept/once || { touch /kept/once; exit 1; }; sleep infinity",
                        volumeMounts=[KEPT_AT],
                    ),
                    volumes=[KEPT],
                )
            )
        ],
        r'"restartCount": 1',
    ),
    Healing(
        "image-retried",
        "the registry fails twice, then has the image",
        lambda place: [deployment(pod({"name": "main", "image": f"{place.registry}/flaky/app:1"}))],
        "ErrImagePull",
    ),
    Healing(
        "node-late",
        "a node that fits comes after 15 s",
        lambda place: waits({"nodeSelector": {_label(place.namespace): "here"}})(place),
        "Unschedulable",
        meanwhile=after(15, _label_the_node),
    ),
    Healing(
        "secret-late",
        "an operator makes the Secret after 6 s",
        waits(env=[{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "tokens", "key": "api"}}}]),
        "CreateContainerConfigError",
        meanwhile=after(6, create(secret("tokens", api="made-later"))),
    ),
    Healing(
        "config-map-late",
        "the ConfigMap of a volume is made after 6 s",
        waits(
            {"volumes": [{"name": "rules", "configMap": {"name": "rules"}}]},
            volumeMounts=[{"name": "rules", "mountPath": "/rules"}],
        ),
        "FailedMount",
        meanwhile=after(6, create(config_map("rules", a="b"))),
    ),
    Healing(
        "quota-raised",
        "the quota is raised after 12 s",
        lambda place: [quota(pods="0"), *healthy(place)],
        "exceeded quota",
        meanwhile=after(12, create(quota(pods="5"))),
    ),
    Healing(
        "store-late",
        "the store is there later than the application, which crashes until then",
        _store_comes_later,
        r'"restartCount": 1',
    ),
    Healing(
        "webhook-back",
        "an admission webhook for pods does not answer for 10 s",
        healthy,
        "failed calling webhook",
        prepare=dead_webhook,
        meanwhile=after(10, _delete_the_webhook),
    ),
    Healing(
        "readiness-flaps",
        "ready, unready once, and ready again",
        lambda place: [
            deployment(
                pod(
                    container(
                        place.shell,
                        "touch /tmp/r; sleep 6; rm /tmp/r; sleep 4; touch /tmp/r; sleep infinity",
                        readinessProbe=executes("test -f /tmp/r", failureThreshold=1),
                    )
                )
            )
        ],
        "Readiness probe failed",
        options={"stable_for": 8},
    ),
    Healing(
        "job-retried",
        "a Job's first pod fails",
        lambda place: [
            claim("state"),
            job(
                pod(
                    container(
                        place.shell,
                        "test -f /kept/once || { touch /kept/once; exit 1; }",
                        volumeMounts=[{"name": "state", "mountPath": "/kept"}],
                    ),
                    volumes=[{"name": "state", "persistentVolumeClaim": {"claimName": "state"}}],
                ),
                backoffLimit=3,
            ),
        ],
        '"reason": "Error"',
    ),
    Healing(
        "pods-deleted",
        "somebody deletes the pods during the rollout",
        lambda place: [
            deployment(
                pod(
                    container(
                        place.shell, "sleep 6; touch /tmp/r; sleep infinity", readinessProbe=executes("test -f /tmp/r")
                    )
                ),
                replicas=2,
            )
        ],
        "Killing|deletionTimestamp",
        meanwhile=after(4, delete_pods),
    ),
    Healing(
        "old-pod-slow",
        "Recreate, and the old pod takes 8 s to end",
        _replaced,
        "deletionTimestamp",
        before=_slow_to_end,
    ),
    Healing(
        "volume-waits",
        "a claim that is bound only once a pod uses it",
        _claimed(),
        '"phase": "Pending"',
    ),
    Healing(
        "class-late",
        "the StorageClass is made after 10 s",
        lambda place: _claimed(place.namespace)(place),
        '"phase": "Pending"',
        meanwhile=after(10, _make_the_class),
    ),
    Healing(
        "store-rolls",
        "a StatefulSet's pods are replaced one by one",
        _rolling_out_slowly,
        "Killing|deletionTimestamp",
        before=lambda place: [stateful_set(pod(container(place.shell, *FOREVER)), replicas=2)],
    ),
]
