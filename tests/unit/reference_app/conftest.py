"""Makes the reference application importable, and leaves its tests out where its packages are not installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[3] / "reference_app" / "src"
if str(SOURCE) not in sys.path:
    sys.path.insert(0, str(SOURCE))

# The application has a lock of its own; without its packages there is nothing to test.
if any(importlib.util.find_spec(name) is None for name in ("cv2", "fastapi", "sqlalchemy", "redis")):
    collect_ignore_glob = ["test_*.py"]
