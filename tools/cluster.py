"""Look into the local cluster: its kubectl, a shell in which kubectl speaks to it, and a system's logs.

Only the cluster that this checkout made is ever spoken to: the connection is the file that the role local_cluster
wrote, never KUBECONFIG or a current context.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIRECTORY = ROOT / "inventories" / "local" / ".cluster"


def kubectl() -> list[str]:
    """Return the command for kubectl: the compiled one of an embedded cluster, else the machine's."""
    try:
        status = json.loads((DIRECTORY / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        status = {}
    if not (DIRECTORY / "kubeconfig").exists():
        sys.exit("There is no local cluster: make one with `make up`.")
    binary = status.get("binaries", {}).get("kubernetes", "")
    if binary and Path(binary).exists():
        return [binary, "kubectl"]
    found = shutil.which("kubectl")
    if found is None:
        sys.exit("There is no kubectl: install it, or make the embedded cluster with `make up`, which brings one.")
    return [found]


def shell(command: list[str]) -> None:
    """Start the user's shell with KUBECONFIG set and a kubectl of this cluster ahead on PATH."""
    with tempfile.TemporaryDirectory(prefix="groundwork-shell-") as folder:
        wrapper = Path(folder) / "kubectl"
        wrapper.write_text(f'#!/bin/sh\nexec {" ".join(command)} "$@"\n', encoding="utf-8")
        wrapper.chmod(0o755)
        os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
        print("kubectl speaks to the local cluster in this shell; leave it with exit.", flush=True)
        done = subprocess.run([os.environ.get("SHELL", "/bin/bash")], check=False)
    sys.exit(done.returncode)


def main() -> None:
    """Dispatch on the first argument: kubectl, shell or logs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["kubectl", "shell", "logs"])
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = kubectl()
    os.environ["KUBECONFIG"] = str(DIRECTORY / "kubeconfig")
    if options.what == "shell":
        shell(command)
    arguments = options.arguments
    if options.what == "logs":
        system, *rest = arguments or ["medical_inventory"]
        arguments = [
            "logs",
            "--namespace",
            system.replace("_", "-"),
            "--selector",
            "app.kubernetes.io/part-of",
            "--all-containers",
            "--prefix",
            "--timestamps",
            "--tail=200",
            "--max-log-requests=50",
            *rest,
        ]
    os.execv(command[0], [*command, *arguments])  # noqa: S606 - the command is this cluster's own kubectl


if __name__ == "__main__":
    main()
