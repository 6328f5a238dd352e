"""Makes the reference application importable, and leaves its tests out where its packages are not installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "reference_app" / "src"
if str(SOURCE) not in sys.path:
    sys.path.insert(0, str(SOURCE))

# The application has a lock of its own; without its packages there is nothing to test, and that is said.
MISSING = [name for name in ("cv2", "fastapi", "sqlalchemy", "redis") if importlib.util.find_spec(name) is None]
if MISSING:
    collect_ignore_glob = ["test_*.py"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what was left out."""
    if MISSING:
        terminalreporter.write_line(
            f"tests/unit/reference_app left out: {', '.join(MISSING)} not installed "
            f"(pip install -r reference_app/requirements.lock)"
        )
