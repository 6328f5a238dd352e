# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""InfluxDB as one StatefulSet of one server, which its open version is, and a Job that sets it up.

There is no disruption budget: one of a lone server would keep its node from ever being drained.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.manifests import foundation, influxdb_setup, pods
from ansible_collections.groundwork.platform.plugins.module_utils.manifests.common import (
    CONFIG_CHECKSUM,
    ON_ROLLBACK,
    Context,
    Manifest,
    checksum,
    container_resources,
    version_of,
)
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import InfluxDB

USER = 10986
"""Above the users that nodes have themselves, and so another than the image's own, which nothing in it needs."""
PORT = 8086
_PINNED = {"1": "influxdb_1", "2": "influxdb"}
_CONFIG_FOLDER = "/etc/groundwork/influxdb"
_DATA = "/var/lib/influxdb"


def influxdb_objects(context: Context, store: InfluxDB) -> list[Manifest]:
    """Configuration, Services, the server, and its setup."""
    config = {"influxdb.conf": _configuration(store)} if store.version == "1" else {}
    setup = influxdb_setup.files(store)
    return [
        *([_config_map(context, store, f"{store.name}-config", config)] if config else []),
        _config_map(context, store, setup_name(store), setup),
        *_services(context, store),
        _stateful_set(context, store, config),
        _setup_job(context, store, setup),
    ]


def influxdb_secret(context: Context, store: InfluxDB) -> dict[str, Any]:
    """The passwords, and version 2's token of the administrator, as the module generated_secret takes them."""
    keys = {"admin-password": 32, "password": 32}
    if store.version == "2":
        keys["admin-token"] = 64
    return {
        "name": pods.influxdb_secret(store),
        "labels": context.labels(store.name, "timeseries"),
        "keys": {name: {"length": length, "alphabet": "alphanumeric"} for name, length in keys.items()},
    }


def setup_name(store: InfluxDB) -> str:
    """Name of the setup's service account, policy and ConfigMap; its Job's begins with it."""
    return f"{store.name}-setup"


def labels_of(context: Context, store: InfluxDB, name: str = "") -> dict[str, str]:
    """Labels of the store's objects, or of those of its setup.

    :param name: of the part; the store's own where none is given.
    """
    return context.labels(name or store.name, "timeseries", version_of(_published(context, store)))


def _published(context: Context, store: InfluxDB) -> str:
    return store.image or context.pinned_image(_PINNED[store.version])


def _config_map(context: Context, store: InfluxDB, name: str, data: dict[str, str]) -> Manifest:
    made = context.object("v1", "ConfigMap", name, labels_of(context, store))
    made["data"] = data
    return made


def _services(context: Context, store: InfluxDB) -> list[Manifest]:
    """One for clients and scraping, and the headless one that a StatefulSet must have."""
    services = []
    for name, more in ((store.name, {}), (f"{store.name}-nodes", {"clusterIP": "None"})):
        made = context.object("v1", "Service", name, labels_of(context, store))
        made["spec"] = {
            "type": "ClusterIP",
            **more,
            "selector": context.selector(store.name),
            "ports": [
                {"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"},
            ],
        }
        services.append(made)
    return services


def _stateful_set(context: Context, store: InfluxDB, config: dict[str, str]) -> Manifest:
    labels = labels_of(context, store)
    annotations = {"annotations": {CONFIG_CHECKSUM: checksum(config)}} if config else {}
    made = context.object("apps/v1", "StatefulSet", store.name, labels)
    made["spec"] = {
        "replicas": 1,
        "serviceName": f"{store.name}-nodes",
        "revisionHistoryLimit": 5,
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate"},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "selector": {"matchLabels": context.selector(store.name)},
        "template": {"metadata": {"labels": labels, **annotations}, "spec": _pod(context, store, bool(config))},
        "volumeClaimTemplates": [
            {
                "metadata": {"name": "data", "labels": context.selector(store.name)},
                "spec": foundation.claim_spec(store.size, store.storage_class),
            }
        ],
    }
    return made


def _pod(context: Context, store: InfluxDB, configured: bool) -> Manifest:
    config = {"name": "config", "configMap": {"name": f"{store.name}-config", "defaultMode": 0o444}}
    return {
        **pods.base_spec(context, store.name),
        # What is in memory only is written to the log before it is acknowledged, but a clean end starts faster.
        "terminationGracePeriodSeconds": 60,
        "securityContext": pods.pod_security(USER, volume_group=USER),
        **pods.spread(context.selector(store.name), by_revision=False),
        "containers": [_container(context, store, configured)],
        "volumes": [pods.temporary("64Mi"), *([config] if configured else [])],
    }


