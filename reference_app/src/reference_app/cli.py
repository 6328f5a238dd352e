"""The image's commands: `serve api`, `serve websocket`, `worker`, `check-model FOLDER`."""

from __future__ import annotations

import argparse


def serve() -> None:
    """Serves the roles named on the command line on PORT (default 8000) until SIGTERM."""
    parser = argparse.ArgumentParser(prog="serve")
    parser.add_argument("roles", nargs="+", choices=["api", "websocket"])
    parser.parse_args()


def worker() -> None:
    """Runs the Celery worker of the selected domain until SIGTERM."""


def check_model() -> None:
    """Judges a model folder; exit status 1 and one sentence when the application would refuse it."""
