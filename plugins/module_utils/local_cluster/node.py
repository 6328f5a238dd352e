# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemons of the embedded cluster: their command lines, and the supervisor that keeps them running."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import cgroups, files
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.config import TUNABLES
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.layout import (
    API_PORT,
    SERVICE_CIDR,
    Layout,
)

_ETCD = "https://127.0.0.1:2379"
_ETCD_PEER = "https://127.0.0.1:2380"


@dataclasses.dataclass(frozen=True)
class Daemon:
    """One process of the node.

    :param inputs: files whose change asks for a restart, beside the command itself.
    :param restart_seconds: pause before the first restart.
    """

    name: str
    command: list[str]
    after: tuple[str, ...] = ()
    inputs: tuple[Path, ...] = ()
    restart_seconds: float = 1.0

    def as_dict(self) -> dict[str, Any]:
        """The form that the supervisor reads."""
        return {
            "name": self.name,
            "command": self.command,
            # The supervisor restarts what has another command or environment: so it notices changed files.
            "env": {"GROUNDWORK_INPUTS": _digest(self.inputs)},
            "after": list(self.after),
            "restart_seconds": self.restart_seconds,
        }


def daemons(layout: Layout, binary: Path, containerd: Path) -> list[Daemon]:
    """Every daemon of the node.

    :param binary: the program that is all of Kubernetes and etcd; its first argument names the part.
    :param containerd: the container runtime's program.
    """
    kubernetes, config, pki = str(binary), layout.config, layout.pki
    api = ("kube-apiserver",)
    proxy_config, kubelet_config = config / "kube-proxy.yaml", config / "kubelet.yaml"

    def client(name: str) -> tuple[Path, ...]:
        return (config / f"{name}.kubeconfig", pki / f"{name}.crt", pki / "ca.crt")

    return [
        Daemon("etcd", [kubernetes, "etcd", *_etcd(layout)], inputs=(pki / "etcd.crt", pki / "etcd-ca.crt")),
        Daemon(
            "containerd",
            [str(containerd), "--config", str(config / "containerd.toml")],
            inputs=(config / "containerd.toml",),
        ),
        Daemon(
            "kube-apiserver",
            [kubernetes, "kube-apiserver", *_api_server(layout)],
            ("etcd",),
            (
                config / "audit-policy.yaml",
                config / "encryption.yaml",
                *(pki / f"{name}.crt" for name in ("ca", "apiserver", "apiserver-kubelet-client")),
                *(pki / f"{name}.crt" for name in ("apiserver-etcd-client", "front-proxy-ca", "front-proxy-client")),
                pki / "service-account.pub",
            ),
        ),
        Daemon(
            "kubelet",
            [
                kubernetes,
                "kubelet",
                f"--config={kubelet_config}",
                f"--kubeconfig={config / 'kubelet.kubeconfig'}",
                f"--hostname-override={layout.name}",
                f"--node-ip={layout.node_address}",
                "--node-labels=topology.kubernetes.io/region=local,topology.kubernetes.io/zone=local-a",
            ],
            ("containerd", "kube-apiserver"),
            (kubelet_config, pki / "kubelet-serving.crt", *client("kubelet")),
            # It ends when containerd does not answer yet.
            restart_seconds=0.2,
        ),
        Daemon(
            "kube-controller-manager",
            [kubernetes, "kube-controller-manager", *_controller_manager(layout)],
            api,
            (*client("controller-manager"), pki / "service-account.pub"),
            restart_seconds=0.5,
        ),
        Daemon(
            "kube-scheduler",
            [
                kubernetes,
                "kube-scheduler",
                *_delegating(layout, "scheduler"),
                "--leader-elect=false",
            ],
            api,
            client("scheduler"),
            restart_seconds=0.5,
        ),
        Daemon(
            "kube-proxy",
            [kubernetes, "kube-proxy", f"--config={proxy_config}"],
            api,
            (proxy_config, *client("kube-proxy")),
            restart_seconds=0.5,
        ),
        Daemon(
            "storage-provisioner",
            [
                kubernetes,
                "storage-provisioner",
                f"--kubeconfig={config / 'storage-provisioner.kubeconfig'}",
                f"--root={layout.state / 'storage'}",
                f"--node-name={layout.name}",
            ],
            api,
            client("storage-provisioner"),
        ),
    ]


