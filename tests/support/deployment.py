"""A cluster of the tests' own with Medical Inventory on it, reached the ways that a person and a client reach it."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tests.support.control_plane import find_binary

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / "inventories" / "local"
NAMESPACE = "medical-inventory"
VENV = Path(sys.executable).parent
RECAP = re.compile(r"^(?P<host>\w+)\s+: ok=(?P<ok>\d+)\s+changed=(?P<changed>\d+)\s+unreachable=(?P<unreachable>\d+)"
                   r"\s+failed=(?P<failed>\d+)", re.MULTILINE)  # fmt: skip

T = TypeVar("T")


def environment(**changes: str) -> dict[str, str]:
    """The environment of a command: the virtual environment's programs first, nothing of a user's own clusters."""
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("K8S_AUTH_", "ANSIBLE_", "KUBE"))
    }
    path = f"{VENV}{os.pathsep}{inherited.get('PATH', '')}"
    return {**inherited, "PATH": path, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), **changes}


@dataclasses.dataclass
class Run:
    """What one run of a playbook did.

    :param recap: host -> changed and failed tasks, as the recap says them.
    """

    code: int
    output: str
    seconds: float

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """The counts of the recap by host."""
        return {
            match["host"]: {key: int(match[key]) for key in ("ok", "changed", "unreachable", "failed")}
            for match in RECAP.finditer(self.output)
        }

    @property
    def changed(self) -> int:
        """How many tasks changed something."""
        assert self.recap, f"no recap in the output:\n{self.output[-3000:]}"
        return sum(item["changed"] for item in self.recap.values())


@dataclasses.dataclass
class Answer:
    """An HTTP answer, whatever its status."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Deployment:
    """One local cluster with its own name and folder, laid over inventories/local.

    :param inventories: what follows each ``-i``.
    :param directory: the cluster's folder, with kubeconfig and status.json.
    """

    def __init__(self, inventories: list[Path], directory: Path, env: dict[str, str] | None = None) -> None:
        self.inventories = inventories
        self.directory = directory
        self.env = environment(**(env or {}))

    @classmethod
    def beside(cls, folder: Path, purpose: str) -> Deployment:
        """One more cluster of this checkout; its inventory is written to ``folder``."""
        token = hashlib.sha256(f"{ROOT}/{purpose}".encode()).hexdigest()[:6]
        directory = folder / "cluster"
        overlay = folder / "inventory.yml"
        host = {
            "local_cluster_provider": "embedded",
            "local_cluster_name": f"groundwork-{token}",
            "local_cluster_directory": str(directory),
        }
        overlay.write_text(yaml.safe_dump({"all": {"children": {"clusters": {"hosts": {"local": host}}}}}))
        return cls([LOCAL, overlay], directory)

    @property
    def name(self) -> str:
        """The cluster's name."""
        return str(self.status["name"])

    @property
    def status(self) -> dict[str, Any]:
        """What the role local_cluster wrote."""
        result: dict[str, Any] = json.loads((self.directory / "status.json").read_text())
        return result

    @property
    def kubeconfig(self) -> Path:
        """Its kubeconfig."""
        return self.directory / "kubeconfig"

    def command(self, playbook: str, *arguments: str) -> list[str]:
        """The command line of a playbook on this cluster."""
        inventories = [f"--inventory={path}" for path in self.inventories]
        return [str(VENV / "ansible-playbook"), *inventories, *arguments, playbook]

    def play(self, playbook: str = "site.yml", *arguments: str, expect: int | None = 0, timeout: float = 1200) -> Run:
        """Run a playbook to its end; an exit code other than ``expect`` fails the test with its output."""
        started = time.monotonic()
        done = subprocess.run(
            self.command(playbook, *arguments), cwd=ROOT, env=self.env, timeout=timeout, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        run = Run(done.returncode, done.stdout, time.monotonic() - started)
        if expect is not None:
            assert run.code == expect, f"{playbook} ended with {run.code}:\n{run.output[-6000:]}"
        return run

    def start(self, playbook: str = "site.yml", *arguments: str) -> subprocess.Popen[str]:
        """Start a playbook and let it run; its output is read by :meth:`finish`."""
        return subprocess.Popen(
            self.command(playbook, *arguments), cwd=ROOT, env=self.env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def finish(self, process: subprocess.Popen[str], timeout: float = 900) -> Run:
        """Wait for what :meth:`start` began."""
        started = time.monotonic()
        output, _ = process.communicate(timeout=timeout)
        return Run(process.returncode, output, time.monotonic() - started)

    def kubectl(self, *arguments: str, expect: int | None = 0, stdin: str | None = None) -> str:
        """Run kubectl with this cluster's context; returns what it printed, errors included."""
        command = [*self._kubectl(), *arguments]
        done = subprocess.run(
            command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180, check=False
        )
        if expect is not None:
            assert done.returncode == expect, f"kubectl {' '.join(arguments)}: {done.stdout}"
        return done.stdout

    def _kubectl(self) -> list[str]:
        """The command for kubectl, with the context named."""
        binary = (self.status.get("binaries") or {}).get("kubernetes") or find_binary()
        assert binary, "the compiled Kubernetes is not in the cache"
        context = yaml.safe_load(self.kubeconfig.read_text())["contexts"][0]["name"]
        return [str(binary), "kubectl", f"--kubeconfig={self.kubeconfig}", f"--context={context}"]

    def get(self, what: str, namespace: str = NAMESPACE, selector: str = "") -> Any:
        """``kubectl get`` as data: one object for ``kind/name``, the items for a kind."""
        arguments = ["get", what, f"--namespace={namespace}", "--output=json"]
        data = json.loads(self.kubectl(*arguments, *([f"--selector={selector}"] if selector else [])))
        return data["items"] if data.get("kind", "").endswith("List") else data

    def pods(self, component: str) -> list[dict[str, Any]]:
        """The pods of a component that are not being deleted."""
        pods = self.get("pods", selector=f"app.kubernetes.io/component={component}")
        pods = pods or self.get("pods", selector=f"app.kubernetes.io/name={component}")
        return [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]

    def exec(self, pod: str, *command: str, container: str = "", expect: int | None = 0) -> str:
        """Run a command in a pod's container."""
        where = [f"--container={container}"] if container else []
        return self.kubectl("exec", f"--namespace={NAMESPACE}", pod, *where, "--", *command, expect=expect)

    def primary(self) -> str:
        """The pod that is PostgreSQL's primary."""
        (cluster,) = self.get("clusters.postgresql.cnpg.io")
        return str(cluster["status"]["currentPrimary"])

    def sql(self, statement: str) -> str:
        """Run a statement in the application's database, on the primary."""
        (cluster,) = self.get("clusters.postgresql.cnpg.io")
        database = cluster["spec"]["bootstrap"]["initdb"]["database"]
        return self.exec(
            self.primary(), "psql", "-XAtqc", statement, "-d", database, container="postgres"
        ).strip()  # fmt: skip

    def secrets(self) -> dict[str, str]:
        """Digest of each Secret's data, never the data."""
        return {
            item["metadata"]["name"]: hashlib.sha256(json.dumps(item.get("data"), sort_keys=True).encode()).hexdigest()
            for item in self.get("secrets")
        }

    def secret_values(self) -> list[str]:
        """The secret values themselves, to search outputs for; keep them out of messages."""
        values = [
            base64.b64decode(value).decode("utf-8", "replace")
            for item in self.get("secrets")
            for key, value in (item.get("data") or {}).items()
            if "pass" in key.lower() or key.endswith(".key")
        ]
        return [value for value in values if len(value) >= 12]

    def photograph(self, seed: int, items: int = 20) -> tuple[bytes, dict[str, int]]:
        """A photograph with that many items, and the count of each: the application's own generator draws it."""
        program = (
            "import base64, json; from reference_app.domains.medical_inventory.generator import photograph;"
            f"p = photograph({seed}, {items}); print(json.dumps([base64.b64encode(p.jpeg).decode(), p.counts]))"
        )
        drawn = self.exec(self.pods("api")[0]["metadata"]["name"], "python3", "-c", program)
        jpeg, counts = json.loads(drawn.strip().splitlines()[-1])
        return base64.b64decode(jpeg), counts

    @contextlib.contextmanager
    def forwarded(self, pod: str, port: int) -> Iterator[str]:
        """A way to one pod and no other: ``host:port`` on this machine."""
        command = [*self._kubectl(), "port-forward", f"--namespace={NAMESPACE}", f"pod/{pod}", f":{port}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            assert found, f"no port is forwarded to {pod}: {line}"
            yield found[0]
        finally:
            process.kill()
            process.wait()

    @property
    def url(self) -> str:
        """The proxy's address, from outside of the cluster."""
        services = [item for item in self.get("services") if item["spec"]["type"] == "NodePort"]
        return f"http://{self.status['node_address']}:{services[0]['spec']['ports'][0]['nodePort']}"

    def http(self, path: str, body: bytes | None = None, content_type: str = "image/jpeg", **headers: str) -> Answer:
        """Send one request through the proxy; GET, or POST where there is a body."""
        request = urllib.request.Request(
            self.url + path, data=body, headers={key.replace("_", "-"): value for key, value in headers.items()}
        )
        if body is not None:
            request.add_header("Content-Type", content_type)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers, error.read())


def eventually(what: str, check: Callable[[], T], timeout: float = 60, every: float = 0.5) -> T:
    """Ask until the answer is true; fail with the last answer or error otherwise."""
    deadline = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            answer = check()
        except (AssertionError, OSError, LookupError, ValueError) as error:
            last = error
        else:
            if answer:
                return answer
            last = answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout:.0f} s; last: {last!r}")
        time.sleep(every)
