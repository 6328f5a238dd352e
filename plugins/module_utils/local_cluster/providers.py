# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a local cluster comes from: the embedded one, one that a user names, kind, minikube or Docker Desktop.

Each provider answers the same few questions. Those that drive another program only run commands, through the one
interface of :mod:`commands`, so that they are tested against what the programs print.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import files
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.commands import Runner, check, run
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.images import (
    LOAD_TIMEOUT,
    Image,
    load_command,
)
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.layout import Layout
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.lifecycle import Embedded, Wanted
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress

NAMES = ("embedded", "kubeconfig", "kind", "minikube", "docker_desktop")
AUTO = "auto"


@dataclasses.dataclass(frozen=True)
class Request:
    """What a user asked for.

    :param layout: names and addresses; the name is used by every provider that makes a cluster.
    :param provider: one of :data:`NAMES`, or ``auto``.
    :param kubeconfig: of the cluster that the user names; none is ever looked for.
    :param context: in that kubeconfig; may be left out where it has only one.
    :param timeout: seconds until the cluster must be ready.
    """

    layout: Layout
    provider: str = AUTO
    kubeconfig: Path | None = None
    context: str = ""
    timeout: float = 300.0


class Provider(abc.ABC):
    """One source of clusters, for one cluster."""

    name: str
    makes_images: bool = True
    """Whether images can be loaded into the cluster, so that they are worth building."""

    def __init__(self, request: Request, progress: Progress, runner: Runner) -> None:
        self.request = request
        self.progress = progress
        self.runner = runner

    @abc.abstractmethod
    def check(self) -> None:
        """Refuse what cannot work, before anything is changed.

        :raises Failure: why not, and what to do.
        """

    @abc.abstractmethod
    def exists(self) -> bool:
        """Whether there is a cluster already."""

    @abc.abstractmethod
    def up(self, binary: Path | None, images: Sequence[Image]) -> bool:
        """Have the cluster there and answering; whether anything was changed."""

    def pending(self, binary: Path | None, images: Sequence[Image]) -> bool:
        """Whether :meth:`up` would change anything."""
        return not self.exists()

    @abc.abstractmethod
    def down(self) -> bool:
        """Remove the cluster, if this provider makes clusters; whether anything was changed."""

    @abc.abstractmethod
    def kubeconfig(self) -> str:
        """A kubeconfig with exactly one context, that of this cluster."""

    @abc.abstractmethod
    def present(self) -> set[str]:
        """The names of the images that the cluster has."""

    @abc.abstractmethod
    def load(self, image: Image) -> None:
        """Load one image that is not there yet."""

    def reference(self, image: Image) -> str:
        """What pods have to name to get this image."""
        return image.reference

    def stored(self, image: Image) -> str:
        """The name by which :meth:`present` lists this image."""
        return image.stored_name

    def status(self) -> dict[str, Any]:
        """What ``status.json`` says, and more."""
        return {
            "provider": self.name,
            "name": self.request.layout.name,
            "state": "running" if self.exists() else "absent",
        }


class EmbeddedProvider(Provider):
    """Kubernetes compiled from pinned modules, on this machine."""

    name = "embedded"

    def __init__(self, request: Request, progress: Progress, runner: Runner) -> None:
        super().__init__(request, progress, runner)
        self.cluster = Embedded(request.layout, progress, runner)

    def check(self) -> None:
        self.cluster.check()

    def exists(self) -> bool:
        return self.request.layout.mark.exists()

    def up(self, binary: Path | None, images: Sequence[Image]) -> bool:
        if binary is None:
            raise Failure(
                "no_binary", "The embedded cluster", "needs the program 'kubernetes'", hint="build it with `make build`"
            )
        return self.cluster.up(Wanted(self.request.layout, binary, tuple(images), self.request.timeout))

    def pending(self, binary: Path | None, images: Sequence[Image]) -> bool:
        return binary is None or self.cluster.pending(Wanted(self.request.layout, binary, tuple(images)))

    def down(self) -> bool:
        return self.cluster.down()

    def kubeconfig(self) -> str:
        return self.cluster.kubeconfig()

    def present(self) -> set[str]:
        return self.cluster.containerd.present()

    def load(self, image: Image) -> None:
        self.cluster.containerd.load(image)

    def status(self) -> dict[str, Any]:
        return self.cluster.status()


