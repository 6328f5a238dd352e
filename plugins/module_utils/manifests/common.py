# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all manifests share: names, labels, images, and the frame of an object."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.model.quantities import bytes_text, cpu_text
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import Resources, System

Manifest = dict[str, Any]

MANAGER = "groundwork.platform"
INITIAL_REPLICAS = "groundwork.platform/initial-replicas"
"""Replicas that a workload is created with where an autoscaler owns the number afterwards."""
ON_ROLLBACK = "groundwork.platform/on-rollback"
"""``stays`` on what has brought data to a form that no return to an earlier release takes back."""
CONFIG_CHECKSUM = "groundwork.platform/config-checksum"
"""On pod templates: changes, and so rolls the pods, when a ConfigMap that they mount does."""


@dataclasses.dataclass(frozen=True)
class Context:
    """One compilation.

    :param images: published reference to the one that this cluster has; what is absent is taken as published.
    :param pins: the collection's pinned components, as in roles/components.
    """

    system: System
    images: Mapping[str, str]
    pins: Mapping[str, Any]

    def image(self, published: str) -> str:
        """The reference by which this cluster has a published image."""
        return self.images.get(published, published)

    def pinned_image(self, component: str) -> str:
        """The published reference of a pinned component whose image has its name.

        :raises Failure: code ``image_not_pinned``.
        """
        pin = self.pins.get(component)
        image = pin.get("images", {}).get(component) if isinstance(pin, Mapping) else None
        if not isinstance(image, str) or not image:
            raise Failure(
                code="image_not_pinned",
                object=f"System {self.system.name}",
                cause=f"needs an image for {component} and none is pinned",
                evidence=f"components.{component}.images.{component} is missing",
                hint="pass the pins of the role groundwork.platform.components, or set image on the store or component",
            )
        return image

    def pinned_version(self, component: str) -> str:
        """The version of a pinned component, or nothing."""
        pin = self.pins.get(component)
        return str(pin.get("version", "")) if isinstance(pin, Mapping) else ""

    def pull_policy(self, image: str) -> str:
        """How nodes treat an image: what a digest names cannot change, so asking again would only add a way to fail."""
        return self.system.image_pull_policy or ("IfNotPresent" if "@sha256:" in image else "Always")

    def labels(self, name: str, role: str, version: str = "") -> dict[str, str]:
        """The labels of everything that belongs to one part of the system."""
        labels = {
            "app.kubernetes.io/name": name,
            "app.kubernetes.io/instance": self.system.namespace,
            "app.kubernetes.io/component": role,
            "app.kubernetes.io/part-of": self.system.namespace,
            "app.kubernetes.io/managed-by": MANAGER,
        }
        return {**labels, "app.kubernetes.io/version": version} if version else labels

    def selector(self, name: str) -> dict[str, str]:
        """The labels by which one part's pods are found; they can never change."""
        return {"app.kubernetes.io/name": name, "app.kubernetes.io/instance": self.system.namespace}

    def object(
        self,
        api_version: str,
        kind: str,
        name: str,
        labels: Mapping[str, str],
        annotations: Mapping[str, str] | None = None,
    ) -> Manifest:
        """The frame of an object in the system's namespace."""
        metadata: Manifest = {"name": name, "namespace": self.system.namespace, "labels": dict(labels)}
        if annotations:
            metadata["annotations"] = dict(annotations)
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def version_of(image: str) -> str:
    """The tag of an image as a label's value, or nothing where it has none."""
    name = image.split("@", 1)[0].rsplit("/", 1)[-1]
    tag = name.split(":", 1)[1] if ":" in name else ""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", tag)[:63].strip("_.-")


def checksum(data: Mapping[str, str]) -> str:
    """A digest of a ConfigMap's data, short enough to read."""
    text = "\0".join(f"{key}\0{value}" for key, value in sorted(data.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def container_resources(resources: Resources, extended: Mapping[str, int] | None = None) -> Manifest:
    """A container's requests and limits.

    :param extended: devices, whose request and limit are one.
    """
    more = {name: str(count) for name, count in (extended or {}).items()}
    return {
        "requests": {
            "cpu": cpu_text(resources.cpu.request),
            "memory": bytes_text(resources.memory.request),
            "ephemeral-storage": bytes_text(resources.ephemeral_storage.request),
            **more,
        },
        "limits": {
            "cpu": cpu_text(resources.cpu.limit),
            "memory": bytes_text(resources.memory.limit),
            "ephemeral-storage": bytes_text(resources.ephemeral_storage.limit),
            **more,
        },
    }
