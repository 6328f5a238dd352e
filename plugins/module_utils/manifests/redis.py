# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Redis as one StatefulSet of one server, on the official image or Debian's."""

from __future__ import annotations

from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.manifests import foundation, pods
from ansible_collections.groundwork.platform.plugins.module_utils.manifests.common import (
    CONFIG_CHECKSUM,
    Context,
    Manifest,
    checksum,
    container_resources,
    version_of,
)
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import Redis

USER = 10999
"""Above the users that nodes have themselves, and so another than the image's own, which nothing in it needs."""
PORT = 6379
_FOLDER = "/etc/groundwork/redis"


def redis_objects(context: Context, store: Redis) -> list[Manifest]:
    """Configuration, Services and the server."""
    config = _files(store)
    return [_config(context, store, config), *_services(context, store), _stateful_set(context, store, config)]


def redis_secret(context: Context, store: Redis) -> dict[str, Any]:
    """The password, as the module generated_secret takes it."""
    return {
        "name": pods.redis_secret(store),
        "labels": context.labels(store.name, "cache"),
        "keys": {"password": {"length": 32, "alphabet": "alphanumeric"}},
    }


def _files(store: Redis) -> dict[str, str]:
    # A fork for the snapshot and the clients' buffers need the rest.
    memory = store.resources.memory.limit * 7 // 10
    return {
        "redis.conf": _CONFIG.format(memory=memory, eviction=store.eviction),
        "start.sh": _START,
        "check.sh": _CHECK,
    }


def _labels(context: Context, store: Redis) -> dict[str, str]:
    return context.labels(store.name, "cache", version_of(store.image or context.pinned_image("redis")))


def _config(context: Context, store: Redis, files: dict[str, str]) -> Manifest:
    made = context.object("v1", "ConfigMap", f"{store.name}-config", _labels(context, store))
    made["data"] = files
    return made


def _services(context: Context, store: Redis) -> list[Manifest]:
    """One for clients, and a headless one that gives each server a name of its own."""
    services = []
    for name, more in ((store.name, {}), (f"{store.name}-nodes", {"clusterIP": "None"})):
        made = context.object("v1", "Service", name, _labels(context, store))
        made["spec"] = {
            "type": "ClusterIP",
            **more,
            "selector": context.selector(store.name),
            "ports": [{"name": "redis", "port": PORT, "targetPort": "redis", "protocol": "TCP"}],
        }
        services.append(made)
    return services


def _stateful_set(context: Context, store: Redis, config: dict[str, str]) -> Manifest:
    labels = _labels(context, store)
    made = context.object("apps/v1", "StatefulSet", store.name, labels)
    made["spec"] = {
        "replicas": 1,
        "serviceName": f"{store.name}-nodes",
        "revisionHistoryLimit": 5,
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate"},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "selector": {"matchLabels": context.selector(store.name)},
        "template": {
            "metadata": {"labels": labels, "annotations": {CONFIG_CHECKSUM: checksum(config)}},
            "spec": _pod(context, store),
        },
        "volumeClaimTemplates": [
            {
                "metadata": {"name": "data", "labels": context.selector(store.name)},
                "spec": foundation.claim_spec(store.size, store.storage_class),
            }
        ],
    }
    return made


def _pod(context: Context, store: Redis) -> Manifest:
    return {
        **pods.base_spec(context, store.name),
        "terminationGracePeriodSeconds": 60,
        "securityContext": pods.pod_security(USER, volume_group=USER),
        **pods.spread(context.selector(store.name), by_revision=False),
        "containers": [_container(context, store)],
        "volumes": [
            pods.temporary("64Mi"),
            {"name": "config", "configMap": {"name": f"{store.name}-config", "defaultMode": 0o444}},
            {"name": "auth", "secret": {"secretName": pods.redis_secret(store), "defaultMode": 0o440}},
        ],
    }


def _container(context: Context, store: Redis) -> Manifest:
    image = context.image(store.image or context.pinned_image("redis"))
    probe = {"exec": {"command": ["/bin/sh", f"{_FOLDER}/check.sh"]}, "timeoutSeconds": 5, "successThreshold": 1}
    return {
        "name": "redis",
        "image": image,
        "imagePullPolicy": context.pull_policy(image),
        "command": ["/bin/sh", f"{_FOLDER}/start.sh"],
        "ports": [{"name": "redis", "containerPort": PORT, "protocol": "TCP"}],
        # Long enough to load a file as large as the volume; a restart in the middle would only begin anew.
        "startupProbe": {**probe, "periodSeconds": 2, "failureThreshold": 150},
        "readinessProbe": {**probe, "periodSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {
            "tcpSocket": {"port": "redis"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "successThreshold": 1,
            "failureThreshold": 3,
        },
        "resources": container_resources(store.resources),
        "securityContext": pods.container_security(),
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a path in the container
            {"name": "data", "mountPath": "/data"},
            {"name": "config", "mountPath": _FOLDER, "readOnly": True},
            {"name": "auth", "mountPath": "/etc/groundwork/redis-auth", "readOnly": True},
        ],
    }


_CONFIG = """\
# Written by groundwork.platform; the password is added at the start, from its Secret.
bind * -::*
port 6379
protected-mode yes
dir /data
appendonly yes
appendfsync everysec
aof-use-rdb-preamble yes
save 3600 1 300 100
maxmemory {memory}
maxmemory-policy {eviction}
tcp-keepalive 60
timeout 0
"""

_START = """\
#!/bin/sh
# Written by groundwork.platform. Neither a command line nor an environment that others can read gets the password.
set -eu
umask 077
mkdir -p /tmp/redis
printf 'requirepass %s\\nmasterauth %s\\n' \\
  "$(cat /etc/groundwork/redis-auth/password)" "$(cat /etc/groundwork/redis-auth/password)" >/tmp/redis/auth.conf
cat /etc/groundwork/redis/redis.conf /tmp/redis/auth.conf >/tmp/redis/redis.conf
exec redis-server /tmp/redis/redis.conf
"""

_CHECK = """\
#!/bin/sh
# Written by groundwork.platform. Ready once it answers: while it loads its file it refuses.
set -eu
REDISCLI_AUTH=$(cat /etc/groundwork/redis-auth/password)
export REDISCLI_AUTH
[ "$(redis-cli -h 127.0.0.1 -p 6379 ping)" = PONG ]
"""