class KubeconfigProvider(Provider):
    """A cluster that the user has and names. It is never made, changed or removed."""

    name = "kubeconfig"
    makes_images = False

    def check(self) -> None:
        self.kubeconfig()

    def exists(self) -> bool:
        return True

    def up(self, binary: Path | None, images: Sequence[Image]) -> bool:
        return False

    def down(self) -> bool:
        return False

    def kubeconfig(self) -> str:
        path = self.request.kubeconfig
        if path is None:
            raise Failure(
                "no_kubeconfig",
                "Provider kubeconfig",
                "needs a kubeconfig",
                hint="set local_cluster_kubeconfig to its path",
            )
        try:
            text = path.expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise Failure(
                "no_kubeconfig",
                f"Kubeconfig {path}",
                "cannot be read",
                reason or "",
                "correct local_cluster_kubeconfig",
            ) from error
        return single_context(text, self.request.context, str(path), path.expanduser().resolve().parent)

    def present(self) -> set[str]:
        return set()

    def load(self, image: Image) -> None:
        raise Failure(
            "no_image_loading",
            "A cluster named by its kubeconfig",
            "takes no image archives",
            hint="push the images to a registry that it pulls from, and set cluster_images",
        )

    def status(self) -> dict[str, Any]:
        return {**super().status(), "name": files.from_yaml(self.kubeconfig())["current-context"]}


class KindProvider(Provider):
    """kind: nodes as Docker containers."""

    name = "kind"

    @staticmethod
    def answers(runner: Runner) -> bool:
        """Whether a Docker engine answers and kind is there."""
        return docker_answers(runner) and runner(["kind", "version"], timeout=10).ok

    def check(self) -> None:
        _demand(self.runner, ["kind", "version"], "kind", "install kind, or choose another local_cluster_provider")
        _demand_docker(self.runner)

    def exists(self) -> bool:
        done = self.runner(["kind", "get", "clusters"], timeout=30)
        return done.ok and self.request.layout.name in done.stdout.split()

    def up(self, binary: Path | None, images: Sequence[Image]) -> bool:
        if self.exists():
            return False
        self.progress.update("kind creates the cluster")
        seconds = int(self.request.timeout)
        with _scratch() as scratch:
            # Its own kubeconfig, or kind would change the user's.
            create = ["kind", "create", "cluster", "--name", self.request.layout.name, "--kubeconfig", str(scratch)]
            check(self.runner, [*create, "--wait", f"{seconds}s"], timeout=seconds + 120)
        return True

    def down(self) -> bool:
        if not self.exists():
            return False
        with _scratch() as scratch:
            delete = ["kind", "delete", "cluster", "--name", self.request.layout.name, "--kubeconfig", str(scratch)]
            check(self.runner, delete, timeout=300)
        return True

    def kubeconfig(self) -> str:
        text = check(self.runner, ["kind", "get", "kubeconfig", "--name", self.request.layout.name])
        return single_context(text, f"kind-{self.request.layout.name}", "of kind", rename=self.request.layout.name)

    def present(self) -> set[str]:
        return set(check(self.runner, [*self._ctr(), "list", "--quiet"]).split())

    def load(self, image: Image) -> None:
        # As `kind load image-archive` does it, but under the name by digest that pods use.
        names = ["--all-platforms", "--digests", "--base-name", image.repository]
        load_command(self.runner, [*self._ctr(stdin=True), "import", *names, "-"], image, stdin=image.archive)

    def _ctr(self, *, stdin: bool = False) -> list[str]:
        node = f"{self.request.layout.name}-control-plane"
        return ["docker", "exec", *(["--interactive"] if stdin else []), node, "ctr", "--namespace", "k8s.io", "images"]