def _container(context: Context, store: InfluxDB, configured: bool) -> Manifest:
    image = context.image(_published(context, store))
    ready = "/ping" if store.version == "1" else "/health"
    config = {"name": "config", "mountPath": _CONFIG_FOLDER, "readOnly": True}
    probes = pods.http_probes("http", "/ping", ready, startup=600)
    return {
        "name": "influxdb",
        "image": image,
        "imagePullPolicy": context.pull_policy(image),
        # Not the image's entry point, which writes where the root is read-only.
        "command": ["influxd", *(["-config", f"{_CONFIG_FOLDER}/influxdb.conf"] if configured else [])],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        # Logs of a large volume take long to read back; a restart in the middle would only begin anew.
        **probes,
        "env": _environment(store),
        "resources": container_resources(store.resources),
        "securityContext": pods.container_security(),
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a path in the container
            {"name": "data", "mountPath": _DATA},
            *([config] if configured else []),
        ],
    }


def _environment(store: InfluxDB) -> list[Manifest]:
    # The collector's target, below the limit that would kill: files are mapped into memory beside it.
    values = {"GOMEMLIMIT": f"{store.resources.memory.limit * 7 // 10}"}
    if store.version == "2":
        values |= {
            "INFLUXD_BOLT_PATH": f"{_DATA}/influxd.bolt",
            "INFLUXD_ENGINE_PATH": f"{_DATA}/engine",
            "INFLUXD_HARDENING_ENABLED": "true",
            "INFLUXD_HTTP_BIND_ADDRESS": f":{PORT}",
            "INFLUXD_PPROF_DISABLED": "true",
            "INFLUXD_REPORTING_DISABLED": "true",
            "INFLUXD_SQLITE_PATH": f"{_DATA}/influxd.sqlite",
            "INFLUXD_STORAGE_CACHE_MAX_MEMORY_SIZE": str(_cache(store)),
            "INFLUXD_UI_DISABLED": "true",
        }
    return [{"name": name, "value": value} for name, value in sorted(values.items())]


def _cache(store: InfluxDB) -> int:
    """Bytes of a shard that may be in memory only, before writes are refused: InfluxDB's own gigabyte is too much."""
    return max(store.resources.memory.limit // 4, 32 * 1024**2)


def _configuration(store: InfluxDB) -> str:
    return _CONFIG.format(data=_DATA, port=PORT, cache=_cache(store), snapshot=min(_cache(store) // 4, 25 * 1024**2))


def _setup_job(context: Context, store: InfluxDB, files: dict[str, str]) -> Manifest:
    """The Job; another name for other contents, since a Job cannot be changed.

    The earlier one goes when the release is recorded. Only a refusal fails it for good: everything else is waited for.
    A return to an earlier release does not run that one's again, which could shorten what was made longer since.
    """
    name = setup_name(store)
    labels = labels_of(context, store, name)
    digest = checksum({**files, "shorter": store.shorter_retention, "image": _published(context, store)})[:8]
    made = context.object("batch/v1", "Job", f"{name}-{digest}", labels, {ON_ROLLBACK: "stays"})
    refused = {"containerName": "setup", "operator": "In", "values": [influxdb_setup.REFUSED]}
    made["spec"] = {
        "backoffLimit": 6,
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onExitCodes": refused},
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        "template": {"metadata": {"labels": labels}, "spec": _setup_pod(context, store)},
    }
    return made


def _setup_pod(context: Context, store: InfluxDB) -> Manifest:
    image = context.image(_published(context, store))
    name = setup_name(store)
    values = {
        "SERVER": store.name,
        "PORT": str(PORT),
        "DATABASE": store.database,
        "AUTH": influxdb_setup.AUTH,
        "SHORTER": store.shorter_retention,
    }
    return {
        **pods.base_spec(context, name),
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 5,
        "securityContext": pods.pod_security(USER, volume_group=USER),
        "containers": [
            {
                "name": "setup",
                "image": image,
                "imagePullPolicy": context.pull_policy(image),
                "command": ["/bin/sh", f"{influxdb_setup.FOLDER}/setup.sh"],
                "env": [{"name": key, "value": value} for key, value in values.items()],
                "resources": container_resources(foundation.INFLUXDB_SETUP),
                "securityContext": pods.container_security(),
                # So that what it refuses is in the pod's status, and the gate says it.
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a path in the container
                    {"name": "setup", "mountPath": influxdb_setup.FOLDER, "readOnly": True},
                    {"name": "auth", "mountPath": influxdb_setup.AUTH, "readOnly": True},
                ],
            }
        ],
        "volumes": [
            pods.temporary("16Mi"),
            {"name": "setup", "configMap": {"name": name, "defaultMode": 0o444}},
            {"name": "auth", "secret": {"secretName": pods.influxdb_secret(store), "defaultMode": 0o440}},
        ],
    }


_CONFIG = """\
# Written by groundwork.platform.
reporting-disabled = true
bind-address = "127.0.0.1:8088"

[meta]
  dir = "{data}/meta"
  retention-autocreate = false

[data]
  dir = "{data}/data"
  wal-dir = "{data}/wal"
  index-version = "tsi1"
  cache-max-memory-size = {cache}
  cache-snapshot-memory-size = {snapshot}
  query-log-enabled = false

[monitor]
  store-enabled = false

[http]
  bind-address = ":{port}"
  auth-enabled = true
  log-enabled = false
  pprof-enabled = false

[continuous_queries]
  log-enabled = false
  run-interval = "1s"
"""
