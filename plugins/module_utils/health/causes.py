# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What waits for what, so that one broken database is one failure and not forty.

The order comes from the objects themselves: who makes a Secret, whose pods a Service selects, which Service a log or
an environment variable names. Pure: objects, diagnoses and log lines in, an order out.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object, describe
from ansible_collections.groundwork.platform.plugins.module_utils.health.judge import Assessment, Diagnosis
from ansible_collections.groundwork.platform.plugins.module_utils.health.missing import Reference, reference
from ansible_collections.groundwork.platform.plugins.module_utils.health.view import kind_of

Logs = Mapping[tuple[str, str], Sequence[str]]
"""Last lines of containers' logs, by the pod's uid and the container's name."""

RUNTIME = ("crash_loop", "probe_killed", "not_ready", "init_waiting", "job_failed", "progress_deadline")
"""Troubles that something else may be the reason of: the container runs, and misses what it talks to."""
_CLAIMS = ("claim_missing", "claim_unbound", "provisioning_failed", "storage_class_missing", "no_provisioner")
_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")

CONNECTION = re.compile(
    r"refused|reset by peer|could not connect|can(?:no|')t connect|failed to connect|unable to connect"
    r"|connect(?:ion|ing)?\b.{0,80}\b(?:error|failed|timed? ?out|closed)|error\b.{0,40}\bconnect"
    r"|no such host|name or service not known|could not translate host|name resolution|getaddrinfo"
    r"|EAI_AGAIN|ENOTFOUND|ECONN\w+|ETIMEDOUT|EHOSTUNREACH|no route to host|unreachable|timed? ?out|deadline exceeded"
    r"|not (?:yet )?accepting connections|database system is|no response|waiting for|not available|unavailable|LOADING",
    re.IGNORECASE,
)
"""What programs say when somebody they need does not answer."""
_WORD = re.compile(r"[A-Za-z0-9](?:[\w.-]*\w)?")
_QUOTA = re.compile(r"exceeded quota: ([^\s,]+)")
_IMAGE = re.compile(r"image(?: that does not exist:)? (\S+)")
_ACCOUNT = re.compile(r'serviceaccount "([^"]+)" not found', re.IGNORECASE)
_WEBHOOK = re.compile(r'failed calling webhook "([^"]+)"')


