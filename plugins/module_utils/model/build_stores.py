# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores, from checked plain data with all defaults."""

from __future__ import annotations

from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.model import types
from ansible_collections.groundwork.platform.plugins.module_utils.model.build_parts import (
    full_image,
    optional,
    resources,
    scaling,
    texts,
    vertical,
)
from ansible_collections.groundwork.platform.plugins.module_utils.model.quantities import number_of_bytes, seconds

Plain = dict[str, Any]


def store(name: str, data: Plain, namespace: str, root: Plain) -> types.AnyStore:
    """Build one store."""
    image = data.get("image")
    common: Plain = {
        "name": name,
        "size": number_of_bytes(data["size"]),
        "storage_class": data.get("storage_class"),
        "resources": resources(data["resources"]),
        "image": full_image(image, root.get("registry")) if image else None,
        "vertical": vertical(data["vertical"]) if "vertical" in data else None,
        "priority": data.get("priority"),
    }
    if data["type"] == "redis":
        return _redis(common, data)
    if data["type"] == "influxdb":
        return _influxdb(common, data, namespace)
    return _postgresql(common, data, namespace)


def _postgresql(common: Plain, data: Plain, namespace: str) -> types.PostgreSQL:
    database: str = data.get("database") or _identifier(namespace)
    range_ = scaling(data)
    return types.PostgreSQL(
        **common,
        instances=range_.smallest,
        synchronous_replicas=data["synchronous_replicas"],
        database=database,
        owner=data.get("owner") or database,
        parameters=texts(data["parameters"]),
        scaling=range_,
        extensions=tuple(sorted(data["extensions"])),
        pooler=types.Pooler(**data["pooler"]) if "pooler" in data else None,
        backup=_backup(data["backup"]) if "backup" in data else None,
    )


def _backup(data: Plain) -> types.Backup:
    return types.Backup(data.get("schedule"), data["point_in_time"], data.get("dump"), seconds(data["retention"]))


def _redis(common: Plain, data: Plain) -> types.Redis:
    nodes = data["masters"] * (1 + data["replicas_per_master"])
    return types.Redis(
        **common,
        mode=data["mode"],
        eviction=data["eviction"],
        replicas=data["replicas"],
        masters=data["masters"],
        replicas_per_master=data["replicas_per_master"],
        max_nodes=data.get("max_nodes", nodes),
        max_memory=optional(data, "max_memory", number_of_bytes),
        append_only=data["append_only"],
        snapshots=data["snapshots"],
        keepalive=seconds(data["keepalive"]),
        env_prefix=data["env_prefix"],
    )


def _influxdb(common: Plain, data: Plain, namespace: str) -> types.InfluxDB:
    return types.InfluxDB(
        **common,
        version=data["version"],
        database=data.get("database") or _identifier(namespace),
        retention=seconds(data["retention"]),
        downsampling={
            name: types.Downsampling(seconds(copy["every"]), seconds(copy["keep"]))
            for name, copy in sorted(data["downsampling"].items())
        },
        shorter_retention=data["shorter_retention"],
        env_prefix=data["env_prefix"],
    )


def _identifier(namespace: str) -> str:
    name = namespace.replace("-", "_")
    return name if name[0].isalpha() else f"db_{name}"
