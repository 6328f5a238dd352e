# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of what is seen of a system: metrics, alerts, dashboards, objectives, logs and traces."""

from __future__ import annotations

from ansible_collections.groundwork.platform.plugins.module_utils.model.keys.common import (
    A_METRIC,
    A_NAME,
    LABEL,
    METRIC,
    NAME,
    URL,
    Schema,
    choice,
    duration,
    items,
    keys,
    latency,
    mapping,
    number,
    size,
    switch,
    text,
    whole,
)

# What every system has: the name is used by alerts, dashboards and objectives, beside those of `metrics`.
MEASURES = {
    "requests": ("requests answered", "requests a second"),
    "requests_in_progress": ("requests under way", "requests"),
    "errors": ("requests answered with a server error", "percent of the requests"),
    "latency_average": ("time to an answer, on average", "seconds"),
    "latency_p95": ("time to an answer, 95th percentile", "seconds"),
    "latency_p99": ("time to an answer, 99th percentile", "seconds"),
    "cpu": ("CPU used by a container", "percent of its limit"),
    "memory": ("memory used by a container", "percent of its limit"),
    "restarts": ("restarts of a container in the last 15 minutes", "restarts"),
    "pods": ("pods that run", "pods"),
    "pods_missing": ("pods that should be ready and are not", "pods"),
    "nodes_unready": ("nodes that are not ready", "nodes"),
    "node_cpu": ("CPU used of the nodes", "percent"),
    "node_memory": ("memory used of the nodes", "percent"),
    "network": ("traffic of the pods, both ways", "bytes a second"),
    "storage": ("used part of a volume", "percent"),
    "stores_down": ("servers of stores that do not answer", "servers"),
    "store_errors": ("requests that failed because a store could not be reached", "failures a second"),
    "database_connections": ("connections to PostgreSQL", "percent of max_connections"),
    "replication_lag": ("time that a replica of PostgreSQL lags behind", "seconds"),
    "cache_hits": ("reads that the cache answered", "percent of the reads"),
    "backup_age": ("age of the last good backup", "seconds"),
    "tasks": ("tasks that workers ended", "tasks a second"),
    "tasks_failed": ("tasks that failed", "percent of the tasks"),
    "results": ("results of the system's own work", "results a second"),
    "inference": ("time of the model for one input, 95th percentile", "seconds"),
    "model": ("versions of the model in use", "replicas by version"),
    "logins_failed": ("requests refused for want of a valid token", "requests a second"),
    "rate_limited": ("requests refused by the rate limit", "requests a second"),
    "traffic_denied": ("connections refused by network policies", "connections a second"),
    "certificate_age": ("time until the first certificate ends", "days"),
    "cost": ("what the system costs", "US dollars a month"),
    "savings": ("what could be saved of it", "US dollars a month"),
}


def metrics() -> Schema:
    """What the system measures of itself."""
    return mapping(
        "What the system measures of itself, by name: to scale, to alert and to show.",
        keys(
            "One metric.",
            {
                "description": text("What it tells, in a few words.", default="", examples=["Analyses that wait"]),
                "query": text(
                    "How Prometheus is asked for it; $namespace stands for the system's. The environment must count on "
                    "`prometheus_operator`. Default: none, `queue` says what is counted.",
                    "PromQL",
                    examples=['sum(ecg_queue_depth{namespace="$namespace"})'],
                ),
                "queue": keys(
                    "Counts the tasks that wait in a list of a Redis store, without Prometheus. Default: `query`.",
                    {
                        "store": text("The store.", "the name of a redis store", NAME, examples=["redis"]),
                        "list": text(
                            "The list; Celery's default queue is called so.",
                            "the name of a list",
                            r"^[^\s]+$",
                            default="celery",
                            examples=["celery"],
                        ),
                    },
                    required=["store"],
                    examples=[{"store": "redis"}],
                ),
                "unit": text("What its value counts.", default="", examples=["analyses"]),
                "alert_above": number(
                    "From where on it is alerted. Default: never.", "that of the metric", examples=[50]
                ),
                "alert_for": duration("How long it must be there before.", default="5m", examples=["5m"]),
            },
        ),
        METRIC,
        A_METRIC,
        default={},
        examples=[{"ecg_queue_depth": {"query": "sum(ecg_queue_depth)", "alert_above": 50}}],
    )


def alerts() -> Schema:
    """What somebody is told of."""
    return mapping(
        "What somebody is told of, by name; each has a page in docs/ that says what to do. The environment must count "
        "on `prometheus_operator`.",
        keys(
            "One alert: a measure, and from where on.",
            {
                "measure": text(
                    "A metric of `metrics`, or a measure that every system has: " + ", ".join(sorted(MEASURES)) + ".",
                    "the name of a metric or measure",
                    METRIC,
                    examples=["memory"],
                ),
                "above": number(
                    "It is alerted above this. Default: none, so `below` decides.", "that of the measure", examples=[90]
                ),
                "below": number(
                    "It is alerted below this. Default: none, so `above` decides.", "that of the measure", examples=[30]
                ),
                "for": duration("How long it must be there before.", default="5m", examples=["5m"]),
                "severity": choice(
                    "Whether somebody is woken, looks at it in the morning, or just knows.",
                    "critical",
                    "warning",
                    "info",
                    default="warning",
                ),
                "component": text(
                    "The component that is looked at. Default: all that have the measure.",
                    A_NAME,
                    NAME,
                    examples=["api"],
                ),
                "summary": text(
                    "What it says. Default: the measure and its bound.",
                    examples=["ECG analysis takes too long"],
                ),
            },
            required=["measure"],
        ),
        NAME,
        A_NAME,
        default={},
        examples=[{"memory": {"measure": "memory", "above": 90, "for": "5m"}}],
    )


