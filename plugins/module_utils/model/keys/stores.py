# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of stores: PostgreSQL, Redis and InfluxDB."""

from __future__ import annotations

from ansible_collections.groundwork.platform.plugins.module_utils.model.keys.common import (
    A_NAME,
    DATABASE_NAME,
    DOMAIN,
    ENV_PREFIX,
    IMAGE,
    NAME,
    SERIES_NAME,
    Schema,
    choice,
    cron,
    duration,
    items,
    keys,
    mapping,
    ref,
    size,
    storage_class,
    switch,
    text,
    whole,
)

_A_DATABASE_NAME = "a lower-case name of letters, digits and underscores"


def stores() -> Schema:
    """All kinds of store."""
    return mapping(
        "Data stores, by name. The name is also that of the Service.",
        {
            "title": "a store with its type, postgresql, redis or influxdb",
            "oneOf": [_postgresql(), _redis(), _influxdb()],
        },
        NAME,
        A_NAME,
        default={},
        examples=[{"postgres": {"type": "postgresql", "instances": 3}, "redis": {"type": "redis"}}],
    )


def _common() -> Schema:
    return {
        "size": size("Size of each instance's volume.", default="10Gi", examples=["50Gi"]),
        "storage_class": storage_class(),
        "resources": ref("resources"),
        "image": text(
            "Image in place of the pinned one. Default: the pinned one.",
            "an image reference",
            IMAGE,
            examples=["docker.io/library/redis:8.0"],
        ),
        "vertical": ref("vertical"),
        "priority": text(
            "PriorityClass of its pods, which must exist. Default: the cluster's.",
            "a name",
            DOMAIN,
            examples=["stores"],
        ),
    }


def _kind(name: str) -> Schema:
    return {"description": "The kind of store.", "title": name, "const": name}


def _env_prefix(default: str, variable: str) -> Schema:
    return text(
        f"What its variables begin with in components that talk to it, as in {default}_{variable}. A component that "
        "talks to two stores of a kind needs two.",
        "upper-case letters, digits and underscores",
        ENV_PREFIX,
        default=default,
        examples=[default],
    )


def _postgresql() -> Schema:
    return keys(
        "PostgreSQL by CloudNativePG, reached over verified TLS only.",
        {
            "type": _kind("postgresql"),
            **_common(),
            "instances": _instances(),
            "scale_on": keys(
                "What the autoscaler of its instances holds, in percent of the request. It adds replicas, which serve "
                "reads: there is one primary.",
                {
                    "cpu": whole(
                        "CPU used. Default: it does not count.", "percent of the request", 1, 1000, examples=[80]
                    ),
                    "memory": whole(
                        "Memory used. Default: it does not count.", "percent of the request", 1, 1000, examples=[85]
                    ),
                },
                default={},
                examples=[{"cpu": 80, "memory": 85}],
            ),
            "synchronous_replicas": whole(
                "Replicas that must have a commit before it is acknowledged; 0 may lose the newest on a failover.",
                "replicas",
                0,
                default=0,
                examples=[1],
            ),
            "database": text(
                "Database for the application. Default: the namespace, with underscores.",
                _A_DATABASE_NAME,
                DATABASE_NAME,
                examples=["medical_inventory"],
            ),
            "owner": text(
                "Role that owns it. Default: as the database.",
                _A_DATABASE_NAME,
                DATABASE_NAME,
                examples=["inventory_user"],
            ),
            "extensions": items(
                "Extensions that are made in the database. postgis also takes the image that has it.",
                text("An extension.", "a lower-case name", r"^[a-z][a-z0-9_-]{0,62}$"),
                uniqueItems=True,
                default=[],
                examples=[["postgis"]],
            ),
            "parameters": mapping(
                "Settings of postgresql.conf. shared_buffers follows the memory request where it is not given.",
                {"type": ["string", "number", "boolean"], "title": "text, a number, true or false"},
                default={},
                examples=[{"max_connections": 200}],
            ),
            "pooler": _pooler(),
            "backup": _backup(),
        },
        required=["type"],
    )


def _instances() -> Schema:
    return {
        "description": "One primary, and replicas that can take its place: a number, or {min, max} for the autoscaler, "
        "which then needs scale_on. Unit: instances.",
        "title": "a whole number, or {min, max}",
        "default": 1,
        "examples": [3, {"min": 1, "max": 3}],
        "anyOf": [
            {"type": "integer", "title": "a whole number from 1 to 20", "minimum": 1, "maximum": 20},
            keys(
                "The autoscaler's bounds; equal bounds switch it off.",
                {
                    "min": whole("Fewest.", "instances", 1, 20, examples=[1]),
                    "max": whole("Most.", "instances", 1, 20, examples=[3]),
                },
                required=["min", "max"],
            ),
        ],
    }


