"""The image's commands: `serve ROLE...`, `worker`, `beat`, `check-model FOLDER`."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reference_app.services import Services
    from reference_app.settings import Settings

# Before NumPy is imported: its threads would each take memory, and there is nothing here for them to do.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8


def _spare_memory() -> None:
    """Tells the C library to share its heaps between threads, and to give large buffers back at once.

    By itself it makes a heap for each thread, and keeps what a large photograph once needed in every one of them.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(_M_ARENA_MAX, 2)
        library.mallopt(_M_MMAP_THRESHOLD, 4 << 20)


def _start(*roles: str) -> tuple[Settings, Services]:
    """Settings and parts of a process that plays `roles`; ends it with one sentence when a setting cannot be used."""
    _spare_memory()

    from reference_app import logs, services, settings

    try:
        read = settings.read(roles=frozenset(roles))
        logs.configure(read.log_level, read.replica)
        return read, services.make(read, roles)
    except settings.SettingsError as error:
        sys.exit(str(error))


def _start_queue(role: str) -> Services:
    """The parts of a process whose main thread is Celery's, since signals reach it; health and metrics are beside."""
    read, parts = _start(role)
    if not read.redis_host:
        sys.exit(f"the environment's REDIS_HOST is not set: a {role} needs the queue in Redis")
    if not parts.require_domain().tasks:
        sys.exit(f"the domain {read.domain} queues nothing, so there is nothing to do for a {role}")
    from reference_app.server import Server
    from reference_app.web import create_app

    threading.Thread(target=Server(create_app(parts, {role}), read).run, daemon=True).start()
    return parts


def serve() -> None:
    """Serves the roles named on the command line on PORT (default 8000) until SIGTERM."""
    parser = argparse.ArgumentParser(prog="serve", description=serve.__doc__)
    parser.add_argument("roles", nargs="+", choices=["api", "websocket", "frontend", "issuer"])
    roles = parser.parse_args().roles
    read, parts = _start(*roles)
    from reference_app.server import Server
    from reference_app.settings import SettingsError
    from reference_app.web import create_app

    try:
        app = create_app(parts, roles)
    except SettingsError as error:
        # A domain, or the issuer, needs a setting that others do without.
        sys.exit(str(error))
    Server(app, read).run()


def worker() -> None:
    """Does queued tasks until SIGTERM; PORT serves health and metrics."""
    parser = argparse.ArgumentParser(prog="worker", description=worker.__doc__)
    parser.add_argument("--concurrency", type=int, default=2)
    concurrency = parser.parse_args().concurrency
    parts = _start_queue("worker")
    from reference_app.tasks import Worker

    Worker(parts).run(concurrency)


def beat() -> None:
    """Queues what the domain does periodically until SIGTERM; PORT serves health and metrics."""
    argparse.ArgumentParser(prog="beat", description=beat.__doc__).parse_args()
    parts = _start_queue("beat")
    from reference_app.tasks import run_beat

    run_beat(parts)


def check_model() -> None:
    """Judges a version's folder; exit status 1 and one sentence when the application would refuse it."""
    parser = argparse.ArgumentParser(prog="check-model", description=check_model.__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder

    from reference_app import models, services, settings
    from reference_app.problems import ModelProblem

    try:
        domain = services.load_domain(settings.read().domain)
        if domain.reader is None:
            sys.exit(f"the domain {domain.name} has no model")
        model = domain.reader.parse(models.read_folder(folder))
    except (ModelProblem, settings.SettingsError) as problem:
        sys.exit(str(problem))
    print(f"version {model.version} is good")
