# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL as a CloudNativePG Cluster."""

from __future__ import annotations

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.manifests.common import (
    Context,
    Manifest,
    container_resources,
    version_of,
)
from ansible_collections.groundwork.platform.plugins.module_utils.model.quantities import bytes_text
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import PostgreSQL

_MEBIBYTE = 1024**2


def postgresql_objects(context: Context, store: PostgreSQL) -> list[Manifest]:
    """The image catalogue and the Cluster.

    The catalogue says which major version an image is, so that an image can be named by digest alone.
    """
    published = store.image or context.pinned_image("postgresql")
    major = _major(context, store, published)
    labels = context.labels(store.name, "database", version_of(published))
    catalogue = context.object("postgresql.cnpg.io/v1", "ImageCatalog", store.name, labels)
    catalogue["spec"] = {"images": [{"major": major, "image": context.image(published)}]}
    cluster = context.object("postgresql.cnpg.io/v1", "Cluster", store.name, labels)
    cluster["spec"] = _spec(context, store, major)
    return [catalogue, cluster]


def _spec(context: Context, store: PostgreSQL, major: int) -> Manifest:
    selector = {"cnpg.io/cluster": store.name}
    storage: Manifest = {"size": bytes_text(store.size), "resizeInUseVolumes": True}
    if store.storage_class is not None:
        storage["storageClass"] = store.storage_class
    spec: Manifest = {
        "instances": store.instances,
        "imageCatalogRef": {
            "apiGroup": "postgresql.cnpg.io",
            "kind": "ImageCatalog",
            "name": store.name,
            "major": major,
        },
        "imagePullPolicy": context.pull_policy(context.image(store.image or context.pinned_image("postgresql"))),
        "bootstrap": {
            "initdb": {"database": store.database, "owner": store.owner, "dataChecksums": True, "encoding": "UTF8"}
        },
        "postgresql": _settings(store),
        "storage": storage,
        "resources": container_resources(store.resources),
        "enableSuperuserAccess": False,
        # Its own budget keeps a lone instance's node from ever being drained.
        "enablePDB": store.instances > 1,
        "primaryUpdateStrategy": "unsupervised",
        "primaryUpdateMethod": "switchover",
        "affinity": {
            "enablePodAntiAffinity": True,
            "podAntiAffinityType": "preferred",
            "topologyKey": "kubernetes.io/hostname",
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector},
            }
        ],
        "inheritedMetadata": {"labels": {"app.kubernetes.io/part-of": context.system.namespace}},
    }
    if context.system.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in context.system.image_pull_secrets]
    return spec


def _settings(store: PostgreSQL) -> Manifest:
    parameters = {
        "shared_buffers": f"{max(store.resources.memory.request // 4 // _MEBIBYTE, 32)}MB",
        **store.parameters,
    }
    settings: Manifest = {
        "parameters": dict(sorted(parameters.items())),
        # CloudNativePG's own rules come before these: what does not use TLS gets no further.
        "pg_hba": ["hostnossl all all all reject"],
    }
    if store.synchronous_replicas:
        settings["synchronous"] = {
            "method": "any",
            "number": store.synchronous_replicas,
            "dataDurability": "required",
        }
    return settings


def _major(context: Context, store: PostgreSQL, published: str) -> int:
    """The major version, from the image's tag, else from the pins."""
    for text in (version_of(published), context.pinned_version("postgresql")):
        digits = text.split("-", 1)[0].split(".", 1)[0]
        if digits.isdigit():
            return int(digits)
    raise Failure(
        code="image_version_unknown",
        object=f"Store {store.name} of system {context.system.name}",
        cause="has an image that does not tell its PostgreSQL version",
        evidence=published,
        hint="use a tag that begins with the major version, such as 17-minimal-trixie",
    )
