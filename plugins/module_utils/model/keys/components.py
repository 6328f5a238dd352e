# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a component."""

from __future__ import annotations

from ansible_collections.groundwork.platform.plugins.module_utils.model.keys.access import public, route
from ansible_collections.groundwork.platform.plugins.module_utils.model.keys.common import (
    A_METRIC,
    A_NAME,
    DOMAIN,
    FILE_PATH,
    IMAGE,
    LABEL_KEY,
    LABEL_VALUE,
    METRIC,
    NAME,
    URL_PATH,
    URL_PATH_OR_NOTHING,
    Schema,
    command,
    duration,
    items,
    keys,
    mapping,
    number,
    ref,
    scale_rule,
    size,
    switch,
    text,
    whole,
)


def component() -> Schema:
    """One workload."""
    return keys("One workload: pods that run one image with one command.", {**_program(), **_running(), **_around()})


def _program() -> Schema:
    return {
        "enabled": switch("Whether it runs in this environment. Routes to it, and talks_to it, go with it.", True),
        "image": text(
            "Its image. Without a registry in front, that of `registry` is put there. Default: the system's image.",
            "an image reference",
            IMAGE,
            examples=["medical-inventory/api:1.0.0"],
        ),
        "command": command(
            "Replaces the image's entry point. Default: the image's.",
            examples=[["python", "main.py"]],
        ),
        "args": command("Replaces the image's arguments. Default: the image's.", examples=[["serve", "api"]]),
        "user": whole(
            "Numeric user and group of its processes; never 0.", "a user's number", 1, default=10001, examples=[10001]
        ),
        "port": whole(
            "Port on which it answers HTTP. Default: none, so it gets no Service and no probes.",
            "a port",
            1,
            65535,
            examples=[8000],
        ),
        "env": ref("env"),
        "worker": keys(
            "Makes it a worker, which takes tasks from a queue. On TERM it ends its task within `drain`, or hands it "
            "back. Default: it is none.",
            {"queue": _queue("Redis store that holds its tasks; it need not be named in `talks_to`.")},
            required=["queue"],
            examples=[{"queue": "redis"}],
        ),
        "scheduler": keys(
            "Makes it the scheduler that posts tasks at set times, as Celery's beat: one pod, and never two, so the "
            "old one ends before a new one starts. It has no port. Default: it is none.",
            {"queue": _queue("Redis store into which it posts; it need not be named in `talks_to`.")},
            required=["queue"],
            examples=[{"queue": "redis"}],
        ),
        "proxy": _proxy(),
    }


def _queue(description: str) -> Schema:
    return text(description, "the name of a redis store", NAME, examples=["redis"])


def _running() -> Schema:
    return {
        "resources": ref("resources"),
        "replicas": _replicas(),
        "scale_on": _scale_on(),
        "scale_up": ref("scale_rule"),
        "scale_down": scale_rule(
            "How fast the autoscaler may remove pods. Without it Kubernetes' own defaults hold.",
            {
                "below": whole(
                    "Utilization from which pods are removed, where that is far less than what `scale_on` holds. "
                    "Default: just below it.",
                    "percent of the request",
                    1,
                    1000,
                    examples=[30],
                )
            },
        ),
        "vertical": ref("vertical"),
        "strategy": _strategy(),
        "keep_available": whole(
            "How many must stay while nodes are drained. Default: all but one.", "pods", 1, examples=[2]
        ),
        "sticky": switch(
            "Whether a client stays on its replica: a proxy chooses it by the cookie gw_session and consistent "
            "hash over the pods.",
            False,
        ),
        "health": keys(
            "Its probes, on its port.",
            {
                "live": text(
                    "Path that answers while the process is alive.",
                    "a path",
                    URL_PATH,
                    default="/healthz",
                    examples=["/health"],
                ),
                "ready": text(
                    "Path that answers once its stores are reachable.",
                    "a path",
                    URL_PATH,
                    default="/readyz",
                    examples=["/health"],
                ),
                "startup": duration(
                    "How long it may take to start before it is restarted.", default="2m", examples=["60s"]
                ),
            },
            default={},
        ),
        "drain": duration(
            "Time that requests under way get to end once a pod leaves, beside the 10 s that all get to be "
            "taken out of rotation.",
            default="30s",
            examples=["60s"],
        ),
        "gpu": _gpu(),
        "node_labels": mapping(
            "Labels that its nodes must have.",
            text("The label's value.", "the value of a label", LABEL_VALUE),
            LABEL_KEY,
            "the key of a label",
            default={},
            examples=[{"accelerator": "nvidia-tesla-gpu"}],
        ),
        "node_pool": text(
            "Pool whose nodes it runs on, by the label in `nodes.pool_label`, and whose taint it tolerates; the "
            "environment must count on `node_pools`. Default: any node.",
            "the value of a label",
            LABEL_VALUE,
            examples=["data-processing"],
        ),
        "spot": whole(
            "How many of its pods should run on spot nodes, by the label in `nodes.spot_label`; the environment must "
            "count on `spot`.",
            "percent of the pods",
            0,
            100,
            default=0,
            examples=[70],
        ),
        "priority": text(
            "PriorityClass of its pods, which must exist. Default: the cluster's.",
            "a name",
            DOMAIN,
            examples=["clinical"],
        ),
    }


