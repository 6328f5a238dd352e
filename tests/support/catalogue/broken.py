"""Releases that never get healthy, each broken in one way."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import ApiError, Cluster, Object
from tests.support.catalogue.actions import after, delete, resource
from tests.support.catalogue.case import Broken
from tests.support.catalogue.objects import (
    FOREVER,
    Place,
    claim,
    config_map,
    connects,
    container,
    daemon_set,
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

# The third restart is over, too: one that runs might yet be the one that stays.
DEAD_AGAIN = r'"state": \{"(waiting|terminated)".{1,1500}?"restartCount": 3'


def healthy(place: Place) -> list[Object]:
    """The release before: one pod that is ready at once."""
    return [deployment(pod(container(place.shell, *FOREVER)))]


def image(reference: str, **more: Any) -> Any:
    """A Deployment of one image."""
    return lambda place: [deployment(pod(container(reference.format(registry=place.registry), *FOREVER, **more)))]


def shell(line: str, spec: dict[str, Any] | None = None, **more: Any) -> Any:
    """A Deployment whose container runs a line in a shell; ``more`` goes to the container, ``spec`` to the pod."""
    return lambda place: [deployment(pod(container(place.shell, line, **more), **(spec or {})))]


def waits(spec: dict[str, Any] | None = None, **more: Any) -> Any:
    """A Deployment whose container would run if it could be started."""
    return lambda place: [deployment(pod(container(place.shell, *FOREVER, **more), **(spec or {})))]


def _volume(source: dict[str, Any]) -> Any:
    volume, mount = mounted("data", "/data", **source)
    return waits({"volumes": [volume]}, volumeMounts=[mount])


def _claimed(**more: Any) -> Any:
    volume, mount = mounted("data", "/data", persistentVolumeClaim={"claimName": "data"})
    return lambda place: [
        claim(**more),
        deployment(pod(container(place.shell, *FOREVER, volumeMounts=[mount]), volumes=[volume])),
    ]


def _in_restricted_namespace(place: Place) -> list[Object]:
    return [deployment(pod(container(place.shell, *FOREVER, securityContext={"privileged": True})))]


def _restrict(cluster: Cluster, namespace: str) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.merge(resource("v1", "Namespace"), namespace, None, {"metadata": {"labels": labels}})


def _database_is_down(place: Place) -> list[Object]:
    connect = "redis-cli -h store ping | grep PONG || { echo 'cannot connect to store:6379'; exit 1; }; sleep infinity"
    store = stateful_set(pod(container(f"{place.registry}/absent/redis:8", *FOREVER)))
    return [
        store,
        service("store"),
        deployment(pod(container(place.shell, connect)), "api"),
        deployment(pod(container(place.shell, connect)), "worker"),
    ]


def _two_on_one_port(place: Place) -> list[Object]:
    server = ["redis-server", "--port", "6379", "--save", "", "--dir", "/tmp"]
    return [deployment(pod(container(place.shell, *server, name="one"), container(place.shell, *server, name="two")))]


def _host_port_twice(place: Place) -> list[Object]:
    port = [{"containerPort": 6379, "hostPort": 31999}]
    return [deployment(pod(container(place.shell, *FOREVER, ports=port)), replicas=2)]


def _apart_on_one_node(place: Place) -> list[Object]:
    term = {"labelSelector": {"matchLabels": {"app": "app"}}, "topologyKey": "kubernetes.io/hostname"}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return [deployment(pod(container(place.shell, *FOREVER), affinity=affinity), replicas=2)]


def _garbage_for_a_program(place: Place) -> list[Object]:
    volume, mount = mounted("bin", "/opt/bin", configMap={"name": "bin", "defaultMode": 0o755})
    return [
        config_map("bin", app="no program"),
        deployment(pod(container(place.shell, "/opt/bin/app", volumeMounts=[mount]), volumes=[volume])),
    ]


def _crd_without_operator(place: Place) -> list[Object]:
    return [
        {
            "apiVersion": "postgresql.cnpg.io/v1",
            "kind": "Cluster",
            "metadata": {"name": "database"},
            "spec": {"instances": 1, "storage": {"size": "1Gi", "storageClass": "no-such-class"}},
        }
    ]


def _autoscaler_of_nothing(place: Place) -> list[Object]:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "apps"}
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
    }
    return [
        *healthy(place),
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "app"},
            "spec": {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3, "metrics": [metric]},
        },
    ]


def _policy(cluster: Cluster, namespace: str) -> None:
    """A policy of admission that denies pods without a team, in this namespace only; removed with the case."""
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    api = "admissionregistration.k8s.io/v1"
    cluster.create(
        resource(api, "ValidatingAdmissionPolicy"),
        {
            "apiVersion": api,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": namespace},
            "spec": {
                "matchConstraints": {"resourceRules": [rule], "namespaceSelector": selector},
                "validations": [
                    {"expression": "'team' in object.metadata.labels", "message": "every pod names its team"}
                ],
            },
        },
    )
    cluster.create(
        resource(api, "ValidatingAdmissionPolicyBinding"),
        {
            "apiVersion": api,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": namespace},
            "spec": {"policyName": namespace, "validationActions": ["Deny"]},
        },
    )
    _until_denied(cluster, namespace)


def _until_denied(cluster: Cluster, namespace: str) -> None:
    """The API server takes a moment to compile a policy; until then it lets everything in."""
    probe = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": namespace, "labels": {"app": "probe"}},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
    }
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            cluster.create(resource("v1", "Pod"), probe, dry_run=True)
        except ApiError as error:
            if "denied" in error.message:
                return
            raise
        time.sleep(0.2)
    raise AssertionError("the policy denies nothing after 60 s")


def dead_webhook(cluster: Cluster, namespace: str) -> None:
    """A webhook for pods of this namespace whose Service does not exist."""
    api = "admissionregistration.k8s.io/v1"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    cluster.create(
        resource(api, "ValidatingWebhookConfiguration"),
        {
            "apiVersion": api,
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": namespace},
            "webhooks": [
                {
                    "name": "pods.example.test",
                    "clientConfig": {"service": {"name": "nobody", "namespace": namespace, "path": "/"}},
                    "rules": [rule],
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                    "sideEffects": "None",
                    "admissionReviewVersions": ["v1"],
                    "failurePolicy": "Fail",
                    "timeoutSeconds": 2,
                }
            ],
        },
    )


BROKEN = [
    # Place
    Broken(
        "image-name",
        "an image name that is none",
        image("Not/A Valid:Name:"),
        "image_invalid",
        ("container main", "Not/A Valid:Name:"),
        "InvalidImageName",
    ),
    Broken(
        "image-tag",
        "a tag that the registry does not have",
        image("{registry}/absent/app:1.2.4"),
        "image_not_found",
        (r"absent/app:1\.2\.4", "container main"),
        "ErrImagePull",
    ),
    Broken(
        "image-denied",
        "an image that the registry wants a login for",
        image("{registry}/denied/app:1"),
        "image_denied",
        ("denied/app:1", "pull secret"),
        "ErrImagePull",
    ),
    Broken(
        "image-never-pulled",
        "imagePullPolicy Never, and the image is on no node",
        image("registry.example/none/app:1", imagePullPolicy="Never"),
        "image_not_present",
        ("registry.example/none/app:1",),
        "ErrImageNeverPull",
    ),
    Broken(
        "registry-down",
        "a registry that does not answer",
        image("127.0.0.1:9/app:1"),
        "image_pull",
        ("127.0.0.1:9/app:1", "refused"),
        "ErrImagePull",
        90,
    ),
    Broken(
        "registry-broken",
        "a registry that answers 500",
        image("{registry}/broken/app:1"),
        "image_pull",
        ("broken/app:1", "500"),
        "ErrImagePull",
        90,
    ),
    Broken(
        "init-image",
        "an init container's tag that does not exist",
        lambda place: [
            deployment(
                pod(
                    container(place.shell, *FOREVER),
                    initContainers=[container(f"{place.registry}/absent/init:1", "true", name="prepare")],
                )
            )
        ],
        "image_not_found",
        ("container prepare", "absent/init:1"),
        "ErrImagePull",
    ),
    Broken(
        "new-image",
        "a release's new image does not exist while the old release serves",
        image("{registry}/absent/app:2"),
        "image_not_found",
        ("absent/app:2",),
        "ErrImagePull",
        before=healthy,
    ),
    # Containers that end
    Broken(
        "crash",
        "the program ends with exit code 3",
        shell("echo reading the settings >&2; echo no settings >&2; exit 3"),
        "crash_loop",
        ("exit code 3", "no settings"),
        DEAD_AGAIN,
    ),
    Broken(
        "ends-well",
        "the program ends again and again, with exit code 0",
        shell("echo done; exit 0"),
        "crash_loop",
        ("exit code 0",),
        DEAD_AGAIN,
    ),
    Broken(
        "no-such-program",
        "the command is not in the image",
        waits(command=["/usr/local/bin/serve"]),
        "container_start",
        ("/usr/local/bin/serve",),
        "StartError|RunContainerError",
    ),
    Broken(
        "not-executable",
        "the command is a file that may not be run",
        waits(command=["/etc/hostname"]),
        "container_start",
        ("permission denied",),
        "StartError|RunContainerError",
    ),
    Broken(
        "not-a-program",
        "the command is a file that is no program",
        _garbage_for_a_program,
        "container_start|crash_loop",
        ("exec format error",),
        f"StartError|RunContainerError|{DEAD_AGAIN}",
    ),
    Broken(
        "out-of-memory",
        "the program wants more memory than its limit",
        shell(
            "head -c 200m /dev/zero | tail",
            resources={"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "24Mi"}},
        ),
        # A busy node may not know that it was for memory; the sentence says so all the same.
        "out_of_memory|crash_loop",
        ("memory",),
        DEAD_AGAIN,
    ),
    Broken(
        "read-only",
        "the program writes to a file system that is read-only",
        shell("echo x > /var/lib/app.db && sleep infinity", securityContext={"readOnlyRootFilesystem": True}),
        "crash_loop",
        ("Read-only file system",),
        DEAD_AGAIN,
    ),
    Broken(
        "port-taken",
        "two containers of a pod listen on the same port",
        _two_on_one_port,
        "crash_loop",
        ("container (one|two)", "port 6379"),
        DEAD_AGAIN,
    ),
    Broken(
        "init-crash",
        "an init container fails",
        lambda place: [
            deployment(
                pod(
                    container(place.shell, *FOREVER),
                    initContainers=[container(place.shell, "echo no licence; exit 7", name="licence")],
                )
            )
        ],
        "crash_loop",
        ("container licence", "exit code 7", "no licence"),
        DEAD_AGAIN,
    ),
    Broken(
        "post-start",
        "a postStart hook fails",
        waits(lifecycle={"postStart": {"exec": {"command": ["sh", "-c", "echo hook; exit 1"]}}}),
        "hook_failed|container_start",
        ("container main", "[Pp]ostStart"),
        DEAD_AGAIN,
    ),
    Broken(
        "store-crash",
        "the first pod of a StatefulSet crashes, so that the others wait",
        lambda place: [
            stateful_set(pod(container(place.shell, "echo corrupt index >&2; exit 1")), replicas=3),
            service("store"),
        ],
        "crash_loop",
        (r"store-\d", "corrupt index"),
        DEAD_AGAIN,
    ),
    # Probes
    Broken(
        "never-ready",
        "the readiness probe never succeeds, and the progress deadline passes",
        lambda place: [
            deployment(
                pod(container(place.shell, *FOREVER, readinessProbe=executes("echo warming up; exit 1"))),
                progressDeadlineSeconds=15,
            )
        ],
        "progress_deadline|not_ready|no_progress",
        ("warming up|[Rr]eadiness probe",),
        "ProgressDeadlineExceeded",
    ),
    Broken(
        "liveness",
        "the liveness probe fails",
        waits(livenessProbe=connects(8080, failureThreshold=2)),
        "probe_killed",
        ("liveness",),
        DEAD_AGAIN,
    ),
    Broken(
        "startup",
        "the startup probe fails",
        waits(startupProbe=connects(8080, failureThreshold=3)),
        "probe_killed",
        ("startup",),
        DEAD_AGAIN,
    ),
    # Configuration
    Broken(
        "secret-for-env",
        "a Secret that an environment variable comes from is missing",
        waits(env=[{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "tokens", "key": "api"}}}]),
        "config_missing",
        ('secret "tokens" not found',),
        "CreateContainerConfigError",
        10,
    ),
    Broken(
        "config-map-key",
        "a ConfigMap lacks the key that a variable comes from",
        lambda place: [
            config_map("settings", level="info"),
            *waits(env=[{"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}}])(
                place
            ),
        ],
        "config_missing",
        ("mode", "settings"),
        "CreateContainerConfigError",
        10,
    ),
    Broken(
        "secret-for-volume",
        "a Secret that a volume comes from is missing",
        _volume({"secret": {"secretName": "keys"}}),
        "config_missing",
        ('secret "keys" not found',),
        "FailedMount",
        10,
    ),
    Broken(
        "config-map-for-volume",
        "a ConfigMap that a volume comes from is missing",
        _volume({"configMap": {"name": "rules"}}),
        "config_missing",
        ('configmap "rules" not found',),
        "FailedMount",
        10,
    ),
    Broken(
        "root",
        "runAsNonRoot, and the image's user is root",
        waits(securityContext={"runAsNonRoot": True, "runAsUser": 0}),
        "config_invalid|runs_as_root",
        ("root",),
        "CreateContainerConfigError",
    ),
    # Volumes
    Broken(
        "storage-class",
        "a claim for a StorageClass that does not exist",
        _claimed(storageClassName="fast"),
        "storage_class_missing|unschedulable",
        ("fast",),
        "",
        30,
    ),
    Broken(
        "no-volume",
        "a claim without a StorageClass, and no volume fits it",
        _claimed(storageClassName=""),
        "claim_unbound",
        ("claim|volume",),
        "",
        30,
    ),
    Broken(
        "host-path",
        "a hostPath that is not there",
        _volume({"hostPath": {"path": "/no/such/folder", "type": "Directory"}}),
        "mount|config_missing",
        ("/no/such/folder",),
        "FailedMount",
        90,
    ),
    # Nodes
    Broken(
        "selector",
        "no node has the label that is asked for",
        waits({"nodeSelector": {"disk": "nvme"}}),
        "unschedulable",
        ("node affinity|selector",),
        "Unschedulable",
        60,
    ),
    Broken(
        "too-large",
        "no node has the CPUs that are asked for",
        waits(resources={"requests": {"cpu": "400"}}),
        "unschedulable",
        ("Insufficient cpu",),
        "Unschedulable",
        60,
    ),
    Broken(
        "gpu",
        "no node has a GPU",
        waits(resources={"limits": {"nvidia.com/gpu": "1"}}),
        "unschedulable",
        ("nvidia.com/gpu",),
        "Unschedulable",
        60,
    ),
    Broken(
        "apart",
        "two replicas that must not share a node, and one node",
        _apart_on_one_node,
        "unschedulable",
        ("anti-affinity",),
        "Unschedulable",
        60,
    ),
    Broken(
        "host-port",
        "two pods want the same port of the one node",
        _host_port_twice,
        "unschedulable",
        ("port",),
        "Unschedulable",
        60,
    ),
    # What creates the pods is refused
    Broken(
        "quota",
        "a quota that leaves no room",
        lambda place: [quota(pods="0"), *healthy(place)],
        "quota_exceeded",
        ("quota", "pods"),
        "exceeded quota",
        40,
    ),
    Broken(
        "quota-needs-requests",
        "a quota on memory, and a container without a request",
        lambda place: [
            quota(**{"requests.memory": "1Gi"}),
            deployment(pod({"name": "main", "image": place.shell, "command": FOREVER})),
        ],
        "limits_refused",
        ("requests.memory",),
        "must specify",
    ),
    Broken(
        "limit-range",
        "more than the LimitRange allows",
        lambda place: [
            {
                "apiVersion": "v1",
                "kind": "LimitRange",
                "metadata": {"name": "limits"},
                "spec": {"limits": [{"type": "Container", "max": {"cpu": "100m"}}]},
            },
            *waits(resources={"requests": {"cpu": "1"}, "limits": {"cpu": "1"}})(place),
        ],
        "limits_refused",
        ("maximum cpu",),
        "maximum cpu",
    ),
    Broken(
        "pod-security",
        "a privileged container where Pod Security is restricted",
        _in_restricted_namespace,
        "pod_security",
        ("privileged", "Pod Security"),
        "violates PodSecurity",
        prepare=_restrict,
    ),
    Broken(
        "policy",
        "a policy of admission denies the pods",
        healthy,
        "admission_denied",
        ("every pod names its team",),
        "denied request|names its team",
        prepare=_policy,
    ),
    Broken(
        "webhook",
        "an admission webhook for pods that does not answer",
        healthy,
        "webhook_unavailable|timeout",
        ("pods.example.test", "webhook"),
        "",
        prepare=dead_webhook,
        timeout=30,
    ),
    Broken(
        "service-account",
        "a ServiceAccount that does not exist",
        waits({"serviceAccountName": "robot"}),
        "service_account_missing",
        ("robot",),
        "robot",
        10,
    ),
    Broken(
        "priority",
        "a PriorityClass that does not exist",
        waits({"priorityClassName": "urgent"}),
        "priority_class_missing",
        ("urgent",),
        "urgent",
        10,
    ),
    Broken(
        "runtime-class",
        "a RuntimeClass that does not exist",
        waits({"runtimeClassName": "gvisor"}),
        "runtime_class_missing",
        ("gvisor",),
        "gvisor",
        10,
    ),
    # Other workloads
    Broken(
        "agent-image",
        "a DaemonSet's image does not exist",
        lambda place: [daemon_set(pod(container(f"{place.registry}/absent/agent:1", *FOREVER)))],
        "image_not_found",
        ("DaemonSet", "absent/agent:1"),
        "ErrImagePull",
    ),
    Broken(
        "job",
        "a Job fails",
        lambda place: [job(pod(container(place.shell, "echo no such table >&2; exit 1")))],
        "job_failed|crash_loop",
        ("Job", "no such table"),
        "BackoffLimitExceeded",
    ),
    Broken(
        "job-deadline",
        "a Job does not end before its deadline",
        lambda place: [job(pod(container(place.shell, *FOREVER)), activeDeadlineSeconds=5)],
        "job_failed",
        ("Job", "[Dd]eadline"),
        "DeadlineExceeded",
    ),
    Broken(
        "paused",
        "a rollout that somebody paused",
        lambda place: [
            deployment(pod(container(place.shell, *FOREVER, env=[{"name": "RELEASE", "value": "2"}])), paused=True)
        ],
        "paused",
        ("paused", "resume"),
        "",
        before=healthy,
    ),
    # Around the workloads
    Broken(
        "no-endpoints",
        "a Service that selects none of the pods",
        lambda place: [*healthy(place), service("app", selector="apps")],
        "no_endpoints",
        ("app=apps",),
        "",
        20,
    ),
    Broken(
        "database-down",
        "the database's image does not exist, so that two applications crash",
        _database_is_down,
        "image_not_found",
        ("^StatefulSet", "absent/redis:8"),
        "ErrImagePull",
    ),
    Broken(
        "flapping",
        "the pod gets ready and unready in turns",
        shell(
            "while :; do touch /tmp/ready; sleep 3; rm /tmp/ready; sleep 3; done",
            readinessProbe=executes("test -f /tmp/ready", failureThreshold=1),
        ),
        "unstable|timeout",
        ("ready",),
        "",
        timeout=40,
        options={"stable_for": 8},
    ),
    Broken(
        "deleted",
        "somebody deletes the Deployment while it is waited for",
        shell("sleep infinity", readinessProbe=executes("false")),
        "deleted",
        ("deleted",),
        "",
        meanwhile=after(4, delete("apps/v1", "Deployment", "app")),
    ),
    Broken(
        "database-class",
        "a PostgreSQL Cluster on a StorageClass that does not exist",
        _crd_without_operator,
        "timeout|storage_class_missing|unschedulable|postgres_failed|no_progress",
        ("no-such-class",),
        "",
        timeout=90,
    ),
    Broken(
        "autoscaler",
        "an autoscaler whose target does not exist",
        _autoscaler_of_nothing,
        "scaling_inactive",
        ("apps",),
        "FailedGetScale",
    ),
    Broken(
        "secret-in-log",
        "the program logs its password before it crashes",
        lambda place: [
            secret("login", password="seeded-secret-5b1f"),  # made up, to be searched for
            deployment(
                pod(
                    container(
                        place.shell,
                        'echo "cannot login: postgres://app:$PASSWORD@db/app password=$PASSWORD"; exit 1',
                        env=[{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "login", "key": "password"}}}],
                    )
                )
            ),
        ],
        "crash_loop",
        ("cannot login",),
        DEAD_AGAIN,
    ),
]
