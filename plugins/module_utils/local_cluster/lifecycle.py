# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of an embedded cluster: up from whatever state it is in, its status, and down without a trace."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import (
    addons,
    cgroups,
    config,
    files,
    network,
    node,
    preflight,
)
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.api import Api, Unreachable, path_of
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.commands import Runner, run
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.images import (
    Containerd,
    Image,
    load_missing,
)
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.layout import NETNS_ROOT, Layout
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress

VERSION = 1
PAUSE, DNS = "pause", "coredns"
# A daemon that died this often will not come by itself: pauses grow, so this takes some 10 s.
HOPELESS = 7
# etcd takes its log in pieces of 64 MiB; with less room than one it may not even start.
_FULL_MIB = 64
# How components of Kubernetes (klog), etcd and containerd mark what they die of; a panic's stack follows it.
_GRAVE = re.compile(r'^[EF][0-9]{4} |"level":"(error|panic|fatal)"|level=(error|fatal)|^Error: ')
_POLL = 0.1
_NO_PAUSE = "registry.k8s.io/pause:3.10.1"


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The cluster as it should be.

    :param binary: the program that is all of Kubernetes.
    :param images: ``pause`` and ``coredns`` are loaded and used; without ``coredns`` there is no name resolution.
    :param timeout: seconds until the node must be Ready.
    """

    layout: Layout
    binary: Path
    images: tuple[Image, ...] = ()
    timeout: float = 180.0


class _SupervisorEnded(Failure):
    """The supervisor went while its cluster was waited for."""


class Embedded:
    """One embedded cluster on this machine."""

    def __init__(
        self,
        layout: Layout,
        progress: Progress | None = None,
        runner: Runner = run,
        machine: preflight.Machine | None = None,
    ) -> None:
        self.layout = layout
        self._progress = progress or Progress(layout.name)
        self._runner = runner
        self._machine = machine
        self.api = Api(layout.server, layout.pki)
        self.containerd = Containerd(layout.containerd_socket, runner)

    def up(self, wanted: Wanted) -> bool:
        """Make the cluster be there and its node Ready, from whatever state it is in; data in etcd is kept.

        :return: whether anything was changed.
        :raises Failure: what stands against it, before anything is changed; or what did not come up, and why.
        """
        self.check()
        with locked(self.layout, self._progress, wanted.timeout):
            self.check()
            return self._converge(wanted)

    def check(self) -> None:
        """Refuse what cannot work; nothing but the kernel's modules is changed.

        :raises Failure: the first thing that stands against the cluster.
        """
        machine = self._machine or preflight.Machine()
        preflight.check_machine(fresh=False, machine=machine)
        self._refuse_foreign()
        if not node.living(self.layout):
            preflight.load_modules(machine, self._runner)
            machine = self._machine or preflight.Machine()
            preflight.check(self.layout, self._runner, machine, new=not self.layout.mark.exists())

    def down(self) -> bool:
        """Remove the cluster and everything that belongs to it, and nothing else.

        :return: whether there was anything to remove.
        :raises Failure: ``foreign_cluster``, or what could not be removed.
        """
        with locked(self.layout, self._progress, 60.0):
            self._refuse_foreign()
            return self._remove()

    def status(self) -> dict[str, Any]:
        """What there is of the cluster, asked without changing anything and within seconds."""
        mark = files.read_json(self.layout.mark)
        supervisor = node.living(self.layout)
        result: dict[str, Any] = {
            "provider": "embedded",
            "name": self.layout.name,
            "checkout": mark.get("checkout", str(self.layout.checkout)),
            "node_address": self.layout.node_address,
            "server": self.layout.server,
            "state": "absent" if not mark else "stopped",
            "node": {"name": self.layout.name, "ready": False, "reason": "the cluster does not run"},
            "processes": [],
            "uptime_seconds": 0,
        }
        if not supervisor:
            return result
        reported = node.status(self.layout)
        result["processes"] = [_process(entry) for entry in reported.get("processes", [])]
        result["resident_mib"] = round(sum(_proportional_mib(entry["pid"]) for entry in result["processes"]), 1)
        result["uptime_seconds"] = _seconds_since(str(reported.get("started", "")))
        problem = self._node_problem(fresh=False)
        result["node"] |= {"ready": not problem, "reason": problem}
        result["state"] = "degraded" if problem else "running"
        return result

    def uid(self) -> str:
        """The UID of kube-system: it tells this cluster from every other."""
        namespace = self.api.get("/api/v1/namespaces/kube-system")
        return str(namespace["metadata"]["uid"]) if namespace else ""

    def kubeconfig(self) -> str:
        """The admin's kubeconfig with one context, named as the cluster."""
        return config.admin_kubeconfig(self.layout)

    # ---- up

    def _converge(self, wanted: Wanted) -> bool:
        layout = self.layout
        _claim(layout)
        binary = node.adopt(layout, wanted.binary)
        changed = self._write(wanted, binary)
        changed = self._converge_daemons(binary) or changed
        try:
            changed = self._await(wanted) or changed
        except _SupervisorEnded:
            # It may have been dying when it was looked at, or somebody ended it: a new one is tried, once.
            changed = self._converge_daemons(binary) or changed
            changed = self._await(wanted) or changed
        node.forget_others(binary)
        return changed

    def _write(self, wanted: Wanted, binary: Path) -> bool:
        """Certificates and configuration; whether any was written."""
        # Here, not above: the library takes its time to load, and `status` and `down` do without.
        from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import pki

        layout = self.layout
        made = pki.ensure(layout)
        if made:
            self._progress.update(f"made certificates: {', '.join(made)}" if len(made) < 4 else "made certificates")
        changed = bool(made)
        for path, file in self._rendered(wanted, binary, pki.encryption_key(layout)).items():
            changed = files.write(path, file.content, file.mode) or changed
        containerd = preflight.program("containerd") or Path("/usr/bin/containerd")
        processes = node.configuration(layout, node.daemons(layout, binary, containerd))
        return files.write_json(layout.state / "processes.json", processes, 0o600) or changed

    def _rendered(self, wanted: Wanted, binary: Path, key: bytes) -> dict[Path, config.File]:
        references = {image.name: image.stored_name for image in wanted.images}
        pause = references.get(PAUSE, _NO_PAUSE)
        rendered = config.render(self.layout, _host(self.layout), pause=pause, encryption_key=key)
        rendered[self.layout.state / "start.sh"] = config.File(node.start_script(self.layout, binary), 0o700)
        return rendered

    def pending(self, wanted: Wanted) -> bool:
        """Whether :meth:`up` would change anything; nothing is changed to find out."""
        from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import pki

        layout = self.layout
        if self.status()["state"] != "running" or pki.due(layout) or not wanted.binary.exists():
            return True
        binary = node.adopted(layout, wanted.binary)
        rendered = self._rendered(wanted, binary, pki.encryption_key(layout))
        if not all(files.same(path, file.content, file.mode) for path, file in rendered.items()):
            return True
        return any(not self._applied(definition) for definition in self._addons(wanted))

    def _converge_daemons(self, binary: Path) -> bool:
        """Have one supervisor run that is the wanted program, in the wanted namespace, with the wanted processes."""
        layout = self.layout
        supervisor = node.living(layout)
        # A daemon that was given up on waits ever longer; what stood against it may be mended by now.
        if supervisor and (self._given_up() or not node.serves(layout, supervisor, binary)):
            self._progress.update("restarting the cluster's daemons")
            if network.exists(layout):
                node.stop(layout, supervisor)
            else:
                cgroups.kill(layout.name)
            supervisor = 0
        # What the supervisor was told last, noted only afterwards: a run that is killed in between tells it again.
        told, processes = layout.state / "told.json", files.read_json(layout.state / "processes.json")
        digest = {"processes": files.digest(processes)}
        if supervisor:
            if files.read_json(told) == digest:
                return False
            self._progress.update("handing changed configuration to the daemons")
            node.reload(supervisor)
            files.write_json(told, digest)
            return True
        if not network.exists(layout):
            # Containers that outlived their network are of no use, and nothing else can be left of the last run.
            cgroups.kill(layout.name)
        self._progress.update("starting the node")
        _make_host_folders(layout)
        network.ensure(layout, self._runner)
        self._launch()
        files.write_json(told, digest)
        return True

    def _launch(self) -> None:
        started = node.start(self.layout)
        deadline = time.monotonic() + 15
        while not node.living(self.layout):
            if time.monotonic() > deadline:
                raise Failure(
                    "supervisor_failed",
                    f"The supervisor of {self.layout.name}",
                    "did not start",
                    _last_line(self.layout.logs / "start.log"),
                    "mend the cause and run it again",
                )
            time.sleep(0.01)
            if started.poll() is not None and not node.living(self.layout):
                # What it was to join may have died meanwhile, or its predecessor's last process still goes.
                time.sleep(0.5)
                started = node.start(self.layout)

    def _await(self, wanted: Wanted) -> bool:
        """Wait for API server and node, doing meanwhile what can be done; whether anything was missing."""
        deadline = time.monotonic() + wanted.timeout
        self._cancelled = False
        with ThreadPoolExecutor(max_workers=1) as pool:
            loading = pool.submit(self._load, wanted.images, deadline)
            try:
                changed = self._await_api(loading, deadline)
                changed = bool(_result(loading, deadline)) or changed
                changed = self._ensure_addons(self._addons(wanted)) or changed
                return self._await_node(deadline) or changed
            except BaseException:
                # The loader looks at the deadline of its own; without this its thread would hold us up until then.
                self._cancelled = True
                raise

    _cancelled = False

    def _load(self, images: Sequence[Image], deadline: float) -> list[str]:
        # The small one, which every pod waits for, first.
        needed = sorted(
            (image for image in images if image.name in (PAUSE, DNS)), key=lambda image: image.name != PAUSE
        )
        while needed and not self.containerd.answers():
            if self._cancelled or time.monotonic() > deadline:
                raise self._not_up("containerd", "does not answer")
            time.sleep(_POLL)
        present = self.containerd.present() if needed else set()
        return load_missing(needed, present, self.containerd.load, self._progress.update)

    def _await_api(self, loading: Future[list[str]], deadline: float) -> bool:
        """Wait until the API server serves and has the base objects; whether any of those was missing."""
        while True:
            problem = self.api.ready()
            if not problem:
                with contextlib.suppress(Unreachable):
                    return self._ensure_addons(addons.base())
            if loading.done() and loading.exception():
                loading.result()
            self._progress.update(f"waiting for the API server{_brief(problem)}")
            self._check_daemons(deadline, f"API server: {problem}")
            time.sleep(_POLL)

    def _await_node(self, deadline: float) -> bool:
        waited = False
        while problem := self._node_problem(fresh=True):
            waited = True
            self._progress.update(f"waiting for the node: {problem}")
            self._check_daemons(deadline, f"node: {problem}")
            time.sleep(_POLL)
        return waited

    def _node_problem(self, *, fresh: bool) -> str:
        """Why the node is not Ready, or empty.

        :param fresh: whether what kubelet said before its last start does not count.
        """
        try:
            found = self.api.get(f"/api/v1/nodes/{self.layout.name}")
        except Unreachable as error:
            return f"API server does not answer ({error})"
        if not found:
            return "it has not registered yet"
        conditions = {entry["type"]: entry for entry in found.get("status", {}).get("conditions", [])}
        ready = conditions.get("Ready", {})
        if fresh and str(ready.get("lastHeartbeatTime", "")) < self._kubelet_started():
            return "kubelet has not reported yet"
        if ready.get("status") == "True":
            return ""
        return str(ready.get("message") or "kubelet has not reported yet").rpartition("message:")[2].strip()

    def _kubelet_started(self) -> str:
        """When kubelet began, in the form of the API's times, which have whole seconds."""
        for process in node.status(self.layout).get("processes", []):
            if process.get("name") == "kubelet" and process.get("started"):
                return str(process["started"])[:19] + "Z"
        return ""

    @staticmethod
    def _addons(wanted: Wanted) -> list[dict[str, Any]]:
        references = {image.name: image.reference for image in wanted.images}
        return [*addons.base(), *(addons.dns(references[DNS]) if DNS in references else [])]

    def _applied(self, definition: dict[str, Any]) -> bool:
        """Whether an object is there and was made by this version of its definition."""
        record = files.read_json(self.layout.state / "addons.json")
        path = path_of(definition)
        return record.get(path) == files.digest(definition) and self.api.get(path) is not None

    def _ensure_addons(self, definitions: Sequence[dict[str, Any]]) -> bool:
        """Apply what is missing or was made by another version of these definitions."""
        missing = [definition for definition in definitions if not self._applied(definition)]
        if missing:
            for definition in missing:
                self.api.apply(definition)
            record = self.layout.state / "addons.json"
            made = {path_of(definition): files.digest(definition) for definition in missing}
            files.write_json(record, {**files.read_json(record), **made})
        return bool(missing)

    def _check_daemons(self, deadline: float, problem: str) -> None:
        """Give up at the deadline, or as soon as it is certain that a daemon will not come up."""
        if not node.living(self.layout):
            raise _SupervisorEnded(*self._why_not_up("supervisor", "ended while the cluster came up"))
        for process in self._given_up():
            raise self._not_up(str(process["name"]), f"ended {process['restarts']} times")
        if time.monotonic() > deadline:
            raise Failure(
                "cluster_not_ready",
                f"Local cluster {self.layout.name}",
                "did not become Ready in time",
                problem,
                f"look at the logs in {self.layout.logs}, then run it again",
            )

    def _given_up(self) -> list[dict[str, Any]]:
        processes = node.status(self.layout).get("processes", [])
        enough = 2 if self._disk_is_full() else HOPELESS
        return [
            process for process in processes if process.get("restarts", 0) >= enough and process["state"] != "running"
        ]

    def _disk_is_full(self) -> bool:
        return shutil.disk_usage(self.layout.state).free < _FULL_MIB * 1024**2

    def _not_up(self, daemon: str, cause: str) -> Failure:
        return Failure(*self._why_not_up(daemon, cause))

    def _why_not_up(self, daemon: str, cause: str) -> tuple[str, str, str, str, str]:
        log = self.layout.logs / f"{daemon}.log"
        what = f"{daemon} of local cluster {self.layout.name}"
        # The log of a daemon that died of a full disk ends before it could say so.
        if self._disk_is_full():
            evidence = f"the disk of {self.layout.state} is full"
            return "no_space", what, cause, evidence, "make room and run it again: it continues where it stopped"
        return "daemon_failed", what, cause, _last_line(log), f"see {log}"

    # ---- down

    def _remove(self) -> bool:
        layout = self.layout
        self._progress.update("ending all processes")
        removed = cgroups.kill(layout.name) > 0
        removed = _unmount_beneath((layout.state, layout.run), self._runner) or removed
        self._progress.update("removing network, control groups and files")
        removed = network.remove(layout, self._runner) or removed
        removed = cgroups.remove(layout.name) or removed
        removed = layout.state.exists() or removed
        _remove_tree(layout.run)
        if layout.state.is_dir():
            # The mark last: an interrupted removal is still known to be ours.
            for path in layout.state.iterdir():
                if path != layout.mark:
                    _remove_tree(path)
        _remove_tree(layout.state)
        _remove_host_folders(layout, self._runner)
        return removed

    def _refuse_foreign(self) -> None:
        """Never touch what another checkout made."""
        owner = str(files.read_json(self.layout.mark).get("checkout", ""))
        if owner and owner != str(self.layout.checkout):
            raise Failure(
                "foreign_cluster",
                f"Local cluster {self.layout.name}",
                f"belongs to the checkout {owner}",
                f"this is {self.layout.checkout}",
                "run it there, or set another local_cluster_name here",
            )


