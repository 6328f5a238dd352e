# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules local_cluster and local_images do, as plain functions of their parameters.

Everybody else sees a local cluster through a few files in one folder, whichever provider it comes from: ``kubeconfig``,
``uid``, ``status.json`` and ``images.yml``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import files, images, lifecycle, node
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.commands import Runner, run
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.layout import STATE_ROOT, Layout
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.providers import (
    AUTO,
    EmbeddedProvider,
    KubeconfigProvider,
    Provider,
    Request,
    choose,
)
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress

KUBECONFIG, UID, STATUS, IMAGES, MANIFESTS = "kubeconfig", "uid", "status.json", "images.yml", "manifests"


@dataclasses.dataclass(frozen=True)
class Place:
    """The folder of files, and whose cluster they tell of.

    :param state_root: where embedded clusters are kept; a test's way to have its own.
    """

    request: Request
    directory: Path
    progress: Progress
    runner: Runner = run
    check_mode: bool = False

    @classmethod
    def of(
        cls,
        params: Mapping[str, Any],
        *,
        check_mode: bool = False,
        runner: Runner = run,
        state_root: Path = STATE_ROOT,
    ) -> Place:
        """From the parameters that both modules share."""
        layout = Layout.of(
            params.get("name") or "", Path(params["checkout"]), params.get("subnet") or "", state_root=state_root
        )
        kubeconfig = params.get("kubeconfig")
        request = Request(
            layout=layout,
            provider=params.get("provider") or AUTO,
            kubeconfig=Path(kubeconfig) if kubeconfig else None,
            context=params.get("context") or "",
            timeout=float(params.get("timeout") or 300),
        )
        return cls(request, Path(params["directory"]), Progress(layout.name), runner, check_mode)

    @property
    def recorded(self) -> str:
        """The provider of the cluster that is there already, or was begun."""
        found = str(files.read_json(self.directory / STATUS).get("provider", ""))
        return found or (EmbeddedProvider.name if self.request.layout.mark.exists() else "")

    def provider(self) -> Provider:
        """The provider to use."""
        return choose(self.request, self.recorded, self.progress, self.runner)


def checked(place: Place) -> dict[str, Any]:
    """Refuse what cannot work, and say which provider it will be; nothing is changed."""
    provider = place.provider()
    provider.check()
    if isinstance(provider, KubeconfigProvider):
        _reach(place, provider)
    return {"changed": False, **_summary(place, provider)}