def dashboards() -> Schema:
    """What is drawn."""
    return mapping(
        "Grafana dashboards, by name. The environment must count on `prometheus_operator`.",
        keys(
            "One dashboard.",
            {
                "title": text("What it is called.", examples=["API Performance"]),
                "shows": items(
                    "What it draws, a panel each: metrics of `metrics`, and measures that every system has.",
                    text("A metric or measure.", A_METRIC, METRIC),
                    "a list of names of metrics and measures",
                    minItems=1,
                    uniqueItems=True,
                    examples=[["requests", "latency_p95", "errors"]],
                ),
            },
            required=["title", "shows"],
        ),
        NAME,
        A_NAME,
        default={},
        examples=[{"api": {"title": "API Performance", "shows": ["requests", "latency_p95", "errors"]}}],
    )


def objectives() -> Schema:
    """What is promised."""
    return keys(
        "What the system promises. Availability becomes alerts on how fast the error budget burns; the rest is judged "
        "by the load test and the recovery drill.",
        {
            "availability": number(
                "Requests that must be answered well. Default: nothing is promised.",
                "percent of the requests",
                exclusiveMinimum=0,
                maximum=99.9999,
                examples=[99.9],
            ),
            "window": duration("Time over which availability counts.", default="30d", examples=["30d"]),
            "latency": mapping(
                "How fast answers come, by component, or by metric of `metrics` in seconds.",
                keys(
                    "One promise.",
                    {
                        "below": latency("What it stays below.", examples=["200ms"]),
                        "percentile": number(
                            "The share of answers that must be that fast.",
                            "percent of the answers",
                            exclusiveMinimum=0,
                            maximum=99.99,
                            default=95,
                            examples=[95],
                        ),
                    },
                    required=["below"],
                ),
                r"^[a-z]([-_a-z0-9]{0,99})$",
                "the name of a component or metric",
                default={},
                examples=[{"api": {"below": "200ms"}}],
            ),
            "requests_per_second": _promise("Requests that it answers.", "requests a second", 1000),
            "concurrent_requests": _promise("Requests that it answers at once.", "requests", 10000),
            "concurrent_tasks": _promise("Tasks that it does at once.", "tasks", 100),
            "users": _promise("Users at once.", "users", 1000000),
            "nodes": _promise("Nodes that it can spread over.", "nodes", 100),
            "utilization": _promise("How much of its nodes is used, on average, at least.", "percent", 80),
            "scale_up": duration("How soon more load has more pods. Default: nothing is promised.", examples=["60s"]),
            "startup": mapping(
                "How soon a new pod is ready, by component or store.",
                duration("Its time."),
                NAME,
                A_NAME,
                default={},
                examples=[{"api": "60s", "postgres": "2m"}],
            ),
            "deploy": duration("How long a release takes. Default: nothing is promised.", examples=["5m"]),
            "recovery_time": duration(
                "How soon it works again after a disaster (RTO). Default: nothing is promised.", examples=["1h"]
            ),
            "recovery_point": duration(
                "How much work may be lost in one (RPO). Default: nothing is promised.", examples=["15m"]
            ),
        },
        default={},
        examples=[{"availability": 99.9, "latency": {"api": {"below": "200ms"}}}],
    )


def _promise(description: str, unit: str, example: int) -> Schema:
    return whole(f"{description} Default: nothing is promised.", unit, 1, examples=[example])


def monitoring() -> Schema:
    """How it is measured."""
    return keys(
        "How the system is measured. The environment must count on `prometheus_operator`.",
        {
            "interval": duration("How often components are scraped.", default="15s", examples=["15s"]),
            "retention": duration(
                "How long measurements are kept, which its cluster's Prometheus provides. Default: the cluster's.",
                examples=["30d"],
            ),
            "storage": size(
                "What its measurements take of the cluster's Prometheus. Default: nothing beyond what that has.",
                examples=["20Gi"],
            ),
            "dashboards_storage": size(
                "What its dashboards take of the cluster's Grafana. Default: nothing beyond what that has.",
                examples=["2Gi"],
            ),
            "grafana_host": text(
                "Name in front of `domain` under which Grafana shows them. Default: the cluster's.",
                "a DNS label",
                LABEL,
                examples=["grafana"],
            ),
            "prometheus_host": text(
                "Name in front of `domain` under which Prometheus is reached from inside the company. Default: the "
                "cluster's.",
                "a DNS label",
                LABEL,
                examples=["prometheus"],
            ),
        },
        default={},
    )


def logging() -> Schema:
    """What is written to logs."""
    return keys(
        "What the components write to their logs; it arrives as LOG_LEVEL, LOG_FORMAT, LOG_AUDIT and LOG_HIPAA. "
        "Default: the application decides.",
        {
            "level": choice("From which level on.", "debug", "info", "warning", "error", default="info"),
            "format": choice("In which form.", "json", "text", default="json"),
            "audit": switch("Whether every action of an administrator is written, and who took it.", False),
            "hipaa": switch("Whether lines are kept free of health information, and say who saw which record.", False),
        },
        examples=[{"level": "info", "audit": True}],
    )


def tracing() -> Schema:
    """What is traced."""
    return keys(
        "Traces by OpenTelemetry; the environment must count on `tracing`. Default: there are none.",
        {
            "sample": number(
                "How many requests are traced.",
                "percent of the requests",
                minimum=0,
                maximum=100,
                default=10,
                examples=[10],
            ),
            "endpoint": text(
                "Where the collector takes them.",
                "a URL",
                URL,
                default="http://otel-collector.tracing:4317",
                examples=["http://otel-collector.tracing:4317"],
            ),
        },
        examples=[{"sample": 10}],
    )
