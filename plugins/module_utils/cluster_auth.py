# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a play says about a cluster to what a connection needs: address, trust and credentials.

Options and environment variables have the names that kubernetes.core gives them. A kubeconfig is read here rather than
by the ``kubernetes`` package, whose import alone costs most of a second at each start of a module; that package is
loaded only for a user of the old ``auth-provider`` stanza, which nothing else understands.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import datetime
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

try:
    import yaml
except ImportError:  # ansible_module.run says so before anything needs it
    yaml = None  # type: ignore[assignment]

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_FILE_LIFE = 60.0
"""Seconds after which a token file is read again; bound tokens are renewed in place."""

# Option name -> (type, aliases, environment variables, does it hold a secret). A kubeconfig's path is no secret
# and, if it were masked, would make every message about it unreadable; one given as a mapping is hidden by
# cluster_module.conceal.
OPTIONS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...], bool]] = {
    "kubeconfig": ("raw", (), ("K8S_AUTH_KUBECONFIG",), False),
    "context": ("str", (), ("K8S_AUTH_CONTEXT",), False),
    "host": ("str", (), ("K8S_AUTH_HOST",), False),
    "api_key": ("str", (), ("K8S_AUTH_API_KEY",), True),
    "username": ("str", (), ("K8S_AUTH_USERNAME",), False),
    "password": ("str", (), ("K8S_AUTH_PASSWORD",), True),
    "client_cert": ("path", ("cert_file",), ("K8S_AUTH_CERT_FILE",), False),
    "client_key": ("path", ("key_file",), ("K8S_AUTH_KEY_FILE",), False),
    "ca_cert": ("path", ("ssl_ca_cert",), ("K8S_AUTH_SSL_CA_CERT",), False),
    "validate_certs": ("bool", ("verify_ssl",), ("K8S_AUTH_VERIFY_SSL",), False),
    "proxy": ("str", (), ("K8S_AUTH_PROXY",), False),
    "no_proxy": ("str", (), ("K8S_AUTH_NO_PROXY",), False),
    "impersonate_user": ("str", (), ("K8S_AUTH_IMPERSONATE_USER",), False),
    "impersonate_groups": ("list", (), ("K8S_AUTH_IMPERSONATE_GROUPS",), False),
}

_OF_FILE = frozenset({"kubeconfig", "context"})
_OF_HOST = frozenset(
    {"host", "api_key", "username", "password", "client_cert", "client_key", "ca_cert", "validate_certs"}
)


def auth_argument_spec() -> dict[str, dict[str, Any]]:
    """The connection options of every module; the doc fragment ``groundwork.platform.auth`` describes them."""
    spec: dict[str, dict[str, Any]] = {}
    for name, (kind, aliases, _environment, secret) in OPTIONS.items():
        spec[name] = {"type": kind}
        if aliases:
            spec[name]["aliases"] = list(aliases)
        if kind == "list":
            spec[name]["elements"] = "str"
        if secret:
            spec[name]["no_log"] = True
    return spec


@dataclasses.dataclass
class Credentials:
    """What proves who asks: headers now, and how to get fresh ones.

    :param headers: of each request.
    :param certificate: PEM of a client certificate, or None.
    :param key: PEM of its key, or None.
    :param expires: on ``time.time()``; None means never.
    :param renewable: whether asking for them again may give others, even before they expire.
    """

    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    certificate: str | None = None
    key: str | None = dataclasses.field(default=None, repr=False)
    expires: float | None = None
    renewable: bool = False


