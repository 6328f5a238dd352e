# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database that is migrated: how a pod reaches it, and how it is asked from here.

It is asked by running psql in a pod, never through a forwarded port: in the primary itself where CloudNativePG runs the
database, else in the container that holds the lock.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils import pod_exec
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, Object, Resource
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.migration import masking

PODS = Resource("", "v1", "Pod", "pods", True)
CLUSTERS = Resource("postgresql.cnpg.io", "v1", "Cluster", "clusters", True)
CERTIFICATES = "/etc/groundwork-database"
SILENCE = 60.0
"""Seconds without an answer after which a question to the database is given up."""

Manifest = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Database:
    """One database of a PostgreSQL server.

    Passwords are never here: pods get them by reference to a Secret.

    :param cluster: name of the CloudNativePG Cluster, empty where the server is another one.
    :param name: of the database; empty: what the Secret of the Cluster says.
    :param secret: Secret with ``username`` and ``password``.
    :param ca_secret: Secret with ``ca.crt``; empty: the server's certificate is not checked.
    :param image: with psql, for the lock; empty: that of the Cluster's instances.
    """

    cluster: str = ""
    host: str = ""
    port: int = 5432
    name: str = ""
    secret: str = ""
    username_key: str = "username"
    password_key: str = "password"  # noqa: S105 - the name of a key
    ca_secret: str = ""
    image: str = ""
    sslmode: str = ""

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Database:
        """From the module's parameters.

        :raises Failure: ``bad_database``: neither a Cluster nor a server with all that it takes.
        """
        given = {key: value for key, value in params.items() if value not in (None, "")}
        name = str(given.get("cluster") or "")
        if name:
            clash = [key for key in ("host", "secret") if key in given]
            if clash:
                raise Failure("bad_database", "The database", f"is named by cluster and by {clash[0]}",
                              hint="give one of them")  # fmt: skip
            more = {"host": f"{name}-rw", "secret": f"{name}-app", "ca_secret": f"{name}-ca"}
            return cls(**{**more, **given})
        missing = [key for key in ("host", "name", "secret", "image") if key not in given]
        if missing:
            raise Failure("bad_database", "The database", f"lacks {' and '.join(missing)}",
                          hint="name a CloudNativePG Cluster, or give host, name, secret and image")  # fmt: skip
        return cls(**given)

    def environment(self) -> list[Manifest]:
        """What libpq reads."""
        name: Manifest = {"name": "PGDATABASE", "value": self.name}
        if not self.name:
            name = _from_secret("PGDATABASE", self.secret, "dbname")
        environment = [
            {"name": "PGHOST", "value": self.host},
            {"name": "PGPORT", "value": str(self.port)},
            name,
            _from_secret("PGUSER", self.secret, self.username_key),
            _from_secret("PGPASSWORD", self.secret, self.password_key),
            {"name": "PGSSLMODE", "value": self.sslmode or ("verify-full" if self.ca_secret else "prefer")},
        ]
        if self.ca_secret:
            environment.append({"name": "PGSSLROOTCERT", "value": f"{CERTIFICATES}/ca.crt"})
        return environment

    def volumes(self) -> list[Manifest]:
        """The certificate authority, without the key that may lie beside it."""
        if not self.ca_secret:
            return []
        items = [{"key": "ca.crt", "path": "ca.crt"}]
        secret = {"secretName": self.ca_secret, "items": items, "defaultMode": 0o444}
        return [{"name": "groundwork-ca", "secret": secret}]

    def mounts(self) -> list[Manifest]:
        """Where it is mounted."""
        return [{"name": "groundwork-ca", "mountPath": CERTIFICATES, "readOnly": True}] if self.ca_secret else []

    @property
    def subject(self) -> str:
        """How messages call it."""
        return f"Database {self.name or 'app'} of {'Cluster ' if self.cluster else ''}{self.cluster or self.host}"


def _from_secret(name: str, secret: str, key: str) -> Manifest:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


