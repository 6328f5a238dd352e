"""Run every linter, side by side, and show the output of those that complain.

Each must be clean; none has a list of things to overlook beyond what its own settings file says and explains.
"""

from __future__ import annotations

import concurrent.futures
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = "ansible_collections.groundwork.platform.plugins.module_utils"
CHECKS = {
    "ansible-lint": ["ansible-lint", "--offline", "--strict", "-q"],
    "yamllint": ["yamllint", "--strict", "."],
    "ruff": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy", "--no-error-summary", "-p", CORE],
    "changelog": ["antsibull-changelog", "lint"],
    "sanity": ["python", "tools/sanity.py"],
}


def check(name: str) -> tuple[str, int, str, float]:
    """Run one linter from the root of the checkout; returns its name, exit code, output and seconds."""
    started = time.monotonic()
    done = subprocess.run(CHECKS[name], cwd=ROOT, capture_output=True, text=True, check=False)
    return name, done.returncode, done.stdout + done.stderr, time.monotonic() - started


def main() -> int:
    """Run all linters, two at a time; returns 1 if any complained."""
    failed = []
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        for future in concurrent.futures.as_completed([pool.submit(check, name) for name in CHECKS]):
            name, code, output, seconds = future.result()
            print(f"  {name}: {'clean' if code == 0 else 'FAILED'} ({seconds:.0f} s)", flush=True)
            if code != 0:
                failed.append(name)
                print(output, flush=True)
    if failed:
        print(f"lint: {', '.join(failed)} complained", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
