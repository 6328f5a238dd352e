# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A system as the compiler sees it: checked, complete, with amounts as numbers.

Defaults are the schema's; nothing here has any. CPU is in millicores, memory and storage in bytes, time in seconds.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

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
    """How fast the autoscaler may go in one direction."""

    stabilize: int
    policies: tuple[ScalePolicy, ...]
    select: Literal["Max", "Min"]


@dataclasses.dataclass(frozen=True, slots=True)
class Scaling:
    """What decides on the number of replicas; an autoscaler does where smallest and largest differ."""

    smallest: int
    largest: int
    cpu: int | None
    memory: int | None
    up: ScaleRule | None
    down: ScaleRule | None

    @property
    def automatic(self) -> bool:
        """Whether an autoscaler owns the number of replicas."""
        return self.smallest != self.largest


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
class Route:
    """Requests below a path go to a component."""

    path: str
    component: str
    strip_prefix: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Proxy:
    """What makes a component an nginx that routes to others."""

    routes: tuple[Route, ...]
    body_limit: int
    read_timeout: int
    session_timeout: int


@dataclasses.dataclass(frozen=True, slots=True)
class Public:
    """How a component is reached from outside."""

    host: str | None
    node_port: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Strategy:
    """How a new version of a component takes over.

    :param keep_old: seconds after the switch of ``blue_green``; None until the next release.
    :param steps: percent of the replicas, of ``canary``.
    :param pause: seconds for which each step is watched.
    """

    type: Literal["rolling", "blue_green", "canary"]
    keep_old: int | None = None
    steps: tuple[int, ...] = ()
    pause: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Component:
    """One workload that runs in this environment.

    :param image: as published, with its registry; empty for a proxy that takes the pinned one.
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
    node_labels: dict[str, str]
    proxy: Proxy | None
    public: Public | None
    strategy: Strategy


@dataclasses.dataclass(frozen=True, slots=True)
class Store:
    """What all stores have."""

    name: str
    size: int
    storage_class: str | None
    resources: Resources
    image: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class PostgreSQL(Store):
    """A CloudNativePG Cluster."""

    instances: int
    synchronous_replicas: int
    database: str
    owner: str
    parameters: dict[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Redis(Store):
    """Redis, rendered by the collection."""

    mode: Literal["standalone", "sentinel"]
    eviction: str


@dataclasses.dataclass(frozen=True, slots=True)
class Volume:
    """A claim that components share."""

    name: str
    size: int
    access: tuple[str, ...]
    storage_class: str | None


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
class Network:
    """What network policies must name outside of the namespace."""

    api_server_cidrs: tuple[str, ...]
    api_server_ports: tuple[int, ...]
    gateway_namespace: str
    database_operator_namespace: str


@dataclasses.dataclass(frozen=True, slots=True)
class System:
    """One system in one environment.

    :param components: those that run here, sorted by name; so are the other maps.
    :param disabled: names of components that do not run here.
    :param capabilities: what the environment counts on, sorted.
    :param headroom: percent on top of the computed quota.
    :param on_failure: what becomes of a release that fails.
    """

    name: str
    environment: str
    namespace: str
    domain: str | None
    image_pull_policy: str | None
    image_pull_secrets: tuple[str, ...]
    components: dict[str, Component]
    disabled: tuple[str, ...]
    stores: dict[str, PostgreSQL | Redis]
    volumes: dict[str, Volume]
    migration: Migration | None
    capabilities: tuple[str, ...]
    network: Network
    headroom: int
    on_failure: Literal["rollback", "keep", "pause"]
    patches: dict[str, dict[str, Any]]