def _etcd(layout: Layout) -> list[str]:
    """etcd listens on the loopback of the node's namespace; pods of the host's network are there too, hence TLS."""
    pki = layout.pki
    pair = {"cert-file": pki / "etcd.crt", "key-file": pki / "etcd.key", "trusted-ca-file": pki / "etcd-ca.crt"}
    return [
        "--name=node",
        f"--data-dir={layout.state / 'etcd'}",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        f"--listen-peer-urls={_ETCD_PEER}",
        f"--initial-advertise-peer-urls={_ETCD_PEER}",
        f"--initial-cluster=node={_ETCD_PEER}",
        *(f"--{prefix}{name}={path}" for prefix in ("", "peer-") for name, path in pair.items()),
        "--client-cert-auth",
        "--peer-client-cert-auth",
        # Survives every killed process and every orderly reboot; only a loss of power may cost the last writes.
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _api_server(layout: Layout) -> list[str]:
    pki, config = layout.pki, layout.config
    return [
        f"--advertise-address={layout.node_address}",
        f"--secure-port={API_PORT}",
        f"--etcd-servers={_ETCD}",
        f"--etcd-cafile={pki / 'etcd-ca.crt'}",
        f"--etcd-certfile={pki / 'apiserver-etcd-client.crt'}",
        f"--etcd-keyfile={pki / 'apiserver-etcd-client.key'}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
        # Nobody resolves the node's name.
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki / 'service-account.pub'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
        f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
        "--enable-aggregator-routing=true",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--anonymous-auth=false",
        "--allow-privileged=true",
        "--profiling=false",
        f"--encryption-provider-config={config / 'encryption.yaml'}",
        f"--audit-policy-file={config / 'audit-policy.yaml'}",
        f"--audit-log-path={layout.logs / 'audit.log'}",
        "--audit-log-mode=batch",
        "--audit-log-maxsize=20",
        "--audit-log-maxbackup=2",
    ]


def _controller_manager(layout: Layout) -> list[str]:
    pki = layout.pki
    return [
        *_delegating(layout, "controller-manager"),
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={pki / 'service-account.key'}",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--cluster-signing-cert-file={pki / 'ca.crt'}",
        f"--cluster-signing-key-file={pki / 'ca.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
        # A node that comes back is used again soon, and one that is lost is noticed within a test's patience.
        "--node-monitor-grace-period=20s",
        "--profiling=false",
    ]


def _delegating(layout: Layout, name: str) -> list[str]:
    """Its own identity, and the API server's judgement on who may read its metrics."""
    path = layout.config / f"{name}.kubeconfig"
    return [
        f"--kubeconfig={path}",
        f"--authentication-kubeconfig={path}",
        f"--authorization-kubeconfig={path}",
        "--authentication-tolerate-lookup-failure=true",
        "--bind-address=127.0.0.1",
    ]


def configuration(layout: Layout, chosen: Iterable[Daemon]) -> dict[str, Any]:
    """The supervisor's ``processes.json``."""
    return {
        "name": layout.name,
        "cgroup": layout.name,
        "netns": str(layout.netns),
        "log_directory": str(layout.logs),
        "state_directory": str(layout.state),
        "processes": [daemon.as_dict() for daemon in chosen],
    }


def host_folders(layout: Layout) -> dict[Path, Path]:
    """Where the node's mount namespace shows folders of the cluster at the paths that Kubernetes' programs insist on.

    Two nodes on one machine would otherwise share these, and a log collector in a pod finds what it expects.
    """
    return {
        Path("/var/lib/kubelet"): layout.state / "kubelet",
        Path("/var/lib/cni"): layout.state / "cni",
        Path("/var/log/pods"): layout.logs / "pods",
        Path("/var/log/containers"): layout.logs / "containers",
        Path("/run/containerd"): layout.run / "containerd",
    }


def start_script(layout: Layout, binary: Path) -> str:
    """Makes the node's mount namespace what it has to be and becomes the supervisor.

    With the argument ``join`` the namespace is one that already has all mounts.
    """
    binds = [f"mount --bind '{source}' '{target}'" for target, source in host_folders(layout).items()]
    for key in TUNABLES:
        source = layout.config / "sysctl" / key.replace("/", ".")
        binds.append(f"[ ! -e /proc/sys/{key} ] || mount --bind '{source}' /proc/sys/{key}")
    lines = "\n".join(f"  {line}" for line in ["mount --make-rshared /", *binds])
    command = f"exec '{binary}' supervise --config '{layout.state / 'processes.json'}'"
    return f'#!/bin/sh\nset -eu\nif [ "${{1:-}}" != join ]; then\n{lines}\nfi\n{command}\n'


def adopted(layout: Layout, binary: Path) -> Path:
    """Where the cluster's own copy of a program is, or will be.

    :raises Failure: ``no_binary``.
    """
    try:
        status = binary.stat()
    except OSError as error:
        raise Failure(
            "no_binary", f"Program {binary}", "cannot be read", error.strerror or "", "build it with `make build`"
        ) from error
    identity = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:12]
    return layout.state / "bin" / f"kubernetes-{identity}"


