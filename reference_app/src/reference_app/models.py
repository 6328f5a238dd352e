"""The model in use: read from the model volume, verified, reloaded when it changes; a broken one never replaces it."""

from __future__ import annotations

import hashlib
import logging
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from reference_app import metrics
from reference_app.problems import ModelProblem

log = logging.getLogger(__name__)

MODEL_FILE, SUMS_FILE, CURRENT = "model.json", "SHA256SUMS", "current"
_LARGEST = 16 << 20


class Versioned(Protocol):
    """What every domain's model has."""

    @property
    def version(self) -> str:
        """The model's own version."""


M = TypeVar("M", bound=Versioned)
Made = TypeVar("Made", bound=Versioned, covariant=True)


class ModelReader(Protocol[Made]):
    """How a domain reads its model: `parse` raises ModelProblem; `built_in` serves while the volume is empty."""

    def parse(self, text: bytes) -> Made:
        """Reads a model file."""

    def built_in(self) -> Made:
        """The model inside the package."""


@dataclass(frozen=True)
class Loaded(Generic[M]):
    """A model in use: the model, the first 16 hex digits of its file's SHA-256, where it came from, and since when.

    `problem` is empty, or says why the model that is published now is not the one in use.
    """

    model: M
    digest: str
    source: str
    since: datetime
    problem: str = ""

    def describe(self) -> dict[str, Any]:
        """As /readyz and results show it."""
        about = {
            "version": self.model.version,
            "digest": self.digest,
            "source": self.source,
            "since": self.since.isoformat(timespec="seconds"),
        }
        return about | ({"problem": self.problem} if self.problem else {})


def read_folder(folder: Path) -> bytes:
    """The model file of a version's folder, verified against its SHA256SUMS; raises ModelProblem."""
    path = folder / MODEL_FILE
    try:
        if path.stat().st_size > _LARGEST:
            raise ModelProblem(f"{MODEL_FILE} is larger than {_LARGEST >> 20} MiB")
        text = path.read_bytes()
        sums = (folder / SUMS_FILE).read_text("utf-8", "replace")
    except FileNotFoundError as error:
        raise ModelProblem(f"{Path(error.filename).name} is missing from the model's folder") from error
    except OSError as error:
        raise ModelProblem(f"the model's folder cannot be read: {error.strerror}") from error
    expected = {
        name.lstrip("*"): digest.lower()
        for digest, _, name in (line.partition(" ") for line in sums.splitlines())
        for name in [name.strip()]
    }
    actual = hashlib.sha256(text).hexdigest()
    if MODEL_FILE not in expected:
        raise ModelProblem(f"{SUMS_FILE} has no line for {MODEL_FILE}")
    if expected[MODEL_FILE] != actual:
        raise ModelProblem(f"{MODEL_FILE} does not match {SUMS_FILE}: its SHA-256 is {actual[:16]}...")
    return text


class ModelStore(Generic[M]):
    """Keeps the model in use; `refresh` is called every few seconds and reads files only when they changed."""

    def __init__(self, root: Path, reader: ModelReader[M]) -> None:
        self._root, self._reader, self._lock = root, reader, threading.Lock()
        self._seen: object = None
        self._loaded = self._built_in()
        self._show()

    @property
    def current(self) -> Loaded[M]:
        """The model in use."""
        return self._loaded

    def refresh(self) -> bool:
        """Looks at the volume; returns whether the model in use changed. Never raises."""
        with self._lock:
            seen = self._look()
            if seen == self._seen:
                return False
            before, self._seen = self._loaded.digest, seen
            try:
                self._load(seen)
            except ModelProblem as problem:
                self._refuse(str(problem))
            except Exception as error:  # a model must not take the service down, whatever is wrong with it
                log.exception("reading the model failed")
                self._refuse(f"reading the model failed: {type(error).__name__}")
            self._show()
            return self._loaded.digest != before

    def _look(self) -> object:
        """What would differ if another model were published: the link's target and both files' identities."""
        folder = self._root / CURRENT
        try:
            target = folder.resolve(strict=True)
            stats = [
                (part.st_ino, part.st_size, part.st_mtime_ns)
                for part in ((target / name).stat() for name in (MODEL_FILE, SUMS_FILE))
            ]
        except FileNotFoundError:
            # A link that leads nowhere is a broken model.
            if folder.is_symlink() or folder.exists():
                return "broken"
            # No link beside versions is what rolling back from the first one leaves; nothing at all is a volume that
            # was never published to, or that is gone.
            return "none" if (self._root / "versions").is_dir() else "empty"
        except OSError as error:
            return f"unreadable: {error.strerror}"
        return str(target), stats

    def _built_in(self) -> Loaded[M]:
        return Loaded(self._reader.built_in(), "built-in", "built-in", datetime.now(UTC))

    def _use_built_in(self) -> None:
        if self._loaded.source != "built-in":
            log.info("no model is published any more: the built-in one is in use")
        self._loaded = self._built_in()

    def _load(self, seen: object) -> None:
        if seen == "empty" and self._loaded.source != "built-in":
            raise ModelProblem("the model volume is empty now")
        if seen in ("empty", "none"):
            self._use_built_in()
            return
        folder = self._root / CURRENT
        # Resolved once: both files come from one version even when the link is switched in between.
        text = read_folder(folder.resolve())
        model = self._reader.parse(text)
        digest = hashlib.sha256(text).hexdigest()[:16]
        self._loaded = Loaded(model, digest, "volume", datetime.now(UTC))
        metrics.model_loads.labels("loaded").inc()
        log.info("model loaded", extra={"model_version": model.version, "model_digest": digest})

    def _refuse(self, problem: str) -> None:
        metrics.model_loads.labels("refused").inc()
        log.error("model refused, %s stays in use: %s", self._loaded.model.version, problem)
        self._loaded = replace(self._loaded, problem=problem)

    def _show(self) -> None:
        metrics.model.clear()
        metrics.model.labels(self._loaded.model.version, self._loaded.digest, self._loaded.source).set(1)
        metrics.model_broken.set(1 if self._loaded.problem else 0)
