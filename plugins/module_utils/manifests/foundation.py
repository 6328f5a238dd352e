# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a system stands on: namespace, quota, service accounts and volumes; nothing of it runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

from ansible_collections.groundwork.platform.plugins.module_utils.manifests import migration, workloads
from ansible_collections.groundwork.platform.plugins.module_utils.manifests.common import Context, Manifest
from ansible_collections.groundwork.platform.plugins.module_utils.model.quantities import bytes_text, cpu_text
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import (
    Amount,
    AnyStore,
    Component,
    InfluxDB,
    PostgreSQL,
    Quota,
    Redis,
    Resources,
    Volume,
)

_MEBIBYTE = 1024**2
_NOTHING = Resources(Amount(0, 0), Amount(0, 0), Amount(0, 0))
_SMALL = Amount(16 * _MEBIBYTE, 64 * _MEBIBYTE)
INFLUXDB_SETUP = Resources(Amount(50, 500), Amount(32 * _MEBIBYTE, 128 * _MEBIBYTE), _SMALL)
"""Of the pod that sets an InfluxDB store up."""
HELPER_PODS = 5
"""Pods beside those of the system's own parts: whoever publishes a model, a debugging shell, an operator's job."""


def namespace(context: Context) -> Manifest:
    """The namespace, in which Kubernetes itself refuses pods that are not restricted."""
    name = context.system.namespace
    labels = context.labels(name, "namespace")
    for mode in ("enforce", "audit", "warn"):
        labels[f"pod-security.kubernetes.io/{mode}"] = "restricted"
        labels[f"pod-security.kubernetes.io/{mode}-version"] = "latest"
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """What one part of the system may use at its largest.

    :param pods: at most, a rollout's additional ones included.
    :param claims: volumes of its own, each of a size.
    """

    pods: int
    resources: Resources
    claims: int = 0
    size: int = 0
    devices: dict[str, int] = dataclasses.field(default_factory=dict)


def parts(context: Context) -> Iterator[Part]:
    """All parts that use anything."""
    system = context.system
    for component in system.components.values():
        surge = _surge(component)
        devices = {component.gpu.resource: component.gpu.count} if component.gpu is not None else {}
        yield Part(component.scaling.largest + surge, component.resources, devices=devices)
    for store in system.stores.values():
        yield _store(store)
        if isinstance(store, InfluxDB):
            yield Part(1, INFLUXDB_SETUP)
    for volume in system.volumes.values():
        yield Part(0, _NOTHING, claims=1, size=volume.size)
    if system.migration is not None:
        yield Part(1, system.migration.resources)
        yield Part(1, migration.LOCK_RESOURCES)
        if system.migration.destructive == "restore_point":
            point = system.migration.restore_point
            yield Part(1, migration.DUMP_RESOURCES, claims=1, size=point.size)


def _surge(component: Component) -> int:
    """Pods that there may be for a while on top of the largest number, until a new version has taken over."""
    largest, strategy = component.scaling.largest, component.strategy
    rolling = math.ceil(largest * 0.25)
    if strategy.type == "blue_green":
        return largest
    if strategy.type == "canary":
        return rolling + max((math.ceil(largest * step / 100) for step in strategy.steps if step < 100), default=0)
    return rolling


def quota(context: Context) -> Manifest:
    """The namespace's quota: all parts at their largest, and some headroom; or the figures that the system gives."""
    everything = list(parts(context))
    given, more = context.system.quota, 1 + context.system.quota.headroom / 100
    hard: dict[str, str] = {}
    for side in ("request", "limit"):
        cpu = sum(part.pods * getattr(part.resources.cpu, side) for part in everything) * more
        memory = sum(part.pods * getattr(part.resources.memory, side) for part in everything) * more
        # Whole tenths of a core and whole mebibytes, so that the figures can be read.
        hard[f"{side}s.cpu"] = cpu_text(math.ceil(cpu / 100) * 100)
        hard[f"{side}s.memory"] = bytes_text(math.ceil(memory / _MEBIBYTE) * _MEBIBYTE)
    storage = sum(part.claims * part.size for part in everything) * more
    hard["requests.storage"] = bytes_text(math.ceil(storage / _MEBIBYTE) * _MEBIBYTE)
    hard["persistentvolumeclaims"] = str(math.ceil(sum(part.claims for part in everything) * more))
    hard["pods"] = str(math.ceil(sum(part.pods for part in everything) * more) + HELPER_PODS)
    for resource in sorted({name for part in everything for name in part.devices}):
        count = sum(part.pods * part.devices.get(resource, 0) for part in everything)
        hard[f"requests.{resource}"] = str(math.ceil(count * more))
    for name, amount, text in _ceilings(given):
        if amount is not None:
            hard[_HARD[name]] = text(amount)
    made = context.object("v1", "ResourceQuota", "quota", context.labels("quota", "quota"))
    made["spec"] = {"hard": hard}
    return made


