# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schema of system files: the one place that says which keys there are, what they mean and what they default to.

It is plain JSON Schema (draft 2020-12), published in ``schema/`` for editors. ``title`` reads as "expected <title>" in
a complaint. Cross-references, which a schema cannot say, are in ``checks``.
"""

from __future__ import annotations

import copy
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.model import quantities

Schema = dict[str, Any]

URL = "https://raw.githubusercontent.com/groundwork/platform/main/schema/{name}.schema.json"
LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
# Leaves room for what is added to it: "-nodes", a StatefulSet's ordinal, a ReplicaSet's and a pod's suffix.
NAME = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"
DOMAIN = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)*[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
IMAGE = r"^[a-z0-9][a-zA-Z0-9._/:@-]*$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
FILE_PATH = r"^/[^:]+$"
URL_PATH = r"^/[A-Za-z0-9._~/-]*$"
LABEL_KEY = r"^([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
DATABASE_NAME = r"^[a-z_][a-z0-9_]{0,62}$"
PATCH_TARGET = r"^[A-Z][A-Za-z]*/[a-z0-9][-a-z0-9.]*$"

# What an environment can count on its cluster for; `capabilities` says what becomes of each.
CAPABILITIES = {
    "apparmor": "nodes enforce AppArmor profiles",
    "certificates": "cert-manager issues certificates",
    "external_secrets": "External Secrets brings secrets from a store outside",
    "gateway": "a Gateway brings traffic in, so no NodePort is needed",
    "gpu": "nodes offer GPUs",
    "keda": "KEDA scales on any metric",
    "node_pools": "nodes carry pool labels",
    "pg_backup": "PostgreSQL archives to an object store",
    "prometheus_operator": "Prometheus scrapes and alerts",
    "redis_sentinel": "Redis fails over by Sentinel",
    "snapshots": "volumes can be snapshotted",
    "vpa": "the vertical autoscaler recommends resources",
}


def _text(description: str, title: str = "text", pattern: str = "", **more: Any) -> Schema:
    return {
        "description": description,
        "type": "string",
        "title": title,
        **({"pattern": pattern} if pattern else {}),
        **more,
    }


def _whole(description: str, minimum: int = 0, maximum: int | None = None, **more: Any) -> Schema:
    title = f"a whole number of at least {minimum}"
    if maximum is not None:
        title = f"a whole number from {minimum} to {maximum}"
        more["maximum"] = maximum
    return {"description": description, "type": "integer", "title": title, "minimum": minimum, **more}


def _switch(description: str, default: bool) -> Schema:
    return {"description": description, "type": "boolean", "title": "true or false", "default": default}


def _duration(description: str, **more: Any) -> Schema:
    return _text(description, "a duration with its unit, such as 30s, 5m or 1h", quantities.DURATION, **more)


def _bytes(description: str, **more: Any) -> Schema:
    return _text(description, "an amount with its unit, such as 512Mi or 10Gi", quantities.BYTES, **more)


def _choice(description: str, *values: str, **more: Any) -> Schema:
    return {"description": description, "type": "string", "title": _either(values), "enum": list(values), **more}


def _either(values: tuple[str, ...]) -> str:
    return ", ".join(values[:-1]) + " or " + values[-1]


def _list(description: str, items: Schema, title: str = "a list of text", **more: Any) -> Schema:
    return {"description": description, "type": "array", "title": title, "items": items, **more}


def _map(description: str, values: Schema, names: str = "", names_title: str = "", **more: Any) -> Schema:
    schema: Schema = {"description": description, "type": "object", "title": "a map", "additionalProperties": values}
    if names:
        schema["propertyNames"] = {"type": "string", "pattern": names, "title": names_title}
    return {**schema, **more}


def _keys(description: str, properties: Schema, **more: Any) -> Schema:
    return {
        "description": description,
        "type": "object",
        "title": "a map",
        "additionalProperties": False,
        "properties": properties,
        **more,
    }


def _ref(name: str, **more: Any) -> Schema:
    return {"$ref": f"#/$defs/{name}", **more}


_A_NAME = "a lower-case name of letters, digits and hyphens, at most 40, starting with a letter"


def _amount_definition(title: str, single: Schema, description: str) -> Schema:
    return {
        "description": description,
        "title": title,
        "anyOf": [
            single,
            {"type": "array", "title": title, "items": single, "minItems": 2, "maxItems": 2},
        ],
    }


def _definitions() -> Schema:
    cpu = {
        "title": "an amount of CPU, such as 500m or 2, or [request, limit]",
        "anyOf": [
            {"type": "string", "title": "an amount of CPU, such as 500m or 2", "pattern": quantities.CPU},
            {"type": "number", "title": "an amount of CPU, such as 500m or 2", "exclusiveMinimum": 0},
        ],
    }
    single_bytes = {"type": "string", "title": "an amount with its unit, such as 512Mi", "pattern": quantities.BYTES}
    return {
        "cpu": {
            "description": "CPU as [request, limit], or one amount for both. Unit: cores, or thousandths with m.",
            "title": cpu["title"],
            "anyOf": [
                *cpu["anyOf"],
                {"type": "array", "title": cpu["title"], "items": cpu, "minItems": 2, "maxItems": 2},
            ],
            "examples": [["500m", "2"], "1"],
        },
        "bytes": {
            **_amount_definition(
                "an amount with its unit, such as 512Mi, or [request, limit]",
                single_bytes,
                "Bytes as [request, limit], or one amount for both, with a unit.",
            ),
            "examples": [["1Gi", "2Gi"], "512Mi"],
        },
        "resources": _keys(
            "What one pod asks for and may use, each as [request, limit].",
            {
                "cpu": _ref("cpu", default=["100m", "500m"]),
                "memory": _ref("bytes", default=["128Mi", "256Mi"]),
                "ephemeral_storage": _ref(
                    "bytes",
                    description="Local disk for logs and temporary files as [request, limit].",
                    default=["64Mi", "512Mi"],
                ),
            },
            default={},
        ),
        "env": _map(
            "Environment variables. Values that are secret do not belong here: stores bring theirs by reference.",
            # No fractions: 1.10 would arrive as 1.1.
            {"type": ["string", "integer", "boolean"], "title": "text, a whole number, true or false; quote others"},
            ENV_NAME,
            "the name of an environment variable",
            default={},
            examples=[{"LOG_LEVEL": "info"}],
        ),
        "scale_rule": _keys(
            "How fast the autoscaler may go in one direction. Without it Kubernetes' own defaults hold.",
            {
                "stabilize": _duration(
                    "Time over which the most careful recommendation wins before a change.", default="0s"
                ),
                "policies": _list(
                    "What may be added or removed within a time.",
                    {
                        "title": "percent or pods, and every",
                        "anyOf": [
                            _keys(
                                "A share of the present replicas.",
                                {
                                    "percent": _whole("Percent of the present replicas.", 1),
                                    "every": _duration("Time in which that much may change, at most 30m."),
                                },
                                required=["percent", "every"],
                            ),
                            _keys(
                                "A number of pods.",
                                {
                                    "pods": _whole("Number of pods.", 1),
                                    "every": _duration("Time in which that many may change, at most 30m."),
                                },
                                required=["pods", "every"],
                            ),
                        ],
                    },
                    "a list of policies such as {percent: 100, every: 30s}",
                    minItems=1,
                ),
                "select": _choice(
                    "Which policy counts where several are given: the one that changes most, or least.",
                    "max",
                    "min",
                    default="max",
                ),
            },
            required=["policies"],
            examples=[{"stabilize": "5m", "policies": [{"percent": 50, "every": "60s"}], "select": "min"}],
        ),
    }


def _replicas() -> Schema:
    return {
        "description": "How many pods: a number, or {min, max} for the autoscaler, which then needs scale_on.",
        "title": "a whole number, or {min, max}",
        "default": 1,
        "examples": [2, {"min": 2, "max": 20}],
        "anyOf": [
            {"type": "integer", "title": "a whole number, or {min, max}", "minimum": 0},
            _keys(
                "The autoscaler's bounds; equal bounds switch it off.",
                {"min": _whole("Fewest pods.", 1), "max": _whole("Most pods.", 1)},
                required=["min", "max"],
            ),
        ],
    }


def _strategy() -> Schema:
    def kind(name: str, description: str, properties: Schema) -> Schema:
        fixed = {"description": "How new versions take over.", "title": name, "const": name}
        return _keys(description, {"type": fixed, **properties}, required=["type"])

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
                    "keep_old": _text(
                        "How long the old pods go on running after the switch, while the new ones are watched; or "
                        "next_release, for a rollback at once at the price of twice the pods.",
                        "a duration such as 30s, or next_release",
                        r"^([0-9]+(s|m|h)|next_release)$",
                        default="30s",
                    ),
                },
            ),
            kind(
                "canary",
                "A second Deployment with a share of the replicas.",
                {
                    "steps": _list(
                        "Percent of the replicas that are new, rising to 100.",
                        _whole("Percent.", 1, 100),
                        "a list of percentages",
                        minItems=1,
                        default=[10, 50, 100],
                    ),
                    "pause": _duration("How long each step is watched before the next.", default="60s"),
                },
            ),
        ],
    }


def _route() -> Schema:
    return {
        "title": "the name of a component, or {to, strip_prefix}",
        "anyOf": [
            {"type": "string", "title": "the name of a component, or {to, strip_prefix}", "pattern": NAME},
            _keys(
                "Where requests below the path go.",
                {
                    "to": _text("The component.", _A_NAME, NAME),
                    "strip_prefix": _switch("Whether the component sees the path without the prefix.", False),
                },
                required=["to"],
            ),
        ],
    }


def _component() -> Schema:
    return _keys(
        "One workload: pods that run one image with one command.",
        {
            "enabled": _switch("Whether it runs in this environment. Routes to it, and talks_to it, go with it.", True),
            "image": _text(
                "Its image. Without a registry in front, that of `registry` is put there. Default: the system's image.",
                "an image reference",
                IMAGE,
                examples=["medical-inventory/api:1.0.0"],
            ),
            "command": _list("Replaces the image's entry point.", _text("A word."), examples=[["python", "main.py"]]),
            "args": _list("Replaces the image's arguments.", _text("A word."), examples=[["serve", "api"]]),
            "user": _whole("Numeric user and group of its processes; never 0.", 1, default=10001),
            "port": _whole("Port on which it answers HTTP. Without one it gets no Service and no probes.", 1, 65535),
            "env": _ref("env"),
            "resources": _ref("resources"),
            "replicas": _replicas(),
            "scale_on": _keys(
                "What the autoscaler holds, in percent of the request, averaged over the pods.",
                {
                    "cpu": _whole("Percent of the CPU request.", 1, 1000, examples=[70]),
                    "memory": _whole("Percent of the memory request.", 1, 1000, examples=[80]),
                },
                default={},
                examples=[{"cpu": 70, "memory": 80}],
            ),
            "scale_up": _ref("scale_rule"),
            "scale_down": _ref("scale_rule"),
            "strategy": _strategy(),
            "keep_available": _whole(
                "Pods that must stay while nodes are drained. Default: all but one.", 1, examples=[2]
            ),
            "sticky": _switch(
                "Whether a client stays on its replica: a proxy chooses it by the cookie gw_session and consistent "
                "hash over the pods.",
                False,
            ),
            "health": _keys(
                "Its probes, on its port.",
                {
                    "live": _text(
                        "Path that answers while the process is alive.", "a path", URL_PATH, default="/healthz"
                    ),
                    "ready": _text(
                        "Path that answers once its stores are reachable.", "a path", URL_PATH, default="/readyz"
                    ),
                    "startup": _duration("How long it may take to start before it is restarted.", default="2m"),
                },
                default={},
            ),
            "drain": _duration(
                "Time that requests under way get to end once a pod leaves, beside the 10 s that all get to be "
                "taken out of rotation.",
                default="30s",
            ),
            "talks_to": _list(
                "Components and stores that it connects to. All other traffic is refused, and a store's address, "
                "name and password arrive as environment variables.",
                _text("A component or store.", _A_NAME, NAME),
                "a list of names of components and stores",
                uniqueItems=True,
                default=[],
                examples=[["postgres", "redis"]],
            ),
            "volumes": _map(
                "Shared volumes that it mounts, always read-only: name of the volume to path in the container.",
                _text("Where it is mounted.", "an absolute path", FILE_PATH),
                NAME,
                _A_NAME,
                default={},
                examples=[{"models": "/app/models"}],
            ),
            "gpu": _keys(
                "GPUs for each pod; the environment must count on `gpu`. Tolerates the taint of GPU nodes.",
                {
                    "count": _whole("GPUs for each pod.", 1, default=1),
                    "resource": _text(
                        "The extended resource, which is also the taint's key.",
                        "a resource name such as nvidia.com/gpu",
                        LABEL_KEY,
                        default="nvidia.com/gpu",
                    ),
                },
            ),
            "node_labels": _map(
                "Labels that its nodes must have.",
                _text("The label's value.", "the value of a label", LABEL_VALUE),
                LABEL_KEY,
                "the key of a label",
                default={},
                examples=[{"accelerator": "nvidia-tesla-gpu"}],
            ),
            "proxy": _proxy(),
            "public": _keys(
                "Makes it reachable from outside of the cluster.",
                {
                    "host": _text(
                        "Name in front of the environment's `domain`.", "a DNS label", LABEL, examples=["inventory"]
                    ),
                    "node_port": _whole(
                        "Port on every node, for clusters without a gateway.", 30000, 32767, examples=[30080]
                    ),
                },
            ),
        },
    )


def _proxy() -> Schema:
    return _keys(
        "Makes the component an nginx that routes to others: image, port, user and configuration are derived.",
        {
            "routes": _map(
                "Path to component; the longest path wins.",
                _route(),
                URL_PATH,
                "a path such as /ws",
                minProperties=1,
                examples=[{"/": "api", "/ws": "websocket"}],
            ),
            "body_limit": _bytes("Largest request body; more is answered with 413.", default="20Mi"),
            "read_timeout": _duration("How long a component may take to answer.", default="60s"),
            "session_timeout": _duration("How long a WebSocket may be silent.", default="1h"),
        },
        required=["routes"],
    )


def _stores() -> Schema:
    common: Schema = {
        "size": _bytes("Size of each instance's volume.", default="10Gi"),
        "storage_class": _text(
            "StorageClass of its volumes. Default: the cluster's.", "a name", DOMAIN, examples=["fast-ssd"]
        ),
        "resources": _ref("resources"),
        "image": _text("Image in place of the pinned one.", "an image reference", IMAGE),
    }
    postgresql = _keys(
        "PostgreSQL by CloudNativePG, reached over verified TLS only.",
        {
            "type": {"description": "The kind of store.", "title": "postgresql", "const": "postgresql"},
            **common,
            "instances": _whole("One primary and replicas that can take its place.", 1, 20, default=1),
            "synchronous_replicas": _whole(
                "Replicas that must have a commit before it is acknowledged; 0 may lose the newest on a failover.",
                0,
                default=0,
            ),
            "database": _text(
                "Database for the application. Default: the namespace, with underscores.",
                "a lower-case name of letters, digits and underscores",
                DATABASE_NAME,
            ),
            "owner": _text(
                "Role that owns it. Default: as the database.",
                "a lower-case name of letters, digits and underscores",
                DATABASE_NAME,
            ),
            "parameters": _map(
                "Settings of postgresql.conf. shared_buffers follows the memory request where it is not given.",
                {"type": ["string", "number", "boolean"], "title": "text, a number, true or false"},
                default={},
                examples=[{"max_connections": 200}],
            ),
        },
        required=["type"],
    )
    redis = _keys(
        "Redis, rendered by the collection on the official image.",
        {
            "type": {"description": "The kind of store.", "title": "redis", "const": "redis"},
            **common,
            "size": _bytes("Size of the volume for its append-only file.", default="1Gi"),
            "mode": _choice(
                "One server, or one that fails over by Sentinel.", "standalone", "sentinel", default="standalone"
            ),
            "eviction": _choice(
                "What goes when memory is full.",
                "noeviction",
                "allkeys-lru",
                "allkeys-lfu",
                "allkeys-random",
                "volatile-lru",
                "volatile-lfu",
                "volatile-random",
                "volatile-ttl",
                default="noeviction",
            ),
        },
        required=["type"],
    )
    return _map(
        "Data stores, by name. The name is also that of the Service.",
        {"title": "a store with its type, postgresql or redis", "oneOf": [postgresql, redis]},
        NAME,
        _A_NAME,
        default={},
    )


def _guarded_migration() -> Schema:
    return {
        "tool": _choice("What migrates. Default: known by the command.", "alembic", "django", "command"),
        "store": _text("PostgreSQL store that is migrated. Default: the component's only one.", _A_NAME, NAME),
        "lock_wait": _duration("How long to wait for another migration's database lock.", default="5m"),
        "quiet_wait": _duration(
            "How long to wait for long transactions, dumps and the like to end before that is a failure.", default="0s"
        ),
        "destructive": _choice(
            "What becomes of a migration that loses data, breaks the older application or cannot be judged.",
            "refuse",
            "restore_point",
            "allow",
            default="refuse",
        ),
        "restore_point": _keys(
            "What is made before a destructive migration.",
            {
                "type": _choice(
                    "pg_dump to a volume, verified, or one's own command.", "dump", "command", default="dump"
                ),
                "size": _bytes("Size of the volume: dumps that are kept, and once the database.", default="10Gi"),
                "storage_class": _text("Storage class of the volume. Default: the cluster's.", "a name", DOMAIN),
                "keep": _whole("Dumps that are kept.", 1, 100, default=3),
                "image": _text("Image of the command.", "an image reference", IMAGE),
                "command": _list("What it runs.", _text("A word."), minItems=1),
            },
            default={},
        ),
        "expand_only": _switch(
            "Declares that it only adds to the schema, so that the release before can go on with that.",
            False,
        ),
    }


def _root() -> Schema:
    return {
        "title": "a system file",
        "description": "One system: its components, stores and migration. Environments and overrides are merged over "
        "it: maps merge, lists and scalars replace, null removes.",
        "type": "object",
        "additionalProperties": False,
        "required": ["components"],
        "properties": {
            "description": _text("What the system is, in a sentence.", default=""),
            "namespace": _text(
                "Its namespace. Default: the system's name, with hyphens.",
                "a DNS label",
                LABEL,
                examples=["medical-inventory"],
            ),
            "domain": _text(
                "Domain below which its public hosts are; usually the environment's.",
                "a domain name",
                DOMAIN,
                examples=["clinic.example"],
            ),
            "registry": _text(
                "Put in front of images that name no registry of their own.",
                "a registry, with a path if need be",
                IMAGE,
                examples=["registry.example"],
            ),
            "image": _text(
                "Image of every component that names none.",
                "an image reference",
                IMAGE,
                examples=["medical-inventory/api:1.0.0"],
            ),
            "image_pull_policy": _choice(
                "Whether nodes ask the registry again. Default: Always for tags, IfNotPresent for digests.",
                "Always",
                "IfNotPresent",
                "Never",
            ),
            "image_pull_secrets": _list(
                "Secrets with registry credentials, which exist in the namespace.",
                _text("A Secret.", "a name", DOMAIN),
                default=[],
            ),
            "env": _ref("env", description="Environment variables of every component, below those of its own."),
            "components": _map(
                "Workloads, by name. The name is also that of the Service.",
                _component(),
                NAME,
                _A_NAME,
                minProperties=1,
            ),
            "stores": _stores(),
            "volumes": _map(
                "Volumes that several components share, by name.",
                _keys(
                    "A claim.",
                    {
                        "size": _bytes("Its size."),
                        "access": _list(
                            "Access modes of the claim. ReadOnlyMany serves readers; whoever publishes needs another.",
                            _choice("A mode.", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce"),
                            "a list of access modes",
                            minItems=1,
                            uniqueItems=True,
                            default=["ReadOnlyMany", "ReadWriteMany"],
                        ),
                        "storage_class": _text(
                            "Its StorageClass. Default: the cluster's.", "a name", DOMAIN, examples=["fast-ssd"]
                        ),
                    },
                    required=["size"],
                ),
                NAME,
                _A_NAME,
                default={},
                examples=[{"models": {"size": "20Gi"}}],
            ),
            "migration": _keys(
                "What brings the database's schema to that of the release; runs once, before the components.",
                {
                    "component": _text("Component whose image and environment it runs in.", _A_NAME, NAME),
                    "command": _list(
                        "What it runs.", _text("A word."), minItems=1, examples=[["alembic", "upgrade", "head"]]
                    ),
                    "timeout": _duration("When it counts as failed.", default="30m"),
                    "lock_timeout": _duration("How long one statement may wait for a lock.", default="10s"),
                    "statement_timeout": _duration("How long one statement may run.", default="20m"),
                    "resources": _ref("resources"),
                    **_guarded_migration(),
                },
                required=["component", "command"],
            ),
            "on_failure": _choice(
                "What becomes of a release that fails: the last good one comes back, everything stays as it is, or its "
                "rollouts pause. A first release, and one whose schema forbids a return, stays.",
                "rollback",
                "keep",
                "pause",
                default="rollback",
            ),
            "capabilities": _keys(
                "What the environment counts on its cluster for. What is counted on and not served is refused.",
                {name: _switch(f"Whether {meaning}.", False) for name, meaning in CAPABILITIES.items()},
                default={},
            ),
            "network": _keys(
                "Where the few things outside of the namespace are that network policies must name.",
                {
                    "api_server_cidrs": _list(
                        "Addresses of the API server, to which PostgreSQL's instances report.",
                        _text("A network.", "a network such as 10.0.0.0/24", r"^[0-9a-fA-F.:]+/[0-9]{1,3}$"),
                        minItems=1,
                        default=["0.0.0.0/0"],
                    ),
                    "api_server_ports": _list(
                        "Its ports.", _whole("A port.", 1, 65535), "a list of ports", minItems=1, default=[443, 6443]
                    ),
                    "gateway_namespace": _text(
                        "Namespace of the gateway's pods.", "a DNS label", LABEL, default="envoy-gateway-system"
                    ),
                    "database_operator_namespace": _text(
                        "Namespace of CloudNativePG.", "a DNS label", LABEL, default="cnpg-system"
                    ),
                },
                default={},
            ),
            "quota": _keys(
                "The namespace's quota, computed from what all parts may use at their largest.",
                {"headroom": _whole("Percent on top, for helpers and rollouts.", 0, 1000, default=25)},
                default={},
            ),
            "patches": _map(
                "The way out for what has no key here: Kind/name of an object to a strategic merge patch of it. A "
                "patch that matches nothing is refused.",
                {"type": "object", "title": "a patch"},
                PATCH_TARGET,
                "Kind/name, such as Deployment/api",
                default={},
                examples=[{"Deployment/api": {"spec": {"template": {"spec": {"priorityClassName": "high"}}}}}],
            ),
        },
        "$defs": _definitions(),
    }


SCHEMA: Schema = _root()


def published(name: str = "system") -> Schema:
    """The schema as it is published.

    :param name: ``system`` for whole systems; ``environment`` for what is merged over one, where nothing is required
        and null removes.
    """
    schema = copy.deepcopy(SCHEMA)
    if name == "environment":
        schema = _loosened(schema)
        schema["title"] = "an environment's file"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": URL.format(name=name), **schema}


def _loosened(schema: Any) -> Any:
    """What of a schema holds for a layer: no key need be there, and any may be null."""
    if isinstance(schema, list):
        return [_loosened(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    loose = {}
    for key, value in schema.items():
        if key in ("required", "minProperties"):
            continue
        if key == "oneOf":
            loose["anyOf"] = _loosened(value)
        elif key in ("properties", "$defs"):
            loose[key] = {name: _loosened(below) for name, below in value.items()}
            if key == "properties":
                loose[key] = {name: _or_null(below) for name, below in loose[key].items()}
        elif key == "additionalProperties" and isinstance(value, dict):
            loose[key] = _or_null(_loosened(value))
        elif key in ("default", "examples", "enum", "const"):
            loose[key] = value
        else:
            loose[key] = _loosened(value)
    return loose


def _or_null(schema: Schema) -> Schema:
    described: Schema = {key: schema[key] for key in ("description", "default", "examples") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in described}
    return {**described, "anyOf": [rest, {"type": "null"}]}