class Console:
    """Asks a database, by psql in a container.

    :param where: namespace, pod and container.
    :param connection: arguments of psql that its environment there does not give.
    """

    def __init__(
        self, cluster: Cluster, where: tuple[str, str, str], connection: tuple[str, ...] = (), subject: str = ""
    ) -> None:
        self._cluster = cluster
        self.where = where
        self._connection = connection
        self._subject = subject or f"The database as pod {where[0]}/{where[1]} reaches it"

    def run(self, *command: str, silence: float = SILENCE) -> pod_exec.Outcome:
        """Run a command in the container."""
        try:
            return pod_exec.run(self._cluster, self.where, list(command), silence=silence)
        except Failure as failure:
            if "status 403" in failure.cause:
                failure.hint = "allow the verb create on pods/exec in the namespace"
            raise

    def value(self, sql: str) -> str:
        """The answer to a query of one row and column, as text.

        :raises Failure: ``query``: the database refused it.
        """
        done = self.run("psql", *self._connection, "-XAtqw", "-v", "ON_ERROR_STOP=1", "-c", sql)
        if done.code != 0:
            raise Failure("query", self._subject, "cannot be asked", masking.message(done.stderr))
        return done.stdout.rstrip("\n")

    def data(self, sql: str) -> Any:
        """The answer to a query that gives JSON."""
        text = self.value(sql)
        try:
            return json.loads(text) if text else None
        except ValueError as error:
            raise Failure("query", self._subject, "answered with something that is no JSON") from error

    def files(self, folder: str, names: Sequence[str]) -> dict[str, str | None]:
        """The texts of files; None where there is none."""
        script = 'cd "$0" && for f; do [ -e "$f" ] && { wc -c <"$f"; echo "$f"; cat "$f"; }; done; exit 0'
        data = self.run("sh", "-c", script, folder, *names).stdout.encode("utf-8", "surrogateescape")
        found: dict[str, str | None] = dict.fromkeys(names)
        while data:
            length, name, data = data.split(b"\n", 2)
            found[name.decode()] = data[: int(length)].decode("utf-8", "replace")
            data = data[int(length) :]
        return found


def primary(cluster: Cluster, namespace: str, name: str) -> Object:
    """The pod of a CloudNativePG Cluster that takes writes.

    :raises Failure: ``no_primary``.
    """
    for role in ("cnpg.io/instanceRole", "role"):
        pods = cluster.list(PODS, namespace, f"cnpg.io/cluster={name},{role}=primary", "status.phase=Running").items
        living = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        if living:
            return living[0]
    raise Failure("no_primary", f"Cluster {namespace}/{name}", "has no running primary that could be asked",
                  hint="see kubectl describe cluster, and run again when it is healthy")  # fmt: skip


def primary_console(cluster: Cluster, namespace: str, database: Database) -> Console:
    """The database as its own superuser sees it, over the server's socket.

    :raises Failure: ``no_primary`` or ``no_database``.
    """
    pod = primary(cluster, namespace, database.cluster)
    name = database.name or _bootstrapped(cluster, namespace, database.cluster)
    where = (namespace, str(pod["metadata"]["name"]), "postgres")
    return Console(cluster, where, ("-U", "postgres", "-d", name), f"Database {name} in pod {namespace}/{where[1]}")


def image_of(cluster: Cluster, namespace: str, database: Database) -> str:
    """The image that has psql of the database's own version: what its primary runs, unless one is given."""
    if database.image or not database.cluster:
        return database.image
    for container in primary(cluster, namespace, database.cluster)["spec"]["containers"]:
        if container["name"] == "postgres":
            return str(container["image"])
    raise Failure("no_primary", f"Cluster {namespace}/{database.cluster}", "has no container postgres in its primary",
                  hint="name an image that has psql")  # fmt: skip


def _bootstrapped(cluster: Cluster, namespace: str, name: str) -> str:
    live = cluster.get(CLUSTERS, name, namespace)
    if live is None:
        raise Failure("no_database", f"Cluster {namespace}/{name}", "does not exist", hint="create it first")
    bootstrap = (live.get("spec") or {}).get("bootstrap") or {}
    for method in bootstrap.values():
        if isinstance(method, Mapping) and method.get("database"):
            return str(method["database"])
    return "app"
