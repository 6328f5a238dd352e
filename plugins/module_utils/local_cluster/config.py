# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every component of the embedded cluster reads, as plain data; nothing here writes to a disk."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import files
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.layout import (
    CNI_PLUGINS,
    DNS_ADDRESS,
    DNS_DOMAIN,
    POD_CIDR,
    Layout,
)

# Who talks to the API server, each with the certificate of the same name.
KUBECONFIGS = ("controller-manager", "scheduler", "kube-proxy", "kubelet", "storage-provisioner")
# Kubelet insists on these values and would set them for the whole machine. In the node's mount namespace it is shown
# files that hold them already, so that the host keeps its own.
TUNABLES = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


@dataclasses.dataclass(frozen=True)
class File:
    """One file: its content, and its mode (0600 unless others than root may read it)."""

    content: str
    mode: int = 0o600


@dataclasses.dataclass(frozen=True)
class Host:
    """What the configuration has to know about the machine.

    :param lowers_oom_score: whether CAP_SYS_RESOURCE is there; without it no process may become less
        likely to be killed.
    :param snapshotter: ``overlayfs``, or ``native`` where the state folder is itself on an overlay.
    """

    lowers_oom_score: bool = True
    snapshotter: str = "overlayfs"


def render(layout: Layout, host: Host, *, pause: str, encryption_key: bytes) -> dict[Path, File]:
    """All files, by their paths.

    :param pause: reference of the sandbox image, present in containerd.
    :param encryption_key: 32 bytes.
    """
    config = layout.config
    named = {
        config / "encryption.yaml": _yaml(_encryption(encryption_key)),
        config / "audit-policy.yaml": _yaml(audit_policy()),
        config / "kubelet.yaml": _yaml(kubelet(layout, host)),
        config / "kube-proxy.yaml": _yaml(kube_proxy(layout)),
        config / "containerd.toml": File(containerd(layout, host, pause)),
        config / "cni" / "10-bridge.conflist": File(json.dumps(cni(), indent=1) + "\n"),
        # Pods that use the node's DNS settings (CoreDNS does) get none: nothing outside can be reached anyway.
        config / "resolv.conf": File("", 0o644),
    }
    for name in KUBECONFIGS:
        named[config / f"{name}.kubeconfig"] = _yaml(kubeconfig(layout, name))
    for key, value in TUNABLES.items():
        named[config / "sysctl" / key.replace("/", ".")] = File(value + "\n", 0o644)
    return named


def kubeconfig(layout: Layout, name: str) -> dict[str, Any]:
    """A kubeconfig that names the certificates' files, for the components."""
    user = {"client-certificate": str(layout.pki / f"{name}.crt"), "client-key": str(layout.pki / f"{name}.key")}
    return _kubeconfig(layout, {"certificate-authority": str(layout.pki / "ca.crt")}, name, user)


def admin_kubeconfig(layout: Layout) -> str:
    """The kubeconfig for people: it holds the certificates, so that it works wherever it is copied to."""
    authority = {"certificate-authority-data": _base64(layout.pki / "ca.crt")}
    user = {
        "client-certificate-data": _base64(layout.pki / "admin.crt"),
        "client-key-data": _base64(layout.pki / "admin.key"),
    }
    return files.to_yaml(_kubeconfig(layout, authority, layout.name, user))


def audit_policy() -> dict[str, Any]:
    """Who did what to which object, never with which content: a body may hold a secret of any kind."""
    components = ["system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy"]
    noise = ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi*", "/api*"]
    readings = ["get", "list", "watch"]
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets"]}]},
            {"level": "None", "nonResourceURLs": noise},
            {"level": "None", "users": components, "verbs": readings},
            {"level": "None", "userGroups": ["system:nodes"], "verbs": readings},
            {"level": "None", "resources": [{"group": "coordination.k8s.io"}, {"group": "", "resources": ["events"]}]},
            {"level": "None", "verbs": ["patch", "update"], "resources": [{"group": "", "resources": ["*/status"]}]},
            {"level": "Metadata"},
        ],
    }


def kubelet(layout: Layout, host: Host) -> dict[str, Any]:
    """Kubelet's configuration."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / "kubelet-serving.crt"),
        "tlsPrivateKeyFile": str(layout.pki / "kubelet-serving.key"),
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": DNS_DOMAIN,
        "resolvConf": str(layout.config / "resolv.conf"),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": -999 if host.lowers_oom_score else 0,
        "maxPods": 250,
        "registryPullQPS": 0,
        "serializeImagePulls": False,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        # Images are loaded, never pulled: one that kubelet deletes is gone. 100 turns its collection off, and without
        # disk thresholds no eviction deletes images either.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "100Mi"},
        "containerLogMaxSize": "10Mi",
        "containerLogMaxFiles": 2,
        "nodeStatusUpdateFrequency": "5s",
    }


def kube_proxy(layout: Layout) -> dict[str, Any]:
    """kube-proxy's configuration."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": POD_CIDR,
        "clientConnection": {"kubeconfig": str(layout.config / "kube-proxy.kubeconfig")},
        "hostnameOverride": layout.name,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "oomScoreAdj": 0,
        # The size of the table belongs to the whole machine, and only it may set it.
        "conntrack": {"maxPerCore": 0, "min": 0},
    }


def containerd(layout: Layout, host: Host, pause: str) -> str:
    """containerd's configuration, in the form that 1.6 and 1.7 read."""
    restrict = "false" if host.lowers_oom_score else "true"
    return f"""\
version = 2
root = "{layout.state}/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without CAP_SYS_RESOURCE no process may lower its own score, and every sandbox would fail.
  restrict_oom_score_adj = {restrict}
  netns_mounts_under_state_dir = true
  # As containerd 2 has it: a process without rights may listen on port 80 and send a ping.
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{host.snapshotter}"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{layout.config}/cni"
"""


def cni() -> dict[str, Any]:
    """The pods' network: one bridge in the node's namespace."""
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/var/lib/cni/networks",
                    "ranges": [[{"subnet": POD_CIDR}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _encryption(key: bytes) -> dict[str, Any]:
    keys = [{"name": "key1", "secret": base64.b64encode(key).decode()}]
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": [{"secretbox": {"keys": keys}}, {"identity": {}}]}],
    }


def _kubeconfig(layout: Layout, authority: dict[str, str], name: str, user: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": layout.name, "cluster": {"server": layout.server, **authority}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": layout.name, "context": {"cluster": layout.name, "user": name}}],
        "current-context": layout.name,
    }


def _yaml(value: dict[str, Any]) -> File:
    return File(files.to_yaml(value))


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