def present(place: Place, binary: Path | None, built: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Have the cluster running and its files written."""
    provider = place.provider()
    if place.check_mode:
        provider.check()
        unbuilt = provider.makes_images and any(not entry.get("reference") for entry in built.values())
        pending = unbuilt or provider.pending(binary, images.parse(built if provider.makes_images else {}))
        return {"changed": pending or not (place.directory / UID).exists(), **_summary(place, provider)}
    with _full_disk_said(place):
        provider.check()
        if isinstance(provider, KubeconfigProvider):
            # Nothing is written for a cluster that does not answer or is not the one that is meant.
            _reach(place, provider)
        place.directory.mkdir(parents=True, exist_ok=True)
        if files.read_json(place.directory / STATUS).get("provider") != provider.name:
            _record(place, provider, {"state": "starting"})
        changed = provider.up(binary, images.parse(built) if provider.makes_images else [])
        changed = files.write(place.directory / KUBECONFIG, provider.kubeconfig(), 0o600) or changed
        uid = provider.cluster.uid() if isinstance(provider, EmbeddedProvider) else _uid(place.directory / KUBECONFIG)
        changed = files.write(place.directory / UID, uid + "\n") or changed
        _record(place, provider, {"state": "running", "uid": uid})
    return {"changed": changed, **_summary(place, provider), "uid": uid}


def absent(place: Place) -> dict[str, Any]:
    """Remove the cluster that was made here and the files that tell of it."""
    recorded = place.recorded
    provider = choose(
        dataclasses.replace(place.request, provider=recorded or place.request.provider),
        recorded,
        place.progress,
        place.runner,
    )
    written = [place.directory / name for name in (KUBECONFIG, UID, STATUS, IMAGES, MANIFESTS)]
    there = [path for path in written if path.exists()]
    if place.check_mode:
        removable = not isinstance(provider, KubeconfigProvider) and provider.exists()
        return {"changed": bool(there) or removable, "provider": provider.name, "name": place.request.layout.name}
    changed = provider.down() or bool(there)
    # STATUS says what there is to remove, so it stays until that is done.
    for path in sorted(there, key=lambda path: path.name == STATUS):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        place.directory.rmdir()
    return {"changed": changed, "provider": provider.name, "name": place.request.layout.name}


def status(place: Place) -> dict[str, Any]:
    """What runs, asked of the cluster itself."""
    provider = place.provider()
    layout = place.request.layout
    others = [name for name in lifecycle.owned(layout.checkout, layout.state_root) if name != layout.name]
    return {"changed": False, **_summary(place, provider), "status": provider.status(), "other_clusters": others}


def load(
    place: Place, built: Mapping[str, Mapping[str, Any]], manifests: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Load the images that the cluster lacks, write which published image each stands for, and lay out manifests.

    :param manifests: files by the names that they get, without their extension.
    """
    provider = place.provider()
    wanted = images.parse(built if provider.makes_images else {}, unbuilt_ok=place.check_mode)
    mapping = images.mapping(wanted, provider.reference)
    if place.check_mode:
        running = provider.status()["state"] in ("running", "degraded")
        present_ = provider.present() if running and wanted else set()
        missing = [image.name for image in wanted if provider.stored(image) not in present_]
        unbuilt = provider.makes_images and len(wanted) < len(built)
        changed = bool(missing) or unbuilt or _read_mapping(place.directory / IMAGES) != mapping
        return {"changed": changed, "loaded": missing, "images": mapping}
    with _full_disk_said(place):
        present_ = provider.present() if wanted else set()
        loaded = images.load_missing(wanted, present_, provider.load, place.progress.update, provider.stored)
        changed = images.write_mapping(place.directory / IMAGES, mapping) or bool(loaded)
        for name, source in sorted((manifests or {}).items()):
            target = place.directory / MANIFESTS / f"{name}.yaml"
            changed = files.write(target, Path(source).read_bytes()) or changed
    return {"changed": changed, "loaded": loaded, "images": mapping}


def _summary(place: Place, provider: Provider) -> dict[str, Any]:
    """What others have to know of the cluster, whether it runs or not."""
    layout = place.request.layout
    summary: dict[str, Any] = {
        "provider": provider.name,
        "name": provider.status()["name"] if isinstance(provider, KubeconfigProvider) else layout.name,
        "builds_images": provider.makes_images,
        "directory": str(place.directory),
        "kubeconfig": str(place.directory / KUBECONFIG),
    }
    if isinstance(provider, EmbeddedProvider):
        summary |= {"node_address": layout.node_address, "server": layout.server}
    return summary


def _record(place: Place, provider: Provider, more: Mapping[str, Any]) -> None:
    """Write ``status.json``. The provider is recorded before the cluster is made, so that `absent` always finds it."""
    layout = place.request.layout
    value: dict[str, Any] = {**_summary(place, provider), **more}
    if isinstance(provider, EmbeddedProvider):
        programs = sorted((layout.state / "bin").glob("kubernetes-*"))
        value["binaries"] = {"kubernetes": str(programs[-1])} if programs else {}
        value["processes"] = str(node.status_path(layout))
        value["logs"] = str(layout.logs)
    elif (address := _node_address(place.directory / KUBECONFIG)) and more.get("uid"):
        value["node_address"] = address
    files.write_json(place.directory / STATUS, value)


def _reach(place: Place, provider: KubeconfigProvider) -> None:
    """Ask the user's cluster who it is, by a copy of its one context that nobody keeps."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="groundwork-") as folder:
        copy = Path(folder) / KUBECONFIG
        files.write(copy, provider.kubeconfig(), 0o600)
        uid = _uid(copy)
    recorded = _text(place.directory / UID)
    if recorded and uid != recorded and files.read_json(place.directory / STATUS).get("provider") == provider.name:
        raise Failure(
            "wrong_cluster",
            f"Kubeconfig {place.request.kubeconfig}",
            "leads to another cluster than the one recorded",
            f"its kube-system has UID {uid}, not {recorded}",
            f"correct it, or remove {place.directory / UID} if the cluster was replaced on purpose",
        )


def _uid(kubeconfig: Path) -> str:
    """The UID of kube-system, by any kind of credentials that a kubeconfig may have.

    :raises Failure: the API server does not answer or refuses.
    """
    from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster
    from ansible_collections.groundwork.platform.plugins.module_utils.cluster_auth import ClusterAuth

    cluster = Cluster(ClusterAuth(kubeconfig=str(kubeconfig), context=_context(kubeconfig)), patience=5.0)
    try:
        namespace = cluster.get(cluster.resource("v1", "Namespace"), "kube-system") or {}
    finally:
        cluster.close()
    return str(namespace.get("metadata", {}).get("uid", ""))


def _node_address(kubeconfig: Path) -> str:
    """The internal address of the first node, where NodePorts answer; empty when there is none to be seen."""
    from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster
    from ansible_collections.groundwork.platform.plugins.module_utils.cluster_auth import ClusterAuth

    if not kubeconfig.exists():
        return ""
    cluster = Cluster(ClusterAuth(kubeconfig=str(kubeconfig), context=_context(kubeconfig)), patience=5.0)
    try:
        found = cluster.list(cluster.resource("v1", "Node")).items
    except Failure:
        return ""
    finally:
        cluster.close()
    addresses = [entry for item in found for entry in item.get("status", {}).get("addresses", [])]
    return next((str(entry["address"]) for entry in addresses if entry.get("type") == "InternalIP"), "")


def _context(kubeconfig: Path) -> str:
    return str(files.from_yaml(kubeconfig.read_text(encoding="utf-8"))["current-context"])


def _read_mapping(path: Path) -> dict[str, str]:
    try:
        value = files.from_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


@contextlib.contextmanager
def _full_disk_said(place: Place) -> Iterator[None]:
    """A full disk is bad luck that deserves a sentence; every other error of this kind is a defect."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Failure(
            "no_space",
            f"The disk of {error.filename or place.request.layout.state}",
            "is full",
            hint="make room and run it again: it continues where it stopped",
        ) from error
