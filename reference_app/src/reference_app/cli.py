"""The image's commands: `serve api`, `serve websocket`, `worker`, `check-model FOLDER`."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import sys
import threading
from pathlib import Path

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


def serve() -> None:
    """Serves the roles named on the command line on PORT (default 8000) until SIGTERM."""
    parser = argparse.ArgumentParser(prog="serve", description=serve.__doc__)
    parser.add_argument("roles", nargs="+", choices=["api", "websocket"])
    roles = frozenset(parser.parse_args().roles)
    _spare_memory()

    from reference_app import logs, services, settings

    try:
        read = settings.read(roles=roles)
        logs.configure(read.log_level, read.replica)
        parts = services.make(read, roles)
    except settings.SettingsError as error:
        sys.exit(str(error))
    from reference_app.server import Server
    from reference_app.web import create_app

    Server(create_app(parts, roles), read).run()


def worker() -> None:
    """Does queued tasks until SIGTERM; PORT serves health and metrics."""
    parser = argparse.ArgumentParser(prog="worker", description=worker.__doc__)
    parser.add_argument("--concurrency", type=int, default=2)
    concurrency = parser.parse_args().concurrency
    _spare_memory()

    from reference_app import logs, services, settings

    try:
        read = settings.read(roles=frozenset(("worker",)))
        logs.configure(read.log_level, read.replica)
        parts = services.make(read, ("worker",))
    except settings.SettingsError as error:
        sys.exit(str(error))
    if not read.redis_host:
        sys.exit("the environment's REDIS_HOST is not set: a worker takes its tasks from Redis")
    from reference_app.server import Server
    from reference_app.tasks import Worker
    from reference_app.web import create_app

    web = Server(create_app(parts, {"worker"}), read)
    # Signals reach the main thread, which is Celery's.
    threading.Thread(target=web.run, daemon=True).start()
    Worker(parts).run(concurrency)


def check_model() -> None:
    """Judges a version's folder; exit status 1 and one sentence when the application would refuse it."""
    parser = argparse.ArgumentParser(prog="check-model", description=check_model.__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder

    from reference_app import models, services, settings
    from reference_app.problems import ModelProblem

    try:
        model = services.load_domain(settings.read().domain).reader.parse(models.read_folder(folder))
    except (ModelProblem, settings.SettingsError) as problem:
        sys.exit(str(problem))
    print(f"version {model.version} is good")
