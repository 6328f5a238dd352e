"""Run ``ansible-test sanity`` on a copy of the tracked files.

ansible-test wants a real path that ends in ansible_collections/<namespace>/<name>, and a network address from which it
loads pip for its own environments. Both are given to it in the cache folder: a fresh copy, and a bootstrap script that
takes pip from Python's own ensurepip and from the package index that pip is set up with.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "groundwork.platform" / "sanity"
COPY = CACHE / "ansible_collections" / "groundwork" / "platform"
# What a user installs and Ansible loads; tests, tools and the reference application are ruff's and mypy's alone.
SHIPPED = ["plugins/", "roles/", "playbooks/", "docs/", "meta/"]
# What the script that ansible-test would load does, without a network address: its name is ansible-test's.
BOOTSTRAP = """\
import subprocess, sys
arguments = [a for a in sys.argv[1:] if a not in ("--no-setuptools", "--no-wheel")]
subprocess.run([sys.executable, "-m", "ensurepip"], check=True)
subprocess.run([sys.executable, "-m", "pip", "install", *arguments], check=True)
"""


def copy_tracked() -> None:
    """Copy what Git tracks, and what it would if it were added, but for links to folders: they lead back here."""
    shutil.rmtree(COPY, ignore_errors=True)
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        source, target = ROOT / name, COPY / name
        if source.is_dir() or not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)


def bootstrap_names() -> set[str]:
    """Return the names under which this ansible-test looks for its bootstrap script, one per version of pip it uses."""
    folder = Path(importlib.util.find_spec("ansible_test").origin).parent  # type: ignore[union-attr, arg-type]
    text = (folder / "_internal" / "python_requirements.py").read_text(encoding="utf-8")
    versions = re.findall(r"pip='([0-9.]+)'", text)
    return {f"get_pip_{version.replace('.', '_')}.py" for version in versions}


def main() -> int:
    """Copy, run, and return the exit code of ansible-test; arguments are passed on."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        copy_tracked()
        return run()


def run() -> int:
    """Run ansible-test on the copy."""
    home = CACHE / "home"
    scripts = home / ".ansible" / "test" / "cache"
    scripts.mkdir(parents=True, exist_ok=True)
    for name in bootstrap_names():
        (scripts / name).write_text(BOOTSTRAP, encoding="utf-8")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    env = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(CACHE.parent.parent), "LC_ALL": "C.UTF-8"}
    env.pop("ANSIBLE_CONFIG", None)
    named = any((COPY / argument).exists() for argument in sys.argv[1:])
    command = ["ansible-test", "sanity", "--python", version, *sys.argv[1:], *([] if named else SHIPPED)]
    return subprocess.run(command, cwd=COPY, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
