"""A real control plane without nodes for tests: etcd, kube-apiserver, kube-controller-manager on free loopback ports.

Everything lies in one temporary folder and ends with :meth:`ControlPlane.stop`, also when the test process is
killed (the processes get a death signal with their parent). Without a node, a test writes what a kubelet would:
see :mod:`tests.support.kubelet`.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import datetime
import ipaddress
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.ports import free_ports

BINARY_VARIABLE = "GROUNDWORK_KUBERNETES_BINARY"
CONTEXT = "test"


def find_binary() -> Path | None:
    """The compiled Kubernetes: what the environment names, else the newest in the collection's cache."""
    named = os.environ.get(BINARY_VARIABLE)
    if named:
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "groundwork.platform" / "bin"
    found = [path for path in cache.glob("**/kubernetes") if path.is_file() and os.access(path, os.X_OK)]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


class ControlPlane:
    """etcd, API server and controller manager.

    :param binary: the one binary that is all of Kubernetes, or a folder with etcd, kube-apiserver and so on.
    :param controllers: whether to run the controller manager too.
    """

    def __init__(self, binary: Path, controllers: bool = True) -> None:
        self.binary = binary
        self.controllers = controllers
        self.folder = Path(tempfile.mkdtemp(prefix="groundwork-control-plane-"))
        self.kubeconfig = self.folder / "kubeconfig"
        self.tokens: dict[str, str] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = free_ports(4)
        # The kernel counts the thread that started a process as its parent: this one lives as long as the plane.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="control-plane")

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://127.0.0.1:{self._ports[2]}"

    def start(self, timeout: float = 90.0) -> ControlPlane:
        """Start all and wait until the API server is ready and the controllers run."""
        try:
            self._certificates()
            self._start_etcd()
            self.start_api_server()
            self.wait_ready(timeout)
            if self.controllers:
                self.start_controllers()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End all processes and remove the folder."""
        for name in list(self._processes):
            self.kill(name)
        self._starter.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self, name: str) -> None:
        """Kill one process at once: ``etcd``, ``kube-apiserver`` or ``kube-controller-manager``."""
        process = self._processes.pop(name, None)
        if process is not None:
            process.kill()
            process.wait()

    def start_api_server(self) -> None:
        """Start the API server; also after :meth:`kill`, with the same address and data."""
        folder = self.folder
        self._spawn(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._ports[0]}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._ports[2]}",
            f"--tls-cert-file={folder}/server.crt",
            f"--tls-private-key-file={folder}/server.key",
            f"--client-ca-file={folder}/ca.crt",
            f"--token-auth-file={folder}/tokens.csv",
            f"--service-account-key-file={folder}/service-account.pub",
            f"--service-account-signing-key-file={folder}/service-account.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            "--endpoint-reconciler-type=none",
            "--disable-admission-plugins=TaintNodesByCondition",
            "--allow-privileged=true",
            "--event-ttl=1h",
        )

    def revive(self) -> None:
        """Start a killed API server and wait for it; controllers too, since the old ones try ever more seldom."""
        self.start_api_server()
        self.wait_ready()
        if self.controllers:
            self.kill("kube-controller-manager")
            self.start_controllers()

    def start_controllers(self) -> None:
        """Start the controller manager, which keeps trying until the API server answers."""
        folder = self.folder
        self._spawn(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._ports[3]}",
            "--use-service-account-credentials=false",
            # Nodes that a test makes up have no heartbeat, or are no more than a name in a pod: the collector of
            # orphans would end such a pod at some moment.
            "--controllers=*,-node-lifecycle-controller,-taint-eviction-controller,-pod-garbage-collector-controller",
            f"--service-account-private-key-file={folder}/service-account.key",
            f"--root-ca-file={folder}/ca.crt",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        )

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until ``/readyz`` says ok."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        context.load_cert_chain(self.folder / "admin.crt", self.folder / "admin.key")
        deadline = time.monotonic() + timeout
        while True:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{self.server}/readyz", context=context, timeout=2) as answer,
            ):
                if answer.status == 200:
                    return
            process = self._processes["kube-apiserver"]
            if process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "kube-apiserver.log").read_text(errors="replace").splitlines()[-15:]
                raise RuntimeError("the API server did not get ready:\n" + "\n".join(log))
            time.sleep(0.1)

    def user_kubeconfig(self, user: str, token: str | None = None, **cluster: Any) -> Path:
        """Path of a kubeconfig for one of :data:`TOKENS`' users; ``cluster`` overrides fields of its cluster."""
        path = self.folder / f"kubeconfig-{user}"
        self._write_kubeconfig(path, {"token": self.tokens[user] if token is None else token}, cluster)
        return path

    def _start_etcd(self) -> None:
        client, peer = (f"http://127.0.0.1:{port}" for port in self._ports[:2])
        self._spawn(
            "etcd",
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=error",
        )

    def _spawn(self, name: str, *arguments: str) -> None:
        command = [str(self.binary / name)] if self.binary.is_dir() else [str(self.binary), name]
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = self._starter.submit(
                subprocess.Popen,
                [*command, *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                preexec_fn=die_with_parent,
            ).result()

    def _certificates(self) -> None:
        authority_key = ec.generate_private_key(ec.SECP256R1())
        authority = _certificate("test authority", [], authority_key, None, None)
        for name, subject, groups, hosts in (
            ("server", "kube-apiserver", [], ["127.0.0.1", "localhost", "kubernetes.default.svc"]),
            ("admin", "admin", ["system:masters"], []),
        ):
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = _certificate(subject, groups, key, authority, authority_key, hosts)
            (self.folder / f"{name}.crt").write_bytes(_pem(certificate))
            (self.folder / f"{name}.key").write_bytes(_pem_key(key))
        (self.folder / "ca.crt").write_bytes(_pem(authority))
        account = ec.generate_private_key(ec.SECP256R1())
        (self.folder / "service-account.key").write_bytes(_pem_key(account))
        (self.folder / "service-account.pub").write_bytes(
            account.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        self.tokens = {
            name: base64.b16encode(os.urandom(16)).decode().lower() for name in ("nobody", "reader", "writer")
        }
        lines = [f"{token},{name},{name}-id" for name, token in self.tokens.items()]
        (self.folder / "tokens.csv").write_text("\n".join(lines) + "\n")
        encoded = {
            "client-certificate-data": _base64(self.folder / "admin.crt"),
            "client-key-data": _base64(self.folder / "admin.key"),
        }
        self._write_kubeconfig(self.kubeconfig, encoded, {})

    def _write_kubeconfig(self, path: Path, user: dict[str, str], cluster: dict[str, Any]) -> None:
        entry = {"server": self.server, "certificate-authority-data": _base64(self.folder / "ca.crt"), **cluster}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": CONTEXT,
            "clusters": [
                {"name": CONTEXT, "cluster": {key: value for key, value in entry.items() if value is not None}}
            ],
            "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT}}],
            "users": [{"name": CONTEXT, "user": user}],
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(document))


def die_with_parent() -> None:
    """Ask the kernel to kill this child with its parent, so that a killed test run leaves no process."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)


def _certificate(
    subject: str,
    groups: list[str],
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey | None,
    hosts: list[str] | None = None,
) -> x509.Certificate:
    name = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        + [x509.NameAttribute(NameOID.COMMON_NAME, subject)]
    )
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer is not None and issuer_key is not None:
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    if hosts:
        names: list[x509.GeneralName] = []
        for host in hosts:
            with contextlib.suppress(ValueError):
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
                continue
            names.append(x509.DNSName(host))
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key or key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