_HARD = {"cpu": "requests.cpu", "memory": "requests.memory", "storage": "requests.storage", "pods": "pods"}


def _ceilings(quota: Quota) -> list[tuple[str, int | None, Callable[[int], str]]]:
    """Figures that a system may give, by their key, with how they are written."""
    return [
        ("cpu", quota.cpu, cpu_text),
        ("memory", quota.memory, bytes_text),
        ("storage", quota.storage, bytes_text),
        ("pods", quota.pods, str),
    ]


def misfits(context: Context) -> Iterator[tuple[str, str, str]]:
    """Figures of the quota into which the parts at their largest do not fit: key, what is given, what is needed."""
    everything = list(parts(context))
    needed = {
        "cpu": sum(part.pods * part.resources.cpu.request for part in everything),
        "memory": sum(part.pods * part.resources.memory.request for part in everything),
        "storage": sum(part.claims * part.size for part in everything),
        "pods": sum(part.pods for part in everything),
    }
    for name, amount, text in _ceilings(context.system.quota):
        if amount is not None and amount < needed[name]:
            yield name, text(amount), text(needed[name])


def limit_range(context: Context) -> Manifest:
    """What containers get that state nothing, such as an operator's helpers, and the most that one may ask for."""
    resources = [part.resources for part in parts(context) if part.pods]
    most = {
        "cpu": cpu_text(max([1000, *(one.cpu.limit for one in resources)])),
        "memory": bytes_text(max([512 * _MEBIBYTE, *(one.memory.limit for one in resources)])),
    }
    made = context.object("v1", "LimitRange", "limits", context.labels("limits", "quota"))
    made["spec"] = {
        "limits": [
            {
                "type": "Container",
                "defaultRequest": {"cpu": "50m", "memory": "64Mi", "ephemeral-storage": "64Mi"},
                "default": {"cpu": "500m", "memory": "256Mi", "ephemeral-storage": "512Mi"},
                "max": most,
            }
        ]
    }
    return made


def service_accounts(context: Context) -> list[Manifest]:
    """One for each part, without a token: nothing of ours speaks to the API server."""
    system = context.system
    labels = {name: workloads.labels_of(context, component) for name, component in system.components.items()}
    for name, store in system.stores.items():
        if isinstance(store, Redis):
            labels[name] = context.labels(name, "cache")
        elif isinstance(store, InfluxDB):
            labels |= {part: context.labels(part, "timeseries") for part in (name, f"{name}-setup")}
    if system.migration is not None:
        component = system.components[system.migration.component]
        labels[migration.NAME] = migration.labels_of(context, component)
    return [_service_account(context, name, labels[name]) for name in sorted(labels)]


def claim(context: Context, volume: Volume) -> Manifest:
    """The claim of a shared volume."""
    made = context.object("v1", "PersistentVolumeClaim", volume.name, context.labels(volume.name, "volume"))
    made["spec"] = claim_spec(volume.size, volume.storage_class, volume.access)
    return made


def claim_spec(size: int, storage_class: str | None, access: tuple[str, ...] = ("ReadWriteOnce",)) -> Manifest:
    """What a claim asks for; without a class it is the cluster's default one."""
    spec: Manifest = {
        "accessModes": list(access),
        "volumeMode": "Filesystem",
        "resources": {"requests": {"storage": bytes_text(size)}},
    }
    return {**spec, "storageClassName": storage_class} if storage_class is not None else spec


def _service_account(context: Context, name: str, labels: dict[str, str]) -> Manifest:
    made = context.object("v1", "ServiceAccount", name, labels)
    made["automountServiceAccountToken"] = False
    if context.system.image_pull_secrets:
        made["imagePullSecrets"] = [{"name": secret} for secret in context.system.image_pull_secrets]
    return made


def _store(store: AnyStore) -> Part:
    if isinstance(store, PostgreSQL):
        # One more: an instance that is being replaced, or the job that fills a new one.
        return Part(store.instances + 1, store.resources, claims=store.instances + 1, size=store.size)
    return Part(1, store.resources, claims=1, size=store.size)
