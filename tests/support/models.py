"""Publishes a model to a folder that stands for the volume, the way the pod does."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.models import volume


def archive(source: Path, version: str) -> io.BytesIO:
    """What the controller sends to the pod."""
    stream = io.BytesIO()
    volume.send(source, version, stream)
    stream.seek(0)
    return stream


def publish(root: Path, version: str, text: bytes, keep: int = 5) -> dict[str, Any]:
    """Publish a single model file."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.json"
        source.write_bytes(text)
        return volume.publish(root, version, keep, [], archive(source, version))