def owned(checkout: Path, state_root: Path) -> list[str]:
    """Names of the embedded clusters on this machine that belong to a checkout."""
    marks = sorted(state_root.glob("*/mark.json"))
    return [mark.parent.name for mark in marks if files.read_json(mark).get("checkout") == str(checkout.resolve())]


@contextlib.contextmanager
def locked(layout: Layout, progress: Progress, patience: float) -> Iterator[None]:
    """Hold the cluster alone. The lock's file goes at the end if there is no cluster then.

    :param patience: seconds to wait for another run.
    :raises Failure: ``cluster_busy``.
    """
    deadline = time.monotonic() + patience
    layout.lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with layout.lock.open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "?"
                progress.update(f"waiting for another run (process {holder}) to finish with the cluster")
                if time.monotonic() > deadline:
                    raise Failure(
                        "cluster_busy",
                        f"Local cluster {layout.name}",
                        "is held by another run",
                        f"process {holder}",
                        "wait for it",
                    ) from None
                time.sleep(0.2)
                continue
            if not _same_file(file.fileno(), layout.lock):
                continue  # its last holder removed it between our opening and locking it
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            try:
                yield
            finally:
                if not layout.state.exists():
                    layout.lock.unlink(missing_ok=True)
                    with contextlib.suppress(OSError):
                        layout.run_root.rmdir()
            return


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _claim(layout: Layout) -> None:
    """Mark the cluster as this checkout's before anything else is made, so that `down` always knows what to remove."""
    mark = files.read_json(layout.mark)
    created = mark.get("created") or datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    wanted = {
        "checkout": str(layout.checkout),
        "name": layout.name,
        "subnet": str(layout.subnet),
        "created": created,
        "version": VERSION,
    }
    layout.state.mkdir(parents=True, exist_ok=True)
    layout.state.chmod(0o700)
    files.write_json(layout.mark, wanted, 0o600)
    for folder in (layout.run, layout.logs, layout.state / "storage"):
        folder.mkdir(parents=True, exist_ok=True)
    (layout.state / "etcd").mkdir(mode=0o700, exist_ok=True)