def adopt(layout: Layout, binary: Path) -> Path:
    """Copy the program among the cluster's own files: the cache may be emptied while the cluster runs.

    :raises Failure: ``no_binary``.
    """
    copy = adopted(layout, binary)
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        temporary = copy.with_name(f".{copy.name}.{os.getpid()}")
        try:
            os.link(binary, temporary)
        except OSError:
            shutil.copy2(binary, temporary)
        temporary.chmod(0o755)
        temporary.replace(copy)
    return copy


def forget_others(binary: Path) -> None:
    """Remove the programs that an earlier run adopted and nothing runs any more."""
    for other in binary.parent.iterdir():
        if other != binary:
            other.unlink(missing_ok=True)


def living(layout: Layout) -> int:
    """The supervisor's process, or 0: it must be in this cluster's control groups, so a reused number never counts."""
    try:
        number = int((layout.state / "supervisor.pid").read_text(encoding="utf-8"))
        groups = Path(f"/proc/{number}/cgroup").read_text(encoding="utf-8")
        state = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (OSError, ValueError, IndexError):
        return 0
    inside = any(line.rstrip().endswith(f"/{layout.name}/{cgroups.DAEMONS}") for line in groups.splitlines())
    return number if inside and state != "Z" else 0


def serves(layout: Layout, number: int, binary: Path) -> bool:
    """Whether a living supervisor is this program and lives with the namespace that has the cluster's name now."""
    try:
        return Path(f"/proc/{number}/exe").samefile(binary) and layout.netns.stat().st_ino == _netns_of(layout)
    except OSError:
        return False


def _netns_of(layout: Layout) -> int:
    """The namespace of any daemon that runs; the supervisor itself stays in the host's."""
    for process in status(layout).get("processes", []):
        with contextlib.suppress(OSError):
            if process.get("pid"):
                return Path(f"/proc/{process['pid']}/ns/net").stat().st_ino
    return layout.netns.stat().st_ino


def status(layout: Layout) -> dict[str, Any]:
    """What the supervisor says of its processes; empty when it never ran."""
    return files.read_json(status_path(layout))


def status_path(layout: Layout) -> Path:
    """Where the supervisor says what runs."""
    return layout.state / "processes-status.json"


def start(layout: Layout) -> subprocess.Popen[bytes]:
    """Start the supervisor so that it outlives this process, its terminal and its process group."""
    script = ["/bin/sh", str(layout.state / "start.sh")]
    # Daemons die with their supervisor, which takes a moment; only what holds containers stays.
    survivor = min(filter(_is_shim, cgroups.daemons(layout.name)), default=0)
    if survivor:
        # Containers that outlived the daemons hold mounts in the old namespace: the new daemons must see them.
        command = ["nsenter", f"--mount=/proc/{survivor}/ns/mnt", *script, "join"]
    else:
        command = ["unshare", "--mount", "--propagation", "slave", *script, "new"]
    layout.logs.mkdir(parents=True, exist_ok=True)
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    with (layout.logs / "start.log").open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env=environment,
        )


def _is_shim(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/comm").read_text(encoding="utf-8").startswith("containerd-shim")
    except OSError:
        return False


def reload(number: int) -> None:
    """Let the supervisor read its configuration again: it restarts what changed and nothing else."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, signal.SIGHUP)


def stop(layout: Layout, number: int, *, patience: float = 60.0) -> None:
    """Let the supervisor end its daemons in order; containers go on running.

    :raises Failure: ``supervisor_remains``.
    """
    deadline = time.monotonic() + patience
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, signal.SIGTERM)
    while living(layout) == number:
        if time.monotonic() > deadline:
            raise Failure("supervisor_remains", f"Supervisor {number} of {layout.name}", "does not end")
        time.sleep(0.05)


def _digest(paths: Iterable[Path]) -> str:
    """One digest of several files' contents; a file that is missing counts as empty."""
    digest = hashlib.sha256()
    for path in paths:
        with contextlib.suppress(OSError):
            digest.update(path.read_bytes())
        digest.update(b"\0")
    return digest.hexdigest()[:16]