class MinikubeProvider(Provider):
    """minikube, with containerd: it keeps images by digest, as Docker's own runtime does not."""

    name = "minikube"

    @staticmethod
    def answers(runner: Runner) -> bool:
        """Whether minikube is there and could start a cluster: it has a profile already, or the kernel's KVM."""
        if not runner(["minikube", "version"], timeout=10).ok:
            return False
        done = runner(["minikube", "profile", "list", "--output", "json", "--light"], timeout=20)
        with contextlib.suppress(ValueError):
            if done.ok and (json.loads(done.stdout) or {}).get("valid"):
                return True
        return runner(["virsh", "--connect", "qemu:///system", "version"], timeout=10).ok or docker_answers(runner)

    def check(self) -> None:
        hint = "install minikube, or choose another local_cluster_provider"
        _demand(self.runner, ["minikube", "version"], "minikube", hint)

    def exists(self) -> bool:
        done = self.runner(["minikube", "profile", "list", "--output", "json", "--light"], timeout=30)
        try:
            profiles = (json.loads(done.stdout) or {}).get("valid") or []
        except (ValueError, AttributeError):
            return False
        return any(profile.get("Name") == self.request.layout.name for profile in profiles)

    def pending(self, binary: Path | None, images: Sequence[Image]) -> bool:
        return not (self.exists() and self._command("status", "--format", "{{.APIServer}}").stdout.strip() == "Running")

    def up(self, binary: Path | None, images: Sequence[Image]) -> bool:
        if not self.pending(binary, images):
            return False
        self.progress.update("minikube starts the cluster")
        with _scratch() as scratch:
            done = self.runner(
                [
                    "minikube",
                    "--profile",
                    self.request.layout.name,
                    "start",
                    "--container-runtime=containerd",
                    "--embed-certs",
                ],
                timeout=self.request.timeout + 600,
                environment={"KUBECONFIG": str(scratch)},
            )
            if not done.ok:
                lines = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no output"]
                raise Failure("command_failed", "Command 'minikube start'", "failed", lines[-1])
            self._path().write_bytes(scratch.read_bytes())
            self._path().chmod(0o600)
        return True

    def down(self) -> bool:
        if not self.exists():
            return False
        with _scratch() as scratch:
            self.runner(
                ["minikube", "--profile", self.request.layout.name, "delete"],
                timeout=300,
                environment={"KUBECONFIG": str(scratch)},
            )
        self._path().unlink(missing_ok=True)
        return True

    def kubeconfig(self) -> str:
        name = self.request.layout.name
        return single_context(self._path().read_text(encoding="utf-8"), name, "of minikube", rename=name)

    def present(self) -> set[str]:
        done = self._command("ssh", "--", "sudo ctr --namespace k8s.io images list --quiet")
        return set(done.stdout.split())

    def load(self, image: Image) -> None:
        name, place = self.request.layout.name, f"/tmp/{image.name}.tar"  # noqa: S108 - inside minikube's machine
        profile = ["minikube", "--profile", name]
        load_command(self.runner, [*profile, "cp", str(image.archive), place], image)
        load = f"sudo ctr --namespace k8s.io images import --digests --base-name {image.repository} {place}"
        load_command(self.runner, [*profile, "ssh", "--", f"{load} && sudo rm {place}"], image)

    def _command(self, *arguments: str) -> Any:
        return self.runner(["minikube", "--profile", self.request.layout.name, *arguments], timeout=60)

    def _path(self) -> Path:
        """minikube prints no kubeconfig; what it wrote at the start is kept beside its own profile."""
        return Path.home() / ".minikube" / "profiles" / self.request.layout.name / "groundwork-kubeconfig"


class DockerDesktopProvider(Provider):
    """The Kubernetes of Docker Desktop: the user switches it on and off, we only use it."""

    name = "docker_desktop"
    context = "docker-desktop"

    @staticmethod
    def answers(runner: Runner) -> bool:
        """Whether the Docker engine is Docker Desktop's and its Kubernetes is switched on."""
        done = runner(["docker", "info", "--format", "{{.OperatingSystem}}"], timeout=10)
        if not (done.ok and done.stdout.strip() == "Docker Desktop"):
            return False
        config = runner(["kubectl", "config", "get-contexts", "--output", "name"], timeout=10)
        return config.ok and DockerDesktopProvider.context in config.stdout.split()

    def check(self) -> None:
        if not self.answers(self.runner):
            raise Failure(
                "no_docker_desktop",
                "Docker Desktop",
                "does not answer, or its Kubernetes is off",
                hint="start it, switch on Kubernetes in its settings, or choose another local_cluster_provider",
            )

    def exists(self) -> bool:
        return self.answers(self.runner)

    def up(self, binary: Path | None, images: Sequence[Image]) -> bool:
        return False

    def down(self) -> bool:
        return False

    def kubeconfig(self) -> str:
        view = ["kubectl", "config", "view", "--raw", "--minify", "--flatten", "--context", self.context]
        return single_context(check(self.runner, view), self.context, "of Docker Desktop")

    def reference(self, image: Image) -> str:
        # Its runtime is the Docker engine, which knows what was loaded by tags only.
        return f"{image.repository}:{image.digest.removeprefix('sha256:')[:12]}"

    def stored(self, image: Image) -> str:
        return self.reference(image).removeprefix("docker.io/")

    def present(self) -> set[str]:
        listing = [
            "docker",
            "image",
            "list",
            "--format",
            "{{.Repository}}:{{.Tag}}",
            "--filter",
            "reference=groundwork/*",
        ]
        return {line.removeprefix("docker.io/") for line in check(self.runner, listing).split()}

    def load(self, image: Image) -> None:
        done = load_command(self.runner, ["docker", "image", "load", "--input", str(image.archive)], image)
        # "Loaded image: name:tag", or "Loaded image ID: sha256:..." where the archive names none.
        loaded = done.stdout.strip().splitlines()[-1].partition(": ")[2].strip()
        load_command(self.runner, ["docker", "image", "tag", loaded, self.reference(image)], image)

    def status(self) -> dict[str, Any]:
        return {**super().status(), "name": self.context}