def _host(layout: Layout) -> config.Host:
    effective = 0
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    cap_sys_resource = 24
    return config.Host(bool(effective >> cap_sys_resource & 1), "native" if _on_overlay(layout.state) else "overlayfs")


def _on_overlay(path: Path) -> bool:
    """Whether a path is on an overlay file system: one overlay cannot be the upper folder of another."""
    kinds = {}
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        mount, kind = line.split(" ")[1:3]
        kinds[mount] = kind
    resolved = path.resolve()
    nearest = next(place for place in (resolved, *resolved.parents) if str(place) in kinds)
    return kinds[str(nearest)] == "overlay"


def _make_host_folders(layout: Layout) -> None:
    """Mount points on the host for the node's mount namespace; what is made goes again with the last cluster."""
    record = layout.state_root / "host-folders.json"
    made = list(files.read_json(record).get("made", []))
    sources = node.host_folders(layout)
    for source in sources.values():
        source.mkdir(parents=True, exist_ok=True)
    for target in (NETNS_ROOT, *sources):
        if not target.exists():
            made = sorted({*made, str(target)})
            # Remembered first: a folder that is remembered and not there does no harm.
            files.write_json(record, {"made": made})
            target.mkdir(parents=True, exist_ok=True)


def _remove_host_folders(layout: Layout, runner: Runner) -> None:
    """Only with the last cluster: a mount point that is removed takes its mounts in every namespace with it."""
    if not layout.state_root.is_dir() or any(layout.state_root.glob("*/mark.json")):
        return
    record = layout.state_root / "host-folders.json"
    for folder in map(Path, files.read_json(record).get("made", [])):
        if folder == NETNS_ROOT and not any(folder.iterdir()):
            # `ip netns` mounts the folder on itself.
            runner(["umount", str(folder)])
        with contextlib.suppress(OSError):
            folder.rmdir()
    record.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        layout.state_root.rmdir()


