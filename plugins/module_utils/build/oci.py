# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Image archives in the form of the OCI image layout, which containerd, Docker, Podman, kind and registries all read.

An archive is a few JSON documents and the layers in one tar file. Writing it here rather than by a tool keeps the
manifest's digest a function of the layers and the configuration alone, shares the layer files between images instead of
copying whole file systems, and leaves no storage of a tool behind.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.build import digest
from ansible_collections.groundwork.platform.plugins.module_utils.build.debian import EPOCH
from ansible_collections.groundwork.platform.plugins.module_utils.build.definitions import Image
from ansible_collections.groundwork.platform.plugins.module_utils.build.layers import Layer

#: The repository of every image made here. Nobody else's: a pull by mistake finds nothing.
REPOSITORY = "docker.io/groundwork"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


def reference(image: Image, manifest_digest: str) -> str:
    """What a pod names: the digest decides; a tag before it only tells, as CloudNativePG reads the version there."""
    return f"{REPOSITORY}/{image.name}{f':{image.tag}' if image.tag else ''}@{manifest_digest}"


def stored_name(image: Image, manifest_digest: str) -> str:
    """The name under which containerd must know the image so that kubelet finds it: without the tag."""
    return f"{REPOSITORY}/{image.name}@{manifest_digest}"


def write(image: Image, layers: Sequence[Layer], arch: str, target: Path) -> str:
    """Write an image's archive.

    :returns: the digest of its manifest, as ``sha256:...``.
    """
    config = _json(_config(image, layers, arch))
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, config),
            "layers": [{"mediaType": _LAYER, "digest": layer.digest, "size": layer.size} for layer in layers],
        }
    )
    described = _descriptor(_MANIFEST, manifest)
    name = stored_name(image, described["digest"])
    # containerd's import takes the image's name from this annotation as it stands.
    entry = {**described, "annotations": {"io.containerd.image.name": name}}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    with target.open("wb") as out, tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", _json(index))
        _add(tar, _blob(described["digest"]), manifest)
        _add(tar, _blob(_descriptor(_CONFIG, config)["digest"]), config)
        for layer in {layer.digest: layer for layer in layers}.values():
            with layer.file.open("rb") as file:
                info = _info(_blob(layer.digest), layer.size)
                tar.addfile(info, file)
    return str(described["digest"])


def _config(image: Image, layers: Sequence[Layer], arch: str) -> dict[str, Any]:
    created = datetime.fromtimestamp(EPOCH, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    settings = {
        "User": image.user,
        "Env": [f"{key}={value}" for key, value in {"PATH": PATH, **image.env}.items()],
        "Entrypoint": list(image.entrypoint),
        "Cmd": list(image.command),
        "WorkingDir": image.working_dir,
        "StopSignal": image.stop_signal,
        "Labels": {"org.opencontainers.image.title": image.name},
    }
    return {
        "created": created,
        "architecture": arch,
        "os": "linux",
        "config": {key: value for key, value in settings.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        "history": [{"created": created, "created_by": "groundwork.platform.local_build"} for _layer in layers],
    }


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{digest.of_bytes(content)}", "size": len(content)}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _blob(name: str) -> str:
    return f"blobs/{name.replace(':', '/')}"


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, EPOCH, 0o644
    return info


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    tar.addfile(_info(name, len(content)), io.BytesIO(content))
