# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a system demands besides workloads and stores: secrets, sight, backups, cost; from checked plain data."""

from __future__ import annotations

from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.model import types
from ansible_collections.groundwork.platform.plugins.module_utils.model.build_parts import optional
from ansible_collections.groundwork.platform.plugins.module_utils.model.keys.operations import CAPABILITIES
from ansible_collections.groundwork.platform.plugins.module_utils.model.quantities import (
    milliseconds,
    number_of_bytes,
    seconds,
)

Plain = dict[str, Any]

NAMESPACE = "$namespace"
"""What stands for the namespace in queries."""


def demands(data: Plain, namespace: str) -> Plain:
    """Build all of them, by the name of the system's field."""
    return {
        "tenants": _given(data, "tenants", types.Tenants),
        "logging": _given(data, "logging", types.Logging),
        "tracing": _given(data, "tracing", types.Tracing),
        "metrics": {key: metric(key, entry, namespace) for key, entry in sorted(data["metrics"].items())},
        "alerts": {key: alert(key, entry) for key, entry in sorted(data["alerts"].items())},
        "dashboards": {
            key: types.Dashboard(key, entry["title"], tuple(entry["shows"]))
            for key, entry in sorted(data["dashboards"].items())
        },
        "objectives": objectives(data["objectives"]),
        "monitoring": monitoring(data["monitoring"]),
        "snapshots": _given(data, "snapshots", types.Snapshots),
        "cost": _given(data, "cost", types.Cost),
        "hibernation": _given(data, "hibernation", types.Hibernation),
        "maintenance": dict(sorted(data["maintenance"].items())),
        "compliance": tuple(sorted(name for name, held in data["compliance"].items() if held)),
        "requires": requires(data["requires"]),
        "secret_store": secret_store(data["secret_store"]) if "secret_store" in data else None,
        "object_store": object_store(data["object_store"]) if "object_store" in data else None,
    }


def counted_on(data: Plain) -> set[str]:
    """Capabilities that the environment counts on."""
    given = data["capabilities"]
    return {name for name in CAPABILITIES if given.get(name, given["all"])}


def environment(data: Plain) -> Plain:
    """Variables that follow for every component; those that the file gives win."""
    variables: Plain = {}
    if "logging" in data:
        logging = data["logging"]
        variables |= {"LOG_LEVEL": logging["level"], "LOG_FORMAT": logging["format"]}
        variables |= {"LOG_AUDIT": logging["audit"], "LOG_HIPAA": logging["hipaa"]}
    if "tenants" in data:
        tenants = data["tenants"]
        variables |= {"TENANT_NAME": tenants["name"], "TENANT_COUNT": tenants["count"]}
        variables |= {"TENANT_ISOLATION": tenants["isolation"]}
    return variables


def secret(name: str, data: Plain) -> types.Secret:
    """Build one secret."""
    keys = {key: entry.get("generate") for key, entry in sorted(data["keys"].items())}
    return types.Secret(name, keys, data.get("external"), optional(data, "rotate", seconds))


def metric(name: str, data: Plain, namespace: str) -> types.Metric:
    """Build one metric, with the namespace in its query."""
    query, queue = data.get("query"), data.get("queue")
    return types.Metric(
        name=name,
        description=data["description"],
        query=query.replace(NAMESPACE, namespace) if query is not None else None,
        queue=types.Queue(**queue) if queue is not None else None,
        unit=data["unit"],
        alert_above=data.get("alert_above"),
        alert_for=seconds(data["alert_for"]),
    )


def alert(name: str, data: Plain) -> types.Alert:
    """Build one alert."""
    return types.Alert(
        name=name,
        measure=data["measure"],
        above=data.get("above"),
        below=data.get("below"),
        lasting=seconds(data["for"]),
        severity=data["severity"],
        component=data.get("component"),
        summary=data.get("summary", ""),
    )


def objectives(data: Plain) -> types.Objectives:
    """Build what is promised."""
    times = ("scale_up", "deploy", "recovery_time", "recovery_point")
    counts = ("requests_per_second", "concurrent_requests", "concurrent_tasks", "users", "nodes", "utilization")
    latency = {
        name: types.LatencyObjective(milliseconds(entry["below"]), entry["percentile"])
        for name, entry in sorted(data["latency"].items())
    }
    return types.Objectives(
        availability=data.get("availability"),
        window=seconds(data["window"]),
        latency=latency,
        startup={name: seconds(time) for name, time in sorted(data["startup"].items())},
        **{name: optional(data, name, seconds) for name in times},
        **{name: data.get(name) for name in counts},
    )


def monitoring(data: Plain) -> types.Monitoring:
    """Build how the system is measured."""
    return types.Monitoring(
        interval=seconds(data["interval"]),
        retention=optional(data, "retention", seconds),
        storage=optional(data, "storage", number_of_bytes),
        dashboards_storage=optional(data, "dashboards_storage", number_of_bytes),
        grafana_host=data.get("grafana_host"),
        prometheus_host=data.get("prometheus_host"),
    )


def requires(data: Plain) -> types.Requires:
    """Build what the system asks of its cluster."""
    return types.Requires(data.get("kubernetes"), _figures(data.get("minimum")), _figures(data.get("recommended")))


def _figures(data: Plain | None) -> types.Figures | None:
    if data is None:
        return None
    memory, storage = number_of_bytes(data["memory"]), number_of_bytes(data["storage"])
    return types.Figures(data["nodes"], data["cpu"], memory, storage)


def secret_store(data: Plain) -> types.SecretStore:
    """Build the environment's secret store."""
    return types.SecretStore(data["name"], data["kind"], seconds(data["refresh"]))


def object_store(data: Plain) -> types.ObjectStore:
    """Build where backups go."""
    return types.ObjectStore(
        data["url"], data.get("endpoint"), data.get("region"), data.get("secret"), data.get("replica_url")
    )


def quota(data: Plain) -> types.Quota:
    """Build the namespace's quota."""
    return types.Quota(
        headroom=data["headroom"],
        cpu=data["cpu"] * 1000 if "cpu" in data else None,
        memory=optional(data, "memory", number_of_bytes),
        storage=optional(data, "storage", number_of_bytes),
        pods=data.get("pods"),
    )


def _given(data: Plain, key: str, kind: Any) -> Any:
    """A section whose keys are those of its type, or nothing."""
    return kind(**data[key]) if key in data else None
