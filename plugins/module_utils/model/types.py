# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A system as the compiler sees it: checked, complete, with amounts as numbers.

Defaults are the schema's; nothing here has any. CPU is in millicores, memory and storage in bytes, time in seconds.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, TypeAlias

Env = dict[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Amount:
    """What a pod asks for, and what it may use."""

    request: int
    limit: int


@dataclasses.dataclass(frozen=True, slots=True)
class Resources:
    """One pod's amounts."""

    cpu: Amount
    memory: Amount
    ephemeral_storage: Amount


@dataclasses.dataclass(frozen=True, slots=True)
class ScalePolicy:
    """At most so many pods, or percent of them, within a time."""

    unit: Literal["Percent", "Pods"]
    value: int
    every: int


@dataclasses.dataclass(frozen=True, slots=True)
class ScaleRule:
    """How fast the autoscaler may go in one direction.

    :param below: percent of utilization from which pods are removed; None: just below the target.
    """

    stabilize: int
    policies: tuple[ScalePolicy, ...]
    select: Literal["Max", "Min"]
    below: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class MetricTarget:
    """What the autoscaler holds a metric of the system at.

    :param per_replica: for each pod; None where value decides.
    :param value: of the whole; None where per_replica decides.
    :param ahead: seconds for which the metric is predicted; 0: only the present counts.
    """

    metric: str
    per_replica: float | None
    value: float | None
    ahead: int


@dataclasses.dataclass(frozen=True, slots=True)
class Scaling:
    """What decides on the number of replicas; an autoscaler does where smallest and largest differ.

    :param metrics: targets besides CPU and memory, sorted by name.
    """

    smallest: int
    largest: int
    cpu: int | None
    memory: int | None
    up: ScaleRule | None
    down: ScaleRule | None
    metrics: tuple[MetricTarget, ...] = ()

    @property
    def automatic(self) -> bool:
        """Whether an autoscaler owns the number of replicas."""
        return self.smallest != self.largest


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """The least and the most of something."""

    least: int
    most: int


@dataclasses.dataclass(frozen=True, slots=True)
class Vertical:
    """What the vertical autoscaler may give one pod.

    :param mode: ``auto`` changes requests, ``recommend`` only says.
    :param owns: resources that it looks at: cpu, memory or both.
    :param cpu: None: any.
    :param memory: None: any.
    """

    mode: Literal["auto", "recommend"]
    owns: tuple[str, ...]
    cpu: Bounds | None
    memory: Bounds | None


@dataclasses.dataclass(frozen=True, slots=True)
class Health:
    """Paths of the probes, and how long a start may take."""

    live: str
    ready: str
    startup: int


@dataclasses.dataclass(frozen=True, slots=True)
class Gpu:
    """GPUs of each pod."""

    count: int
    resource: str


@dataclasses.dataclass(frozen=True, slots=True)
class Tasks:
    """What makes a component part of a task queue.

    :param queue: Redis store that holds the tasks.
    :param role: a ``worker`` takes tasks, the ``scheduler`` posts them at set times and is alone.
    """

    queue: str
    role: Literal["worker", "scheduler"]


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """Requests below a path go to a component."""

    path: str
    component: str
    strip_prefix: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Proxy:
    """What makes a component an nginx that routes to others.

    :param static: folder of the image whose files are served where no route matches.
    """

    routes: tuple[Route, ...]
    body_limit: int
    read_timeout: int
    session_timeout: int
    static: str | None = None
    compress: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class RateLimit:
    """How many requests one client may make within some seconds."""

    requests: int
    per: int


@dataclasses.dataclass(frozen=True, slots=True)
class Public:
    """How a component is reached from outside.

    :param routes: at the gateway; never empty.
    :param headers: security headers of every answer, by name.
    """

    host: str | None
    node_port: int | None
    routes: tuple[Route, ...]
    tls: bool
    rate_limit: RateLimit | None
    body_limit: int
    timeout: int
    headers: dict[str, str]
    waf: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Strategy:
    """How a new version of a component takes over.

    :param type: ``recreate``, for what must never run twice, follows from being a scheduler.
    :param keep_old: seconds after the switch of ``blue_green``; None until the next release.
    :param steps: percent of the replicas, of ``canary``.
    :param pause: seconds for which each step is watched.
    """

    type: Literal["rolling", "blue_green", "canary", "recreate"]
    keep_old: int | None = None
    steps: tuple[int, ...] = ()
    pause: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Component:
    """One workload that runs in this environment.

    :param image: as published, with its registry; empty for a proxy that takes the pinned one.
    :param gpu: None where it has none here; ``without_gpu`` tells whether it would like to.
    :param talks_to: components, stores and services outside, sorted.
    :param secrets: name of a secret to the folder where it is mounted.
    :param spot: percent of its pods that should be on spot nodes.
    :param scrape: path of its metrics; None: it has none.
    """

    name: str
    image: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    user: int
    port: int | None
    env: Env
    resources: Resources
    scaling: Scaling
    keep_available: int | None
    sticky: bool
    health: Health
    drain: int
    talks_to: tuple[str, ...]
    volumes: dict[str, str]
    gpu: Gpu | None
    without_gpu: bool
    node_labels: dict[str, str]
    proxy: Proxy | None
    public: Public | None
    strategy: Strategy
    tasks: Tasks | None
    vertical: Vertical | None
    secrets: dict[str, str]
    node_pool: str | None
    spot: int
    priority: str | None
    scrape: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Store:
    """What all stores have.

    :param vertical: only ever recommends.
    """

    name: str
    size: int
    storage_class: str | None
    resources: Resources
    image: str | None
    vertical: Vertical | None
    priority: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Pooler:
    """PgBouncer in front of PostgreSQL."""

    instances: int
    mode: Literal["transaction", "session"]
    max_client_connections: int
    pool_size: int


@dataclasses.dataclass(frozen=True, slots=True)
class Backup:
    """How PostgreSQL is backed up.

    :param schedule: of base backups, as cron takes it; None: none are made.
    :param dump: of logical dumps.
    :param retention: seconds.
    """

    schedule: str | None
    point_in_time: bool
    dump: str | None
    retention: int


@dataclasses.dataclass(frozen=True, slots=True)
class PostgreSQL(Store):
    """A CloudNativePG Cluster.

    :param instances: with which it begins.
    :param scaling: between which numbers of instances an autoscaler decides, and on what.
    """

    instances: int
    synchronous_replicas: int
    database: str
    owner: str
    parameters: dict[str, str]
    scaling: Scaling
    extensions: tuple[str, ...]
    pooler: Pooler | None
    backup: Backup | None


@dataclasses.dataclass(frozen=True, slots=True)
class Redis(Store):
    """Redis, rendered by the collection.

    :param replicas: beside the primary, in mode ``sentinel``.
    :param masters: in mode ``cluster``, each with ``replicas_per_master``.
    :param max_nodes: up to which number of servers a cluster may be scaled.
    :param max_memory: bytes of data; None: follows the memory limit.
    :param env_prefix: what its variables begin with.
    """

    mode: Literal["standalone", "sentinel", "cluster"]
    eviction: str
    replicas: int
    masters: int
    replicas_per_master: int
    max_nodes: int
    max_memory: int | None
    append_only: Literal["always", "everysec", "never"]
    snapshots: bool
    keepalive: int
    env_prefix: str

    @property
    def nodes(self) -> int:
        """Servers with data."""
        if self.mode == "cluster":
            return self.masters * (1 + self.replicas_per_master)
        return 1 + self.replicas if self.mode == "sentinel" else 1


@dataclasses.dataclass(frozen=True, slots=True)
class Downsampling:
    """Averages over so many seconds, kept for so many."""

    every: int
    keep: int


@dataclasses.dataclass(frozen=True, slots=True)
class InfluxDB(Store):
    """InfluxDB, rendered by the collection.

    :param retention: seconds for which points are kept as they came.
    :param downsampling: averages, by name.
    :param shorter_retention: what becomes of a time that is shorter than the one in force.
    """

    RAW: ClassVar[str] = "raw"
    """The policy that holds points as they came; averages have one of their own name."""

    version: Literal["1", "2"]
    database: str
    retention: int
    downsampling: dict[str, Downsampling]
    shorter_retention: Literal["refuse", "delete"]
    env_prefix: str


AnyStore: TypeAlias = "PostgreSQL | Redis | InfluxDB"


@dataclasses.dataclass(frozen=True, slots=True)
class Volume:
    """A claim that components share.

    :param writable: whether components write to it.
    """

    name: str
    size: int
    access: tuple[str, ...]
    storage_class: str | None
    writable: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Secret:
    """A Secret that components mount.

    :param keys: name to the length of a value that is generated, or None for one that is given.
    :param external: its name in the environment's secret store, where the environment counts on External Secrets.
    :param rotate: seconds after which generated values are replaced; None: never.
    """

    name: str
    keys: dict[str, int | None]
    external: str | None
    rotate: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Outside:
    """A service outside of the cluster."""

    name: str
    host: str
    port: int
    cidrs: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class RestorePoint:
    """What a destructive migration can be taken back to."""

    type: Literal["dump", "command"]
    size: int
    storage_class: str | None
    keep: int
    image: str
    command: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Migration:
    """The one run that brings the schema to that of the release.

    :param tool: what migrates; None: known by the command.
    :param store: PostgreSQL store that is migrated; None: there is none.
    """

    component: str
    command: tuple[str, ...]
    timeout: int
    lock_timeout: int
    statement_timeout: int
    resources: Resources
    tool: str | None
    store: str | None
    lock_wait: int
    quiet_wait: int
    destructive: Literal["refuse", "restore_point", "allow"]
    restore_point: RestorePoint
    expand_only: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Seed:
    """The one run that fills a new database; absent where the environment must not have it."""

    component: str
    command: tuple[str, ...]
    timeout: int
    resources: Resources


@dataclasses.dataclass(frozen=True, slots=True)
class Queue:
    """A list of a Redis store whose length counts."""

    store: str
    list: str


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """What the system measures of itself.

    :param query: PromQL with the namespace filled in; None where only queue counts.
    :param alert_for: seconds.
    """

    name: str
    description: str
    query: str | None
    queue: Queue | None
    unit: str
    alert_above: float | None
    alert_for: int


@dataclasses.dataclass(frozen=True, slots=True)
class Alert:
    """What somebody is told of.

    :param measure: a metric of the system, or one of ``keys.sight.MEASURES``.
    :param lasting: seconds for which it must be so.
    :param component: that is looked at; None: all.
    :param summary: empty: the measure and its bound say it.
    """

    name: str
    measure: str
    above: float | None
    below: float | None
    lasting: int
    severity: Literal["critical", "warning", "info"]
    component: str | None
    summary: str


@dataclasses.dataclass(frozen=True, slots=True)
class Dashboard:
    """What is drawn, a panel for each metric or measure."""

    name: str
    title: str
    shows: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class LatencyObjective:
    """How fast answers come: a share of them, in percent, below so many milliseconds."""

    below: int
    percentile: float


@dataclasses.dataclass(frozen=True, slots=True)
class Objectives:
    """What is promised; None: nothing. Times are in seconds.

    :param availability: percent of the requests, over window.
    :param latency: by component or metric.
    :param startup: by component or store.
    """

    availability: float | None
    window: int
    latency: dict[str, LatencyObjective]
    requests_per_second: int | None
    concurrent_requests: int | None
    concurrent_tasks: int | None
    users: int | None
    nodes: int | None
    utilization: int | None
    scale_up: int | None
    startup: dict[str, int]
    deploy: int | None
    recovery_time: int | None
    recovery_point: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Monitoring:
    """How the system is measured. Times are in seconds, storage in bytes; None: as the cluster has it."""

    interval: int
    retention: int | None
    storage: int | None
    dashboards_storage: int | None
    grafana_host: str | None
    prometheus_host: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Tracing:
    """Traces by OpenTelemetry; sample is percent of the requests."""

    sample: float
    endpoint: str


@dataclasses.dataclass(frozen=True, slots=True)
class Logging:
    """What components write to their logs."""

    level: str
    format: Literal["json", "text"]
    audit: bool
    hipaa: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Tenants:
    """Customers that one installation keeps apart."""

    name: str
    count: int
    isolation: Literal["row_level_security", "schema", "database"]


@dataclasses.dataclass(frozen=True, slots=True)
class SecretStore:
    """Store outside of the cluster that External Secrets reads."""

    name: str
    kind: Literal["ClusterSecretStore", "SecretStore"]
    refresh: int


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectStore:
    """Where backups go."""

    url: str
    endpoint: str | None
    region: str | None
    secret: str | None
    replica_url: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshots:
    """Snapshots of all volumes."""

    schedule: str
    keep: int
    replicate: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """What is done about the cost of the nodes; reduction is in percent."""

    reduction: int
    level: Literal["conservative", "moderate", "aggressive"]
    rightsizing: bool
    rebalancing: bool
    cleanup: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Hibernation:
    """When all components are scaled to nothing, as cron takes it."""

    sleep: str
    wake: str
    time_zone: str


@dataclasses.dataclass(frozen=True, slots=True)
class Figures:
    """What a cluster has: nodes, CPU in cores, memory and storage in bytes."""

    nodes: int
    cpu: int
    memory: int
    storage: int


@dataclasses.dataclass(frozen=True, slots=True)
class Requires:
    """What the system asks of its cluster."""

    kubernetes: str | None
    minimum: Figures | None
    recommended: Figures | None


@dataclasses.dataclass(frozen=True, slots=True)
class Nodes:
    """Labels, and keys of taints, by which nodes are told apart."""

    pool_label: str
    spot_label: str


@dataclasses.dataclass(frozen=True, slots=True)
class Quota:
    """The namespace's quota: percent on top of what is computed, or figures that hold instead.

    :param cpu: millicores that pods may request.
    """

    headroom: int
    cpu: int | None
    memory: int | None
    storage: int | None
    pods: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Network:
    """What routes and network policies must name outside of the namespace.

    :param gateway: name of the Gateway.
    :param issuer: ClusterIssuer of the public hosts' certificates.
    """

    api_server_cidrs: tuple[str, ...]
    api_server_ports: tuple[int, ...]
    gateway: str
    gateway_namespace: str
    issuer: str
    monitoring_namespace: str
    tracing_namespace: str
    database_operator_namespace: str


@dataclasses.dataclass(frozen=True, slots=True)
class System:
    """One system in one environment.

    :param components: those that run here, sorted by name; so are the other maps.
    :param disabled: names of components that do not run here.
    :param capabilities: what the environment counts on, sorted.
    :param on_failure: what becomes of a release that fails.
    :param maintenance: task to how often: daily, weekly or monthly.
    :param compliance: rules that the system is held to, sorted.
    """

    name: str
    environment: str
    namespace: str
    domain: str | None
    image_pull_policy: str | None
    image_pull_secrets: tuple[str, ...]
    components: dict[str, Component]
    disabled: tuple[str, ...]
    stores: dict[str, AnyStore]
    volumes: dict[str, Volume]
    secrets: dict[str, Secret]
    outside: dict[str, Outside]
    migration: Migration | None
    seed: Seed | None
    capabilities: tuple[str, ...]
    network: Network
    nodes: Nodes
    secret_store: SecretStore | None
    object_store: ObjectStore | None
    quota: Quota
    on_failure: Literal["rollback", "keep", "pause"]
    tenants: Tenants | None
    logging: Logging | None
    tracing: Tracing | None
    metrics: dict[str, Metric]
    alerts: dict[str, Alert]
    dashboards: dict[str, Dashboard]
    objectives: Objectives
    monitoring: Monitoring
    snapshots: Snapshots | None
    cost: Cost | None
    hibernation: Hibernation | None
    maintenance: dict[str, str]
    compliance: tuple[str, ...]
    requires: Requires
    patches: dict[str, dict[str, Any] | list[dict[str, Any]]]