_PROVIDERS: dict[str, type[Provider]] = {
    provider.name: provider
    for provider in (EmbeddedProvider, KubeconfigProvider, KindProvider, MinikubeProvider, DockerDesktopProvider)
}


def choose(request: Request, recorded: str = "", progress: Progress | None = None, runner: Runner = run) -> Provider:
    """The provider for a request.

    :param recorded: the provider of the cluster that is there already; ``auto`` never changes horses.
    :raises Failure: ``unknown_provider``.
    """
    wanted = request.provider
    if wanted == AUTO:
        wanted = _detected(request, recorded, runner)
    if wanted not in _PROVIDERS:
        raise Failure(
            "unknown_provider",
            f"local_cluster_provider '{request.provider}'",
            "is not known",
            hint=f"set it to one of {', '.join((AUTO, *NAMES))}",
        )
    return _PROVIDERS[wanted](request, progress or Progress(request.layout.name), runner)


def _detected(request: Request, recorded: str, runner: Runner) -> str:
    if request.kubeconfig is not None:
        return KubeconfigProvider.name
    if recorded in _PROVIDERS and recorded != KubeconfigProvider.name:
        return recorded
    for provider in (KindProvider, MinikubeProvider, DockerDesktopProvider):
        if provider.answers(runner):
            return provider.name
    return EmbeddedProvider.name


def docker_answers(runner: Runner) -> bool:
    """Whether a Docker engine answers."""
    done = runner(["docker", "info", "--format", "{{.ServerVersion}}"], timeout=10)
    return done.ok and bool(done.stdout.strip())


def single_context(text: str, context: str, source: str, folder: Path | None = None, *, rename: str = "") -> str:
    """One context of a kubeconfig, with its cluster and user, and nothing else of it.

    :param context: empty takes the only one there is, never the current one of several.
    :param source: where the text is from, for messages.
    :param folder: against which relative paths in it are meant.
    :param rename: the context's new name.
    :raises Failure: ``bad_kubeconfig``.
    """
    hint = "correct local_cluster_kubeconfig or local_cluster_context"

    def bad(cause: str, evidence: str = "") -> Failure:
        return Failure("bad_kubeconfig", f"Kubeconfig {source}", cause, evidence, hint)

    try:
        value = files.from_yaml(text)
    except ValueError:
        raise bad("is not YAML") from None
    if not isinstance(value, dict):
        raise bad("is no kubeconfig")
    contexts = [str(entry.get("name")) for entry in _entries(value, "contexts")]
    if not context and len(contexts) != 1:
        raise bad(f"has {len(contexts)} contexts and none is named", ", ".join(contexts))
    chosen = context or contexts[0]
    found = _named(value, "contexts", chosen)
    if found is None:
        raise bad(f"has no context '{chosen}'", f"it has {', '.join(contexts) or 'none'}")
    pair = found.get("context") or {}
    cluster = _named(value, "clusters", str(pair.get("cluster")))
    user = _named(value, "users", str(pair.get("user")))
    if cluster is None or user is None:
        raise bad(f"has a context '{chosen}' whose cluster or user is not in it")
    if folder is not None:
        _absolute(cluster.get("cluster"), ("certificate-authority",), folder)
        _absolute(user.get("user"), ("client-certificate", "client-key", "tokenFile"), folder)
    name = rename or chosen
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [cluster],
        "users": [user],
        "contexts": [{**found, "name": name}],
        "current-context": name,
    }
    return files.to_yaml(document)


def _entries(value: dict[str, Any], section: str) -> list[dict[str, Any]]:
    listed = value.get(section)
    return [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []


def _named(value: dict[str, Any], section: str, name: str) -> dict[str, Any] | None:
    return next((entry for entry in _entries(value, section) if entry.get("name") == name), None)


def _absolute(entry: Any, keys: Sequence[str], folder: Path) -> None:
    for key in keys:
        if isinstance(entry, dict) and entry.get(key):
            entry[key] = str(folder / str(entry[key]))


def _demand(runner: Runner, command: list[str], name: str, hint: str) -> None:
    done = runner(command, timeout=20)
    if not done.ok:
        lines = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        raise Failure("provider_missing", f"Provider {name}", "cannot be used", lines[-1], hint)


def _demand_docker(runner: Runner) -> None:
    hint = "start the Docker engine, or choose another local_cluster_provider"
    _demand(runner, ["docker", "info", "--format", "{{.ServerVersion}}"], "kind", hint)


@contextlib.contextmanager
def _scratch() -> Any:
    """A path for a kubeconfig that a program insists on writing, so that it leaves the user's alone."""
    with tempfile.TemporaryDirectory(prefix="groundwork-") as folder:
        yield Path(folder) / "kubeconfig"


__all__ = ["AUTO", "LOAD_TIMEOUT", "NAMES", "Provider", "Request", "choose", "single_context"]