def _around() -> Schema:
    return {
        "talks_to": items(
            "Components, stores, and entries of `outside` that it connects to. All other traffic is refused, and a "
            "store's address, name and password arrive as environment variables.",
            text("A component, store or entry of `outside`.", A_NAME, NAME),
            "a list of names of components and stores",
            uniqueItems=True,
            default=[],
            examples=[["postgres", "redis"]],
        ),
        "volumes": mapping(
            "Shared volumes that it mounts: name of the volume to path in the container. Read-only, unless the volume "
            "is `writable`.",
            text("Where it is mounted.", "an absolute path", FILE_PATH),
            NAME,
            A_NAME,
            default={},
            examples=[{"models": "/app/models"}],
        ),
        "secrets": mapping(
            "Secrets that it mounts, always read-only: name of the secret to folder in the container, which then has a "
            "file for each key.",
            text("Where it is mounted.", "an absolute path", FILE_PATH),
            NAME,
            A_NAME,
            default={},
            examples=[{"firebase": "/etc/firebase"}],
        ),
        "scrape": text(
            "Path on its port where Prometheus finds its metrics; empty for none. A proxy has none.",
            "a path, or nothing",
            URL_PATH_OR_NOTHING,
            default="/metrics",
            examples=["/metrics"],
        ),
        "public": public(),
    }


def _replicas() -> Schema:
    return {
        "description": "How many pods: a number, or {min, max} for the autoscaler, which then needs scale_on. "
        "Unit: pods.",
        "title": "a whole number, or {min, max}",
        "default": 1,
        "examples": [2, {"min": 2, "max": 20}],
        "anyOf": [
            {"type": "integer", "title": "a whole number, or {min, max}", "minimum": 0},
            keys(
                "The autoscaler's bounds; equal bounds switch it off.",
                {
                    "min": whole("Fewest.", "pods", 1, examples=[2]),
                    "max": whole("Most.", "pods", 1, examples=[20]),
                },
                required=["min", "max"],
            ),
        ],
    }


def _scale_on() -> Schema:
    target = keys(
        "What the autoscaler holds a metric of `metrics` at: per_replica or value.",
        {
            "per_replica": number(
                "What the metric may be for each pod. Default: none, so value decides.",
                "that of the metric",
                exclusiveMinimum=0,
                examples=[5],
            ),
            "value": number(
                "What the metric as a whole may be. Default: none, so per_replica decides.",
                "that of the metric",
                exclusiveMinimum=0,
                examples=[10],
            ),
            "ahead": duration(
                "How far the metric is predicted; the greater of present and prediction counts. Default: it is not.",
                examples=["15m"],
            ),
        },
        title="{per_replica} or {value}",
    )
    return {
        **keys(
            "What the autoscaler holds: cpu and memory in percent of the request, averaged over the pods, and metrics "
            "of `metrics` by name, for which the environment must count on `keda`.",
            {
                "cpu": whole("CPU used. Default: it does not count.", "percent of the request", 1, 1000, examples=[70]),
                "memory": whole(
                    "Memory used. Default: it does not count.", "percent of the request", 1, 1000, examples=[80]
                ),
            },
            default={},
            examples=[{"cpu": 70, "memory": 80, "ecg_queue_depth": {"per_replica": 5, "ahead": "15m"}}],
        ),
        "additionalProperties": target,
        "propertyNames": {"type": "string", "pattern": METRIC, "title": A_METRIC},
    }


