# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What belongs to an embedded cluster itself: name resolution, storage, and Pod Security of its own namespaces."""

from __future__ import annotations

import hashlib
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.layout import DNS_ADDRESS, DNS_DOMAIN

STORAGE_CLASS = "local"
PROVISIONER = "groundwork.platform/local"
SYSTEM_NAMESPACES = ("kube-system", "kube-public", "kube-node-lease")
# The one that network policies name, as on other clusters.
_DNS_PORT = 53
_LABELS = {"app.kubernetes.io/name": "coredns", "app.kubernetes.io/part-of": "local-cluster", "k8s-app": "kube-dns"}


def base() -> list[dict[str, Any]]:
    """Everything that needs no image."""
    return [*(_namespace(name) for name in SYSTEM_NAMESPACES), _storage_class(), *_provisioner_rights()]


def dns(image: str) -> list[dict[str, Any]]:
    """CoreDNS, as Pod Security level `restricted` demands it.

    :param image: reference, present in containerd.
    """
    corefile = _corefile()
    reads = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    rbac = "rbac.authorization.k8s.io"
    return [
        _object("v1", "ServiceAccount", "coredns", "kube-system"),
        {**_object(f"{rbac}/v1", "ClusterRole", "groundwork:coredns"), "rules": reads},
        {
            **_object(f"{rbac}/v1", "ClusterRoleBinding", "groundwork:coredns"),
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "groundwork:coredns"},
            "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}],
        },
        {**_object("v1", "ConfigMap", "coredns", "kube-system"), "data": {"Corefile": corefile}},
        _dns_service(),
        _dns_deployment(image, hashlib.sha256(corefile.encode()).hexdigest()[:16]),
    ]


def _object(version: str, kind: str, name: str, namespace: str = "") -> dict[str, Any]:
    place = {"namespace": namespace} if namespace else {}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **place}}


def _namespace(name: str) -> dict[str, Any]:
    definition = _object("v1", "Namespace", name)
    definition["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}
    return definition


def _storage_class() -> dict[str, Any]:
    definition = _object("storage.k8s.io/v1", "StorageClass", STORAGE_CLASS)
    definition["metadata"]["annotations"] = {"storageclass.kubernetes.io/is-default-class": "true"}
    return {
        **definition,
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": True,
    }


def _provisioner_rights() -> list[dict[str, Any]]:
    name, rbac = "groundwork:storage-provisioner", "rbac.authorization.k8s.io"
    read, write = ["get", "list", "watch"], ["create", "update", "patch", "delete"]
    rules = [
        {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": [*read, *write]},
        {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": [*read, "update", "patch"]},
        {
            "apiGroups": [""],
            "resources": ["persistentvolumes/status", "persistentvolumeclaims/status"],
            "verbs": ["update", "patch"],
        },
        {"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": read},
        {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": read},
        {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "update", "patch"]},
    ]
    return [
        {**_object(f"{rbac}/v1", "ClusterRole", name), "rules": rules},
        {
            **_object(f"{rbac}/v1", "ClusterRoleBinding", name),
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": name}],
        },
    ]


def _corefile() -> str:
    # Nothing outside can be reached, so other names are refused at once rather than forwarded and waited for.
    return f"""\
.:{_DNS_PORT} {{
    errors
    health :8080
    ready :8181
    kubernetes {DNS_DOMAIN} in-addr.arpa ip6.arpa {{
        pods insecure
        ttl 10
    }}
    cache 10
    reload
}}
"""


def _dns_service() -> dict[str, Any]:
    # Named kube-dns, as everywhere: NetworkPolicies and tools look for it by this name and label.
    definition = _object("v1", "Service", "kube-dns", "kube-system")
    definition["metadata"]["labels"] = {**_LABELS, "kubernetes.io/name": "CoreDNS"}
    ports = [
        {"name": name, "port": 53, "protocol": protocol, "targetPort": f"dns-{protocol.lower()}"}
        for name, protocol in (("dns", "UDP"), ("dns-tcp", "TCP"))
    ]
    return {**definition, "spec": {"clusterIP": DNS_ADDRESS, "selector": {"k8s-app": "kube-dns"}, "ports": ports}}


def _dns_deployment(image: str, checksum: str) -> dict[str, Any]:
    definition = _object("apps/v1", "Deployment", "coredns", "kube-system")
    definition["metadata"]["labels"] = _LABELS
    ports = [
        {"name": "dns-udp", "containerPort": _DNS_PORT, "protocol": "UDP"},
        {"name": "dns-tcp", "containerPort": _DNS_PORT, "protocol": "TCP"},
    ]
    container = {
        "name": "coredns",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": ports,
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "170Mi"}},
        # Everything that starts waits for names, so being ready is noticed soon.
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1, "failureThreshold": 3},
        "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, "timeoutSeconds": 5, "failureThreshold": 5},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            # The program's file asks for this one, and could not be started if it were out of reach.
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        },
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
    }
    pod = {
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
            # In the pod's own network only; the file's capability has no effect where no privileges may be gained.
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "53"}],
        },
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
    annotations = {"groundwork.platform/config": checksum}
    return {
        **definition,
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"k8s-app": "kube-dns"}},
            "template": {"metadata": {"labels": _LABELS, "annotations": annotations}, "spec": pod},
        },
    }