class Causes:
    """The dependencies within one set of objects.

    :param objects: the targets, as they are in the cluster where they are there.
    """

    def __init__(self, objects: Iterable[Object]) -> None:
        self._objects = list(objects)
        self._names = {_key(obj): describe(obj) for obj in self._objects}
        self._hosts: dict[tuple[str, str], set[str]] = {}
        self._makers: dict[tuple[str, str, str], str] = {}
        self._by_name = {describe(obj): obj for obj in self._objects}
        for obj in self._objects:
            self._note_hosts(obj)
            for kind, name in _makes(obj):
                self._makers[(kind, _namespace(obj), name)] = describe(obj)

    # What waits for what

    def needs(self, diagnosis: Diagnosis, logs: Logs) -> set[str]:
        """Targets that one in trouble waits for, as messages name them."""
        obj = self._by_name.get(diagnosis.target)
        if obj is None:
            return set()
        found = {name for name in self._declared(obj) if diagnosis.code not in _OWN}
        text = f"{diagnosis.cause} {diagnosis.evidence}"
        namespace = _namespace(obj)
        if diagnosis.code == "config_missing":
            lacks = _lacks(diagnosis, namespace)
            found |= self._made(lacks.kind, namespace, lacks.name) if lacks else set()
        elif diagnosis.code in _CLAIMS:
            found |= {self._names[key] for key in self._names if key[1] == "PersistentVolumeClaim" and key[3] in text}
        elif diagnosis.code == "webhook_unavailable":
            found |= self._hosts_in([text], namespace)
        elif diagnosis.code in RUNTIME:
            found |= self._needed_at_run_time(diagnosis, namespace, logs)
        found.discard(diagnosis.target)
        return found

    def _needed_at_run_time(self, diagnosis: Diagnosis, namespace: str, logs: Logs) -> set[str]:
        signal = diagnosis.signal
        if signal is None or signal.pod is None:
            return set()
        lines = logs.get((str(signal.pod["metadata"].get("uid")), signal.container), ())
        telling = [line for line in lines if CONNECTION.search(line)]
        if lines and not telling:
            # It says something, and nothing about anybody else: the trouble is its own.
            return set()
        return self._hosts_in(telling, namespace) or self._hosts_in(_settings(signal.pod, signal.container), namespace)

    def _declared(self, obj: Mapping[str, Any]) -> Iterator[str]:
        """What an object names in its own spec."""
        spec, space = obj.get("spec") or {}, _namespace(obj)
        references: list[tuple[str, str, str]] = []
        kind = str(obj.get("kind"))
        if kind == "Service":
            yield from self._selected(obj)
        elif kind == "ExternalSecret":
            store = spec.get("secretStoreRef") or {}
            references.append((str(store.get("kind") or "SecretStore"), space, str(store.get("name"))))
        elif kind == "Certificate":
            issuer = spec.get("issuerRef") or {}
            references.append((str(issuer.get("kind") or "Issuer"), space, str(issuer.get("name"))))
        elif kind in ("HorizontalPodAutoscaler", "ScaledObject"):
            target = spec.get("scaleTargetRef") or {}
            references.append((str(target.get("kind") or "Deployment"), space, str(target.get("name"))))
        elif kind == "APIService":
            service = spec.get("service") or {}
            references.append(("Service", str(service.get("namespace")), str(service.get("name"))))
        elif kind in ("HTTPRoute", "Ingress"):
            references += [("Service", space, name) for name in _backends(spec)]
            references += [
                ("Gateway", str(item.get("namespace") or space), str(item.get("name")))
                for item in spec.get("parentRefs") or []
            ]
        for wanted, namespace, name in references:
            for key, described in self._names.items():
                if key[1] == wanted and key[3] == name and key[2] in ("", namespace):
                    yield described

    def _selected(self, service: Mapping[str, Any]) -> Iterator[str]:
        selector = (service.get("spec") or {}).get("selector") or {}
        for obj in self._objects:
            labels = (((obj.get("spec") or {}).get("template") or {}).get("metadata") or {}).get("labels") or {}
            if (
                obj.get("kind") in _WORKLOADS
                and _namespace(obj) == _namespace(service)
                and selector
                and all(labels.get(key) == value for key, value in selector.items())
            ):
                yield describe(obj)

    def _made(self, kind: str, namespace: str, name: str) -> set[str]:
        maker = self._makers.get((kind, namespace, name))
        return {maker} if maker else set()

    def _note_hosts(self, obj: Object) -> None:
        """Under which host names an object's pods are reached."""
        name, space, kind = str(obj["metadata"]["name"]), _namespace(obj), str(obj.get("kind"))
        if kind == "Service":
            behind = set(self._selected(obj)) or {describe(obj)}
            address = str((obj.get("spec") or {}).get("clusterIP") or "")
            hosts = [name, *([address] if address not in ("", "None") else [])]
        elif kind_of(obj) == ("postgresql.cnpg.io", "Cluster"):
            behind, hosts = {describe(obj)}, [f"{name}-rw", f"{name}-ro", f"{name}-r"]
        else:
            return
        for host in hosts:
            self._hosts.setdefault((space, host), set()).update(behind)

    def _hosts_in(self, texts: Iterable[str], namespace: str) -> set[str]:
        """Targets whose host names, short or with their namespace, are words of the texts."""
        found: set[str] = set()
        for text in texts:
            for word in _WORD.findall(text):
                host, _dot, rest = word.partition(".")
                found |= self._hosts.get((namespace, word), set())
                found |= self._hosts.get((rest.split(".")[0] or namespace, host), set())
        return found

    # The order

    def waiting(self, assessment: Assessment, logs: Logs) -> dict[int, set[str]]:
        """Which of the doomed are not to be condemned yet, as what they need is still on its way.

        :return: index in ``assessment.doomed`` to the targets waited for. One that needs another doomed one, and that
            one is not waiting itself, is a consequence of it and doomed with it.
        """
        unready = {status.target for status in assessment.statuses if not status.readiness.ready}
        needs = {number: self.needs(item, logs) & unready for number, item in enumerate(assessment.doomed)}
        waiting: dict[int, set[str]] = {}
        while True:
            settled = {item.target for number, item in enumerate(assessment.doomed) if number not in waiting}
            more = {
                number: names - settled
                for number, names in needs.items()
                if number not in waiting and names and not names & settled
            }
            if not more:
                return waiting
            waiting.update(more)

    def order(self, diagnoses: Sequence[Diagnosis], logs: Logs) -> list[Diagnosis]:
        """All diagnoses, roots first and of those the ones that most depends on; the rest say what they follow from."""
        broken = {item.target for item in diagnoses}
        needs = {item.target: set[str]() for item in diagnoses}
        for item in diagnoses:
            needs[item.target] |= self.needs(item, logs) & broken
        rank = {item.target: item.rank() for item in reversed(diagnoses)}
        shared: dict[str, str] = {}
        explained = []
        for item in sorted(diagnoses, key=Diagnosis.rank):
            because = _root(item.target, needs, rank) if needs[item.target] else ""
            if not because:
                label = common_cause(item)
                first = shared.setdefault(label, item.target) if label else item.target
                because = label if first != item.target else ""
            explained.append(dataclasses.replace(item, because=because))
        followers: dict[str, int] = {}
        for item in explained:
            name = shared.get(item.because, item.because)
            followers[name] = followers.get(name, 0) + 1
        return sorted(explained, key=lambda item: (bool(item.because), -followers.get(item.target, 0), item.rank()))


