# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows what the module release is waiting for while it waits."""

from __future__ import annotations

from ansible_collections.groundwork.platform.plugins.plugin_utils.live import LiveAction


class ActionModule(LiveAction):
    """Runs the module."""
