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
# What only one domain needs.
ONLY = {"test_cardioai_pro.py": "scipy", "test_tokens.py": "jwt"}
LEFT_OUT = {file: name for file, name in ONLY.items() if importlib.util.find_spec(name) is None}
collect_ignore_glob = ["test_*.py"] if MISSING else sorted(LEFT_OUT)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what was left out."""
    left_out = {"": MISSING} if MISSING else {f"/{file}": [name] for file, name in LEFT_OUT.items()}
    for what, names in left_out.items():
        terminalreporter.write_line(
            f"tests/unit/reference_app{what} left out: {', '.join(names)} not installed "
            f"(pip install -r reference_app/requirements.lock)"
        )