def _unmount_beneath(roots: Sequence[Path], runner: Runner) -> bool:
    """Unmount what is mounted on the host beneath these folders, last mounted first."""
    mounts = [line.split(" ")[1] for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    mounts = [mount.replace("\\040", " ") for mount in mounts]
    found = [mount for mount in mounts if any(Path(mount).is_relative_to(root) for root in roots)]
    for mount in reversed(found):
        runner(["umount", "--lazy", mount])
    return bool(found)


def _remove_tree(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _process(entry: dict[str, Any]) -> dict[str, Any]:
    resident = 0.0
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path(f"/proc/{entry['pid']}/statm").read_text(encoding="utf-8").split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE") / 1024**2
    kept = {key: entry.get(key) for key in ("name", "state", "pid", "restarts", "started")}
    return {**kept, "resident_mib": round(resident, 1)}


def _proportional_mib(number: int | None) -> float:
    """Resident memory in which what processes share, as their one program, counts once among them."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{number}/smaps_rollup").read_text(encoding="utf-8").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _seconds_since(text: str) -> int:
    try:
        began = datetime.datetime.fromisoformat(text[:19] + "+00:00")
    except ValueError:
        return 0
    return max(0, round((datetime.datetime.now(datetime.UTC) - began).total_seconds()))


def _result(loading: Future[list[str]], deadline: float) -> list[str]:
    return loading.result(timeout=max(1.0, deadline - time.monotonic()))


def _brief(problem: str) -> str:
    """A reason that helps; that nobody listens yet is what waiting means."""
    return f" ({problem})" if problem.startswith("not ready") else ""


def _last_line(path: Path) -> str:
    """What a daemon last said of its end, cut to a length that fits a sentence; a Go panic's stack is no answer."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16384))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    lines = [line for line in lines if line.strip() and " supervise: " not in line]
    grave = [line for line in lines if _GRAVE.search(line)]
    return _said((grave or lines or [""])[-1])[-300:]


def _said(line: str) -> str:
    """A line of a log; of one in JSON, as etcd writes them, the message and the error."""
    with contextlib.suppress(ValueError):
        entry = json.loads(line)
        if isinstance(entry, dict):
            return ": ".join(str(entry[key]) for key in ("msg", "error") if entry.get(key))
    return line