@dataclasses.dataclass
class Connection:
    """All that is needed to open a connection to one API server.

    :param server: its URL.
    :param source: where that was found, for messages: ``context "x" of /path``.
    :param credentials: fetches credentials; called again when they have expired or the server says 401.
    :param authority: PEM of the certificate authorities to trust; None means those of the system.
    """

    server: str
    source: str
    credentials: Callable[[], Credentials]
    context: str = ""
    namespace: str = "default"
    authority: str | None = None
    verify: bool = True
    tls_server_name: str | None = None
    proxy: str | None = None
    headers: list[tuple[str, str]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class ClusterAuth:
    """What a user said about how to reach a cluster; every field may be left out.

    Without ``host`` and ``kubeconfig`` the file named by K8S_AUTH_KUBECONFIG, then KUBECONFIG, then ``~/.kube/config``
    is read, and inside of a pod its service account is used if there is none of them.
    """

    kubeconfig: str | Mapping[str, Any] | None = None
    context: str | None = None
    host: str | None = None
    api_key: str | None = dataclasses.field(default=None, repr=False)
    username: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    client_cert: str | None = None
    client_key: str | None = None
    ca_cert: str | None = None
    validate_certs: bool | None = None
    proxy: str | None = None
    no_proxy: str | None = None
    impersonate_user: str | None = None
    impersonate_groups: list[str] | None = None

    @classmethod
    def from_params(
        cls, params: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
    ) -> ClusterAuth:
        """From a module's parameters, with K8S_AUTH_* for those that are not given.

        A parameter that says which cluster is meant is never mixed with a variable that says another: with a kubeconfig
        or context given K8S_AUTH_HOST and its credentials are not looked at, with a host given no K8S_AUTH_KUBECONFIG.

        :param params: may hold other keys too; an empty string counts as not given.
        :param environment: ``os.environ`` by default.
        """
        params = params or {}
        environment = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        other = _of_another_source(params)
        for name, (kind, aliases, variables, _secret) in OPTIONS.items():
            value = next((params[key] for key in (name, *aliases) if params.get(key) not in (None, "", [])), None)
            if value is None and name not in other:
                text = next((environment[variable] for variable in variables if environment.get(variable)), None)
                value = _from_text(text, kind)
            values[name] = value
        return cls(**values)

    def connection(self) -> Connection:
        """Read whatever is named and return what a connection needs.

        :raises Failure: ``kubeconfig_not_found``, ``kubeconfig_invalid``, ``context_not_found`` or ``credentials``.
        """
        if self.host and not self.kubeconfig:
            connection = Connection(server=self.host, source=f"host {self.host}", credentials=Credentials)
        else:
            connection = self._from_kubeconfig()
        return self._overridden(connection)

    def _from_kubeconfig(self) -> Connection:
        found = _load(self.kubeconfig)
        if found is None:
            if (IN_CLUSTER / "token").is_file() and os.environ.get("KUBERNETES_SERVICE_HOST"):
                return _in_cluster()
            raise Failure(
                code="kubeconfig_not_found",
                object="The connection to the cluster",
                cause="is not described anywhere",
                evidence="neither kubeconfig nor host is given, and there is no KUBECONFIG and no ~/.kube/config",
                hint="set kubeconfig (and context), or host with api_key",
            )
        return found.connection(self.context)

    def _overridden(self, connection: Connection) -> Connection:
        """Explicit options win over what the kubeconfig says."""
        if self.host:
            connection.server = self.host
        if "://" not in connection.server:
            connection.server = f"https://{connection.server}"
        if self.ca_cert:
            connection.authority = _read_file(self.ca_cert, "ca_cert")
        if self.validate_certs is not None:
            connection.verify = self.validate_certs
        if self.proxy:
            connection.proxy = self.proxy
        if self.no_proxy and _host_of(connection.server).endswith(
            tuple(part.strip().lstrip("*") for part in self.no_proxy.split(",") if part.strip())
        ):
            connection.proxy = None
        if self.impersonate_user:
            connection.headers = _impersonation(self.impersonate_user, self.impersonate_groups)
        given = self._given_credentials()
        if given is not None:
            connection.credentials = lambda: given
        return connection

    def _given_credentials(self) -> Credentials | None:
        credentials = Credentials()
        if self.api_key:
            credentials.headers["Authorization"] = f"Bearer {self.api_key}"
        elif self.username and self.password:
            credentials.headers["Authorization"] = _basic(self.username, self.password)
        if self.client_cert and self.client_key:
            credentials.certificate = _read_file(self.client_cert, "client_cert")
            credentials.key = _read_file(self.client_key, "client_key")
        return credentials if credentials.headers or credentials.certificate else None


def _of_another_source(params: Mapping[str, Any]) -> frozenset[str]:
    """The options that the environment has no say in, as the parameters have chosen where the connection comes from."""
    if params.get("kubeconfig") or params.get("context"):
        return _OF_HOST
    return _OF_FILE if params.get("host") else frozenset()


@dataclasses.dataclass
class Kubeconfig:
    """A parsed kubeconfig, or several merged as kubectl merges them.

    :param name: how messages call it.
    :param folders: by section and entry's name, the folder to which its relative paths belong.
    """

    name: str
    document: Mapping[str, Any]
    folders: Mapping[tuple[str, str], Path]

    def contexts(self) -> list[str]:
        """Names of the contexts it holds."""
        return [str(entry.get("name", "")) for entry in self.document.get("contexts") or [] if isinstance(entry, dict)]

    def connection(self, context: str | None) -> Connection:
        """What the named context, or the current one, says.

        :raises Failure: ``context_not_found``, ``kubeconfig_invalid`` or ``credentials``.
        """
        name = context or str(self.document.get("current-context") or "")
        known = self.contexts()
        if not name or name not in known:
            raise Failure(
                code="context_not_found",
                object=f"kubeconfig {self.name}",
                cause=f'has no context "{name}"' if name else "has no current context and none is named",
                evidence="its contexts are " + ", ".join(known) if known else "it has no contexts at all",
                hint="set context to one of them" if known else "name another kubeconfig",
            )
        entry = self._entry("contexts", name, "context")
        cluster_name, user_name = str(entry.get("cluster", "")), str(entry.get("user", ""))
        cluster = self._entry("clusters", cluster_name, "cluster")
        user = self._entry("users", user_name, "user") if user_name else {}
        if not cluster.get("server"):
            raise self._invalid(f'names no server for its cluster "{cluster_name}"')
        return Connection(
            server=str(cluster["server"]),
            source=f'context "{name}" of kubeconfig {self.name}',
            context=name,
            namespace=str(entry.get("namespace") or "default"),
            credentials=self._credentials(user_name, user, cluster),
            authority=self._pem(("clusters", cluster_name), cluster, "certificate-authority"),
            verify=not cluster.get("insecure-skip-tls-verify", False),
            tls_server_name=cluster.get("tls-server-name"),
            proxy=cluster.get("proxy-url"),
            headers=_impersonation(user.get("as"), user.get("as-groups")),
        )

    def _entry(self, section: str, name: str, kind: str) -> Mapping[str, Any]:
        for entry in self.document.get(section) or []:
            if isinstance(entry, dict) and entry.get("name") == name:
                return entry.get(kind) or {}
        raise self._invalid(f'has no entry "{name}" under {section}')

    def _invalid(self, cause: str) -> Failure:
        return Failure("kubeconfig_invalid", f"kubeconfig {self.name}", cause, hint="correct the file or name another")

    def _pem(self, where: tuple[str, str], entry: Mapping[str, Any], key: str) -> str | None:
        """Text of a certificate or key, from ``<key>-data`` or from the file that ``<key>`` names."""
        data = entry.get(f"{key}-data")
        if data:
            try:
                return base64.b64decode(str(data)).decode()
            except (binascii.Error, UnicodeDecodeError) as error:
                raise self._invalid(f'holds a {key}-data of "{where[1]}" that is not base64 of a PEM text') from error
        path = entry.get(key)
        if not path:
            return None
        return _read_file(str(self._path(where, str(path))), f'{key} of "{where[1]}" in kubeconfig {self.name}')

    def _path(self, where: tuple[str, str], path: str) -> Path:
        return self.folders.get(where, Path()) / Path(path).expanduser()

    def _credentials(self, name: str, user: Mapping[str, Any], cluster: Mapping[str, Any]) -> Callable[[], Credentials]:
        where = ("users", name)
        base = Credentials(
            certificate=self._pem(where, user, "client-certificate"), key=self._pem(where, user, "client-key")
        )
        if user.get("tokenFile"):
            return lambda: _token_file(self._path(where, str(user["tokenFile"])), base)
        if user.get("token"):
            base.headers["Authorization"] = f"Bearer {user['token']}"
        elif user.get("username"):
            base.headers["Authorization"] = _basic(str(user["username"]), str(user.get("password", "")))
        elif user.get("exec"):
            folder = self.folders.get(where, Path())
            return lambda: _exec_plugin(user["exec"], name, folder, cluster, base)
        elif user.get("auth-provider"):
            return lambda: self._auth_provider(name)
        return lambda: base

    def _auth_provider(self, name: str) -> Credentials:
        try:
            from kubernetes import client, config
        except ImportError as error:
            raise Failure(
                "credentials",
                f"kubeconfig {self.name}",
                f'asks for an auth-provider for user "{name}"',
                "the Python package kubernetes is not installed",
                "install it, or use an exec plugin or a token",
            ) from error
        context = next((c["name"] for c in self.document["contexts"] if c.get("context", {}).get("user") == name), None)
        configuration = client.Configuration()
        config.load_kube_config_from_dict(  # type: ignore[no-untyped-call]
            dict(self.document), context=context, client_configuration=configuration, persist_config=False
        )
        value = configuration.get_api_key_with_prefix("authorization") or ""
        return Credentials({"Authorization": value}, expires=time.time() + TOKEN_FILE_LIFE, renewable=True)


def _load(kubeconfig: str | Mapping[str, Any] | None) -> Kubeconfig | None:
    """The kubeconfig that is named, or the default one; None when nothing is named and there is no default."""
    if isinstance(kubeconfig, Mapping):
        return Kubeconfig("given inline", kubeconfig, {})
    if kubeconfig:
        return _merged([Path(kubeconfig).expanduser()], str(kubeconfig))
    variable = os.environ.get("KUBECONFIG", "")
    paths = [Path(part).expanduser() for part in variable.split(os.pathsep) if part]
    if paths:
        present = [path for path in paths if path.exists()]
        return _merged(present or paths[:1], variable)
    default = Path("~/.kube/config").expanduser()
    return _merged([default], str(default)) if default.exists() else None


def _merged(paths: list[Path], name: str) -> Kubeconfig:
    """Several files as one: the first that defines an entry, or the current context, wins."""
    document: dict[str, Any] = {"clusters": [], "contexts": [], "users": []}
    folders: dict[tuple[str, str], Path] = {}
    for path in paths:
        content = _parse(path)
        if content.get("current-context"):
            document.setdefault("current-context", content["current-context"])
        for section in ("clusters", "contexts", "users"):
            for entry in content.get(section) or []:
                key = (section, str(entry.get("name", "")) if isinstance(entry, dict) else "")
                if isinstance(entry, dict) and key not in folders:
                    folders[key] = path.resolve().parent
                    document[section].append(entry)
    return Kubeconfig(name, document, folders)


def _parse(path: Path) -> Mapping[str, Any]:
    text = _read_file(str(path), "kubeconfig")
    try:
        content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        # The error's own text may quote a line of the file, which holds secrets.
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f" near line {line + 1}" if line is not None else ""
        raise Failure("kubeconfig_invalid", f"kubeconfig {path}", f"is not valid YAML{where}") from None
    if not isinstance(content, dict):
        raise Failure("kubeconfig_invalid", f"kubeconfig {path}", "is not a mapping", hint="name a kubeconfig file")
    return content


def _read_file(path: str, what: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise Failure(
            code="kubeconfig_not_found" if what == "kubeconfig" else "credentials",
            object=f"{what} {path}",
            cause="does not exist" if missing else "cannot be read",
            evidence="" if missing else str(error.strerror),
            hint="correct the path" if missing else "correct its permissions",
        ) from error
    except UnicodeDecodeError as error:
        raise Failure("kubeconfig_invalid", f"{what} {path}", "is not a text file", hint="correct the path") from error


def _token_file(path: Path, base: Credentials) -> Credentials:
    token = _read_file(str(path), "token file").strip()
    headers = {**base.headers, "Authorization": f"Bearer {token}"}
    return dataclasses.replace(base, headers=headers, expires=time.time() + TOKEN_FILE_LIFE, renewable=True)


def _in_cluster() -> Connection:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    namespace = IN_CLUSTER / "namespace"
    return Connection(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        source="the pod's service account",
        namespace=namespace.read_text(encoding="utf-8").strip() if namespace.is_file() else "default",
        credentials=lambda: _token_file(IN_CLUSTER / "token", Credentials()),
        authority=_read_file(str(IN_CLUSTER / "ca.crt"), "certificate authority"),
    )


def _exec_plugin(
    stanza: Mapping[str, Any], user: str, folder: Path, cluster: Mapping[str, Any], base: Credentials
) -> Credentials:
    """Run a credential plugin as client-go does (client.authentication.k8s.io/v1 and v1beta1)."""
    version = str(stanza.get("apiVersion", ""))
    command = str(stanza.get("command", ""))
    if "/" in command:
        command = str(folder / Path(command).expanduser())
    spec: dict[str, Any] = {"interactive": False}
    if stanza.get("provideClusterInfo"):
        spec["cluster"] = dict(cluster)
    environment = {
        **os.environ,
        **{str(pair["name"]): str(pair["value"]) for pair in stanza.get("env") or []},
        "KUBERNETES_EXEC_INFO": json.dumps({"apiVersion": version, "kind": "ExecCredential", "spec": spec}),
    }
    subject = f'Credential plugin {command} of user "{user}"'
    try:
        done = subprocess.run(
            [command, *(str(argument) for argument in stanza.get("args") or [])],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except FileNotFoundError as error:
        hint = str(stanza.get("installHint") or "install it, or put it on PATH").strip()
        raise Failure("credentials", subject, "is not installed", hint=hint) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure("credentials", subject, "did not answer within 60 s or cannot be run") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise Failure("credentials", subject, f"ended with code {done.returncode}", lines[-1] if lines else "")
    try:
        status = json.loads(done.stdout)["status"]
    except (ValueError, KeyError, TypeError) as error:
        raise Failure("credentials", subject, "did not print an ExecCredential with a status") from error
    headers = dict(base.headers)
    if status.get("token"):
        headers["Authorization"] = f"Bearer {status['token']}"
    return Credentials(
        headers=headers,
        certificate=status.get("clientCertificateData") or base.certificate,
        key=status.get("clientKeyData") or base.key,
        expires=_timestamp(status.get("expirationTimestamp")),
        renewable=True,
    )


def _timestamp(text: Any) -> float | None:
    if not text:
        return None
    try:
        return datetime.datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def _impersonation(user: str | None, groups: Sequence[str] | None) -> list[tuple[str, str]]:
    headers = [("Impersonate-User", str(user))] if user else []
    return headers + [("Impersonate-Group", str(group)) for group in groups or []]


def _basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def _host_of(server: str) -> str:
    return server.split("://", 1)[-1].split("/", 1)[0].rsplit(":", 1)[0].strip("[]")


def _from_text(text: str | None, kind: str) -> Any:
    """An environment variable's value in the type of its option."""
    if text is None:
        return None
    if kind == "bool":
        return text.strip().lower() in ("1", "true", "yes", "on", "y", "t")
    if kind == "list":
        return [part.strip() for part in text.split(",") if part.strip()]
    return text
