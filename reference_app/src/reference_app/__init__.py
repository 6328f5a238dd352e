"""The application that stands in for each reference system's images on a local cluster."""

from __future__ import annotations

__version__ = "1.0.0"
