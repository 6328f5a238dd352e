# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small client of the API server with the admin's certificate: what the lifecycle needs, with no library to load.

The library of APPLY's modules takes most of a second to import, more than a whole run with nothing to do may take.
"""

from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

FIELD_MANAGER = "groundwork.platform"
# Plural names and scope of the kinds that belong to the cluster itself.
_PLURALS = {
    "Namespace": ("namespaces", False),
    "ServiceAccount": ("serviceaccounts", True),
    "ConfigMap": ("configmaps", True),
    "Service": ("services", True),
    "Deployment": ("deployments", True),
    "ClusterRole": ("clusterroles", False),
    "ClusterRoleBinding": ("clusterrolebindings", False),
    "StorageClass": ("storageclasses", False),
}


class Unreachable(Exception):
    """The API server does not answer (yet)."""


class Api:
    """A connection to one API server, opened when it is first used and again when it broke.

    :param server: URL without a path.
    :param certificates: the folder with ca.crt, admin.crt and admin.key.
    :param timeout: seconds for one answer.
    """

    def __init__(self, server: str, certificates: Path, *, timeout: float = 5.0) -> None:
        parts = urlsplit(server)
        self._host, self._port = parts.hostname or "", parts.port or 443
        self._certificates = certificates
        self._timeout = timeout
        self._connection: http.client.HTTPSConnection | None = None

    def get(self, path: str) -> dict[str, Any] | None:
        """The object or answer at a path; none when the API server says that there is none.

        :raises Unreachable: no answer, or one that only says that the API server is not ready.
        :raises Failure: ``api_refused`` for any other answer.
        """
        status, body = self._request("GET", path)
        if status == http.HTTPStatus.NOT_FOUND:
            return None
        return self._judge("GET", path, status, body)

    def ready(self) -> str:
        """Empty when the API server is ready to serve, else why not, shortly."""
        try:
            status, body = self._request("GET", "/readyz")
        except Unreachable as error:
            return str(error)
        if status == http.HTTPStatus.OK:
            return ""
        lines = body.decode(errors="replace").splitlines()
        failing = [line.split("]")[-1].split(" ")[0] for line in lines if line.startswith("[-]")]
        return f"not ready: {failing[0]}" if failing else f"HTTP {status}"

    def apply(self, definition: dict[str, Any]) -> dict[str, Any]:
        """Server-side apply of one object of a kind in this module's table.

        :raises Unreachable: see :meth:`get`.
        :raises Failure: ``api_refused``.
        """
        path = f"{path_of(definition)}?fieldManager={FIELD_MANAGER}&force=true"
        status, body = self._request("PATCH", path, json.dumps(definition), "application/apply-patch+yaml")
        return self._judge("apply", path_of(definition), status, body)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _request(self, method: str, path: str, body: str | None = None, kind: str = "") -> tuple[int, bytes]:
        headers = {"Accept": "application/json", **({"Content-Type": kind} if kind else {})}
        kept = self._connection is not None
        try:
            connection = self._connection or self._connect()
            self._connection = connection
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if kept and not isinstance(error, TimeoutError):
                # A kept connection tells of the API server that was; every request here may be made twice.
                return self._request(method, path, body, kind)
            raise Unreachable(f"{type(error).__name__}: {error}".removesuffix(": ")) from error

    def _connect(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self._certificates / "ca.crt"))
        context.load_cert_chain(self._certificates / "admin.crt", self._certificates / "admin.key")
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)

    def _judge(self, verb: str, path: str, status: int, body: bytes) -> dict[str, Any]:
        try:
            value = json.loads(body)
        except ValueError:
            value = {"message": body.decode(errors="replace")[:200]}
        if status < http.HTTPStatus.MULTIPLE_CHOICES and isinstance(value, dict):
            return value
        message = str(value.get("message", "")) if isinstance(value, dict) else ""
        if status in (http.HTTPStatus.SERVICE_UNAVAILABLE, http.HTTPStatus.TOO_MANY_REQUESTS):
            raise Unreachable(message or f"HTTP {status}")
        raise Failure("api_refused", f"API server, {verb} {path},", f"answered {status}", message)


def path_of(definition: dict[str, Any]) -> str:
    """The API path of an object."""
    plural, namespaced = _PLURALS[definition["kind"]]
    version, metadata = definition["apiVersion"], definition["metadata"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    namespace = f"/namespaces/{metadata['namespace']}" if namespaced else ""
    return f"{root}{namespace}/{plural}/{metadata['name']}"
