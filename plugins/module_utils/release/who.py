# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who makes a release, and when."""

from __future__ import annotations

import datetime
import getpass
import os
import socket
from collections.abc import Mapping

# What a job of AWX finds in its environment; its user and template arrive as variables of the play only.
_ENVIRONMENT = {"job": "JOB_ID", "inventory": "INVENTORY_ID", "revision": "PROJECT_REVISION"}


def who(given: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Who is at work.

    :param given: what the play knows better: ``user``, ``job``, ``template``.
    :param environment: os.environ by default.
    """
    env = os.environ if environment is None else environment
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a number that no user has.
        user = f"uid {os.getuid()}"
    found = {"user": user, "host": socket.gethostname()}
    if env.get("JOB_ID"):
        found |= {name: env[variable] for name, variable in _ENVIRONMENT.items() if env.get(variable)}
    return found | {str(name): str(value) for name, value in (given or {}).items() if value not in (None, "")}


def utc() -> str:
    """The time, as Kubernetes writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