def _pooler() -> Schema:
    return keys(
        "PgBouncer in front of it. Components then connect to the pooler; migrations do not. Default: there is none.",
        {
            "instances": whole("How many.", "pods", 1, 20, default=2, examples=[2]),
            "mode": choice(
                "When a connection goes back: after a transaction, or when the client leaves.",
                "transaction",
                "session",
                default="transaction",
            ),
            "max_client_connections": whole(
                "How many clients each pod takes.", "connections", 1, default=500, examples=[500]
            ),
            "pool_size": whole(
                "How many connections to the server each pod opens.", "connections", 1, default=20, examples=[50]
            ),
        },
        examples=[{"instances": 2, "max_client_connections": 500}],
    )


def _backup() -> Schema:
    return keys(
        "How it is backed up; the environment must count on `pg_backup` and name an `object_store`. "
        "Default: it is not.",
        {
            "schedule": cron("When a base backup is made. Default: none.", examples=["0 2 * * *"]),
            "point_in_time": switch("Whether every change is archived, so that any time can be restored.", True),
            "dump": cron("When pg_dump makes a logical dump beside it. Default: none.", examples=["0 2 * * *"]),
            "retention": duration("How long backups are kept.", default="30d", examples=["30d"]),
        },
        examples=[{"schedule": "0 2 * * *", "point_in_time": True}],
    )


def _redis() -> Schema:
    return keys(
        "Redis, rendered by the collection on the official image.",
        {
            "type": _kind("redis"),
            **_common(),
            "size": size("Size of each server's volume for its files.", default="1Gi", examples=["10Gi"]),
            "mode": choice(
                "One server; one primary with replicas that fails over by Sentinel; or a Redis Cluster, which splits "
                "the keys over several masters.",
                "standalone",
                "sentinel",
                "cluster",
                default="standalone",
            ),
            "replicas": whole(
                "Servers beside the primary, in mode sentinel.", "servers", 1, 8, default=2, examples=[2]
            ),
            "masters": whole(
                "Masters that share the keys, in mode cluster.", "servers", 3, 32, default=3, examples=[3]
            ),
            "replicas_per_master": whole(
                "Servers that can take each master's place, in mode cluster; without any, a server that is lost takes "
                "its keys with it.",
                "servers",
                0,
                8,
                default=1,
                examples=[1],
            ),
            "max_nodes": whole(
                "How many servers it may be scaled to, in mode cluster; the quota has room for them. Default: as many "
                "as there are.",
                "servers",
                3,
                100,
                examples=[9],
            ),
            "max_memory": size(
                "What its data may take. Default: 70 percent of the memory limit, the rest is for the fork that saves "
                "and for clients.",
                examples=["8Gi"],
            ),
            "eviction": choice(
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
            "append_only": choice(
                "How often the append-only file is made safe; never: there is none.",
                "always",
                "everysec",
                "never",
                default="everysec",
            ),
            "snapshots": switch("Whether the whole is saved from time to time beside it (RDB).", True),
            "keepalive": duration(
                "How often a silent connection is asked whether it is still there.", default="60s", examples=["60s"]
            ),
            "env_prefix": _env_prefix("REDIS", "HOST"),
        },
        required=["type"],
    )


def _influxdb() -> Schema:
    return keys(
        "InfluxDB, one server for time series.",
        {
            "type": _kind("influxdb"),
            **_common(),
            "version": choice(
                "Its major version. A volume of the other one is left as it is, and the store begins empty beside it.",
                "1",
                "2",
                default="2",
            ),
            "database": text(
                "Database for the application; buckets of version 2 are named database/policy. Default: the namespace, "
                "with underscores.",
                _A_DATABASE_NAME,
                SERIES_NAME,
                examples=["metrics"],
            ),
            "retention": duration("How long points are kept as they came.", default="30d", examples=["30d"]),
            "downsampling": mapping(
                "Averages for the long term, by name, which is that of their policy.",
                keys(
                    "One copy.",
                    {
                        "every": duration("Time that one average stands for.", examples=["1h"]),
                        "keep": duration("How long it is kept.", examples=["365d"]),
                    },
                    required=["every", "keep"],
                ),
                SERIES_NAME,
                _A_DATABASE_NAME,
                default={},
                examples=[{"hourly": {"every": "1h", "keep": "365d"}}],
            ),
            "shorter_retention": choice(
                "What becomes of a time that is shorter than the one in force: it is refused, or applied, which "
                "deletes what is older.",
                "refuse",
                "delete",
                default="refuse",
            ),
            "env_prefix": _env_prefix("INFLUX", "URL"),
        },
        required=["type"],
    )