def _strategy() -> Schema:
    def kind(name: str, description: str, properties: Schema) -> Schema:
        fixed = {"description": "How new versions take over.", "title": name, "const": name}
        return keys(description, {"type": fixed, **properties}, required=["type"])

    return {
        "description": "How a new version takes over, each way judged by the gate: `rolling` replaces pod after pod; "
        "`blue_green` runs both and switches the Service once the new one is healthy; `canary` gives the new one ever "
        "more of the replicas.",
        "title": "a strategy with its type, rolling, blue_green or canary",
        "default": {"type": "rolling"},
        "examples": [{"type": "canary", "steps": [10, 50, 100], "pause": "60s"}],
        "anyOf": [
            kind("rolling", "Pod after pod, never fewer than before.", {}),
            kind(
                "blue_green",
                "Two Deployments, of which the Service selects one.",
                {
                    "keep_old": text(
                        "How long the old pods go on running after the switch, while the new ones are watched; or "
                        "next_release, for a rollback at once at the price of twice the pods.",
                        "a duration such as 30s, or next_release",
                        r"^([0-9]+(s|m|h)|next_release)$",
                        default="30s",
                        examples=["next_release"],
                    ),
                },
            ),
            kind(
                "canary",
                "A second Deployment with a share of the replicas.",
                {
                    "steps": items(
                        "Percent of the replicas that are new, rising to 100.",
                        whole("A share.", "percent", 1, 100),
                        "a list of percentages",
                        minItems=1,
                        default=[10, 50, 100],
                        examples=[[10, 50, 100]],
                    ),
                    "pause": duration("How long each step is watched before the next.", default="60s", examples=["5m"]),
                },
            ),
        ],
    }


def _gpu() -> Schema:
    return keys(
        "GPUs for each pod; the environment must count on `gpu`. Tolerates the taint of GPU nodes. Default: none.",
        {
            "count": whole("How many for each pod.", "GPUs", 1, default=1, examples=[1]),
            "required": switch(
                "Whether it cannot do without. If not, it runs on CPU where the environment does not count on `gpu`.",
                True,
            ),
            "resource": text(
                "The extended resource, which is also the taint's key.",
                "a resource name such as nvidia.com/gpu",
                LABEL_KEY,
                default="nvidia.com/gpu",
                examples=["nvidia.com/gpu"],
            ),
        },
        examples=[{"count": 1, "required": False}],
    )


def _proxy() -> Schema:
    return keys(
        "Makes the component an nginx that routes to others: port, user and configuration are derived, and the image "
        "where none is given. Default: it is none.",
        {
            "routes": mapping(
                "Path to component; the longest path wins.",
                route(),
                URL_PATH,
                "a path such as /ws",
                default={},
                examples=[{"/": "api", "/ws": "websocket"}],
            ),
            "static": text(
                "Folder of its image whose files are served where no route matches; any other path gets its "
                "index.html, as single-page applications need. Default: none.",
                "an absolute path",
                FILE_PATH,
                examples=["/usr/share/nginx/html"],
            ),
            "compress": switch("Whether answers of text are compressed for clients that take it.", True),
            "body_limit": size("Largest request body; more is answered with 413.", default="20Mi", examples=["20Mi"]),
            "read_timeout": duration("How long a component may take to answer.", default="60s", examples=["60s"]),
            "session_timeout": duration("How long a WebSocket may be silent.", default="1h", examples=["1h"]),
        },
        examples=[{"routes": {"/": "api", "/ws": "websocket"}}],
    )
