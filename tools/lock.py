"""Refresh requirements.lock and requirements-test.lock from their .in files, with the digests of every package.

uv does the resolving and is installed into a folder of its own for the purpose.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Write both locks; the test lock is held to the versions of the first."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, "uv"], check=True)
        lock = [f"{folder}/bin/uv", "pip", "compile", "--quiet", "--upgrade", "--universal", "--generate-hashes"]
        lock += ["--python-version", "3.11", "--no-header"]
        subprocess.run([*lock, "requirements.in", "-o", "requirements.lock"], cwd=ROOT, check=True)
        constraints = ["-c", "requirements.lock"]
        subprocess.run(
            [*lock, *constraints, "requirements-test.in", "-o", "requirements-test.lock"], cwd=ROOT, check=True
        )


if __name__ == "__main__":
    main()