_OWN = frozenset(
    {
        "image_invalid", "image_not_found", "image_denied", "image_not_present", "image_pull", "pod_security",
        "admission_denied", "limits_refused", "pods_invalid", "quota_exceeded", "paused", "deleted", "terminating",
    }
)  # fmt: skip
"""Troubles that are an object's own, whatever else it names."""


def _root(start: str, needs: Mapping[str, set[str]], rank: Mapping[str, tuple[int, int, str]]) -> str:
    """The end of the chain of what a target needs; empty if it comes back to the target itself."""
    seen, name = {start}, start
    while needs.get(name):
        name = min(needs[name], key=lambda item: rank[item])
        if name in seen:
            # Two that need each other: the one that comes first by its trouble is the root.
            first = min(seen, key=lambda item: rank[item])
            return "" if first == start else first
        seen.add(name)
    return name if name != start else ""


def common_cause(diagnosis: Diagnosis) -> str:
    """Something that is no target and that several of them may lack, as messages name it; empty if there is none."""
    namespace = diagnosis.target.partition(" ")[2].rpartition("/")[0]
    text = f"{diagnosis.cause} {diagnosis.evidence}"
    code = diagnosis.code
    if code == "config_missing":
        lacks = _lacks(diagnosis, namespace)
        return f"{lacks.kind} {namespace}/{lacks.name}" if lacks else ""
    if code in ("image_not_found", "image_denied", "image_pull", "image_not_present"):
        found = _IMAGE.search(diagnosis.cause)
        return f"image {found[1]}" if found else ""
    for wanted, pattern, label in (
        ("quota_exceeded", _QUOTA, "ResourceQuota {namespace}/{name}"),
        ("service_account_missing", _ACCOUNT, "ServiceAccount {namespace}/{name}"),
        ("webhook_unavailable", _WEBHOOK, "webhook {name}"),
    ):
        found = pattern.search(text) if code == wanted else None
        if found:
            return label.format(namespace=namespace, name=found[1])
    return "room on the nodes" if code == "unschedulable" else ""


def _lacks(diagnosis: Diagnosis, namespace: str) -> Reference | None:
    """What is missing; read from the evidence where the trouble is not one pod's."""
    found = diagnosis.signal.lacks if diagnosis.signal else None
    return found or reference(diagnosis.evidence, namespace)


def _key(obj: Mapping[str, Any]) -> tuple[str, str, str, str]:
    group, kind = kind_of(obj)
    return group, kind, _namespace(obj), str(obj["metadata"]["name"])


def _namespace(obj: Mapping[str, Any]) -> str:
    return str(obj["metadata"].get("namespace") or "")


def _makes(obj: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Secrets and ConfigMaps that come from an object: (kind, name)."""
    kind, name, spec = str(obj.get("kind")), str(obj["metadata"]["name"]), obj.get("spec") or {}
    if kind == "ExternalSecret":
        yield "Secret", str((spec.get("target") or {}).get("name") or name)
    elif kind == "Certificate":
        yield "Secret", str(spec.get("secretName"))
    elif kind == "SealedSecret":
        yield "Secret", name
    elif kind_of(obj) == ("postgresql.cnpg.io", "Cluster"):
        for part in ("app", "superuser", "ca", "server", "replication"):
            yield "Secret", f"{name}-{part}"
    elif kind in ("Secret", "ConfigMap"):
        yield kind, name


def _backends(spec: Mapping[str, Any]) -> Iterator[str]:
    """Services that an HTTPRoute or an Ingress sends to."""
    for rule in spec.get("rules") or []:
        for backend in rule.get("backendRefs") or []:
            yield str(backend.get("name"))
        for path in (rule.get("http") or {}).get("paths") or []:
            yield str(((path.get("backend") or {}).get("service") or {}).get("name"))


def _settings(pod: Mapping[str, Any], container: str) -> Iterator[str]:
    """Command, arguments and plain environment of a container: where it is told whom to talk to."""
    spec = pod.get("spec") or {}
    for item in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        if item.get("name") == container:
            yield from (str(part) for part in [*(item.get("command") or []), *(item.get("args") or [])])
            yield from (str(variable.get("value") or "") for variable in item.get("env") or [])
