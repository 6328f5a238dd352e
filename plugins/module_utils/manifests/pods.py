# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of pods that hold for every workload: security, placement, probes, and how a store is reached."""

from __future__ import annotations

from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.manifests.common import Context, Manifest
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import (
    AnyStore,
    InfluxDB,
    PostgreSQL,
    Redis,
)

CERTIFICATES = "/etc/groundwork/{store}-ca"
"""Folder in which a component finds the certificate authority of a PostgreSQL store, as ca.crt."""
ROTATION = 10
"""Seconds that a leaving pod goes on serving, while proxies and nodes take it out of rotation."""


def container_security() -> Manifest:
    """What Pod Security "restricted" and every scanner ask of a container, and a read-only root."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }


def pod_security(user: int, volume_group: int | None = None) -> Manifest:
    """The pod's half of it.

    :param user: numeric, so that the kubelet can tell without asking the image; also the group.
    :param volume_group: owner of volumes that the pod writes to.
    """
    security: Manifest = {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if volume_group is not None:
        security |= {"fsGroup": volume_group, "fsGroupChangePolicy": "OnRootMismatch"}
    return security


def spread(selector: dict[str, str], by_revision: bool) -> Manifest:
    """Over zones and nodes where there are several, without keeping a pod from starting where there are not.

    :param by_revision: count only pods of the same revision, so that a rollout's old pods do not tilt the new ones.
    """
    revision = {"matchLabelKeys": ["pod-template-hash"]} if by_revision else {}
    return {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector},
                **revision,
            }
            for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
        ],
        "affinity": {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 100,
                        "podAffinityTerm": {"labelSelector": {"matchLabels": selector}, "topologyKey": key},
                    }
                    for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
                ]
            }
        },
    }


def http_probes(port: str, live: str, ready: str, startup: int) -> Manifest:
    """Readiness quick to notice, liveness slow to judge, and a start that may take its time.

    :param startup: seconds until a container that does not answer is restarted.
    """
    return {
        "startupProbe": {
            "httpGet": {"path": live, "port": port, "scheme": "HTTP"},
            "periodSeconds": 1,
            "timeoutSeconds": 3,
            "successThreshold": 1,
            "failureThreshold": max(startup, 1),
        },
        "readinessProbe": {
            "httpGet": {"path": ready, "port": port, "scheme": "HTTP"},
            "periodSeconds": 3,
            "timeoutSeconds": 3,
            "successThreshold": 1,
            "failureThreshold": 3,
        },
        "livenessProbe": {
            "httpGet": {"path": live, "port": port, "scheme": "HTTP"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "successThreshold": 1,
            "failureThreshold": 3,
        },
    }


def temporary(size: str) -> Manifest:
    """The one place where a container with a read-only root may write."""
    return {"name": "tmp", "emptyDir": {"sizeLimit": size}}


def base_spec(context: Context, name: str) -> Manifest:
    """What every pod of ours starts with."""
    return {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
    }


def store_environment(context: Context, names: tuple[str, ...]) -> list[Manifest]:
    """Variables by which a component reaches the stores that it talks to; secrets by reference."""
    environment: list[Manifest] = []
    for store in _stores(context, names):
        if isinstance(store, PostgreSQL):
            environment += _postgresql(store)
        elif isinstance(store, Redis):
            environment += _redis(store)
        else:
            environment += _influxdb(store)
    return environment


def store_volumes(context: Context, names: tuple[str, ...]) -> tuple[list[Manifest], list[Manifest]]:
    """Volumes and mounts with the certificate authorities of the stores; never their keys, which lie beside them."""
    volumes, mounts = [], []
    for store in _stores(context, names):
        if isinstance(store, PostgreSQL):
            name = f"{store.name}-ca"
            items = [{"key": "ca.crt", "path": "ca.crt"}]
            volumes.append({"name": name, "secret": {"secretName": name, "items": items, "defaultMode": 0o444}})
            mounts.append({"name": name, "mountPath": CERTIFICATES.format(store=store.name), "readOnly": True})
    return volumes, mounts


def redis_secret(store: Redis) -> str:
    """Name of the Secret with a Redis store's password."""
    return f"{store.name}-auth"


def influxdb_secret(store: InfluxDB) -> str:
    """Name of the Secret with an InfluxDB store's passwords."""
    return f"{store.name}-auth"


def _stores(context: Context, names: tuple[str, ...]) -> list[AnyStore]:
    return [store for name, store in context.system.stores.items() if name in names]


def _postgresql(store: PostgreSQL) -> list[Manifest]:
    secret = f"{store.name}-app"
    return [
        _value("PGHOST", f"{store.name}-rw"),
        _value("PGPORT", "5432"),
        _value("PGDATABASE", store.database),
        _secret("PGUSER", secret, "username"),
        _secret("PGPASSWORD", secret, "password"),
        _value("PGSSLMODE", "verify-full"),
        _value("PGSSLROOTCERT", CERTIFICATES.format(store=store.name) + "/ca.crt"),
    ]


def _redis(store: Redis) -> list[Manifest]:
    return [
        _value(f"{store.env_prefix}_HOST", store.name),
        _value(f"{store.env_prefix}_PORT", "6379"),
        _secret(f"{store.env_prefix}_PASSWORD", redis_secret(store), "password"),
    ]


def _influxdb(store: InfluxDB) -> list[Manifest]:
    """A user that can write and query one database and nothing else, in both versions."""
    prefix = store.env_prefix
    return [
        _value(f"{prefix}_VERSION", store.version),
        _value(f"{prefix}_URL", f"http://{store.name}:8086"),
        _value(f"{prefix}_BUCKET", f"{store.database}/{store.RAW}"),
        _value(f"{prefix}_USER", "app"),
        _secret(f"{prefix}_PASSWORD", influxdb_secret(store), "password"),
    ]


def _value(name: str, value: str) -> Manifest:
    return {"name": name, "value": value}


def _secret(name: str, secret: str, key: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
