# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Something that answers HTTP: at an address of its own, or a Service behind the API server."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import ApiError, Cluster, Unreachable
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_http import Answer
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

try:
    import urllib3
except ImportError:  # pragma: no cover - said as a Failure when a cluster is first asked for
    urllib3 = None  # type: ignore[assignment]


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where a check asks.

    :param url: an address that this machine reaches; empty to go through the API server.
    :param namespace: of the Service.
    :param service: its name; the API server's proxy subresource reaches it from wherever the API server is reached.
    :param port: number or name of its port.
    :param scheme: how the Service speaks: ``http`` or ``https``.
    :param headers: sent with each request; values may be secret.
    :param timeout: seconds for an answer.
    """

    url: str = ""
    namespace: str = ""
    service: str = ""
    port: str = ""
    scheme: str = "http"
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    verify: bool = True
    timeout: float = 5.0

    @classmethod
    def from_params(cls, where: str, params: Mapping[str, Any], namespace: str | None) -> Endpoint:
        """From the options ``url`` or ``service``, ``headers``, ``validate_certs`` and ``request_timeout``.

        :param where: whose they are, as messages name it.
        :raises Failure: ``bad_endpoint``.
        """
        service, url = params.get("service") or {}, str(params.get("url") or "")
        if bool(service) == bool(url):
            raise Failure("bad_endpoint", where, "needs either a url or a service", hint="give one of the two")
        if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
            raise Failure("bad_endpoint", where, "has a url that is none", _without_user(url), "give http://host:port")
        space = str(service.get("namespace") or namespace or "default") if service else ""
        return cls(
            url,
            space,
            str(service.get("name") or ""),
            str(service.get("port") or ""),
            str(service.get("scheme") or "http"),
            {str(name): str(value) for name, value in (params.get("headers") or {}).items()},
            params.get("validate_certs") is not False,
            float(params.get("request_timeout") or 5.0),
        )

    @property
    def shown(self) -> str:
        """The endpoint as messages name it."""
        if self.url:
            return _without_user(self.url)
        return f"Service {self.namespace}/{self.service}:{self.port}"

    def ask(self, cluster: Cluster, path: str, query: Mapping[str, Any] | None = None) -> Answer:
        """Send one GET; any status is an answer.

        :raises Unreachable: nobody answered, or the API server could not pass the request on.
        """
        if self.url:
            return self._ask_directly(path, query)
        prefix = "https:" if self.scheme == "https" else ""
        proxy = f"/api/v1/namespaces/{self.namespace}/services/{prefix}{self.service}:{self.port}/proxy{path}"
        try:
            answer = cluster.transport.exchange("GET", proxy, query, self.headers, self.timeout)
        except ApiError as error:
            raise Unreachable("unreachable", self.shown, "cannot be asked", error.evidence) from error
        refusal = _own_words(answer)
        if refusal:
            hint = "allow this user get on services/proxy" if answer.status == 403 else ""
            raise Unreachable("unreachable", self.shown, "cannot be reached through the API server", refusal, hint)
        return answer

    def _ask_directly(self, path: str, query: Mapping[str, Any] | None) -> Answer:
        if urllib3 is None:
            hint = "install the collection's requirements, for example with the package kubernetes"
            raise Failure("missing_library", "The Python package urllib3", "is not installed", hint=hint)
        target = self.url.rstrip("/") + path + ("?" + urlencode(query) if query else "")
        options: dict[str, Any] = {} if self.verify else {"cert_reqs": "CERT_NONE", "assert_hostname": False}
        if not self.verify:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        try:
            with urllib3.PoolManager(**options) as pool:
                response = pool.request(
                    "GET",
                    target,
                    headers=dict(self.headers),
                    retries=False,
                    redirect=False,
                    timeout=urllib3.Timeout(connect=self.timeout, read=self.timeout),
                )
                fields = {str(name).lower(): str(value) for name, value in response.headers.items()}
                return Answer(int(response.status), fields, bytes(response.data))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            reason = str(getattr(error, "reason", None) or error).rpartition(">: ")[2]
            raise Unreachable("unreachable", self.shown, "does not answer", reason) from error


def _own_words(answer: Answer) -> str:
    """What the API server itself says in place of the Service; empty when the answer is the Service's."""
    if answer.status < 400 or "json" not in answer.headers.get("content-type", ""):
        return ""
    try:
        body = json.loads(answer.body)
    except ValueError:
        return ""
    own = isinstance(body, dict) and body.get("kind") == "Status" and body.get("apiVersion") == "v1"
    return str(body.get("message") or body.get("reason") or "it refuses") if own else ""


def _without_user(url: str) -> str:
    """A URL without what may be a password, and without its query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme else host or "(empty)"
