# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the containers that are added to a migration ask for and may use; a namespace's quota counts on the same."""

from __future__ import annotations

Amounts = dict[str, dict[str, str]]

PSQL: Amounts = {
    "requests": {"cpu": "10m", "memory": "32Mi", "ephemeral-storage": "16Mi"},
    "limits": {"cpu": "500m", "memory": "128Mi", "ephemeral-storage": "256Mi"},
}
"""A shell and psql: the lock and the gate."""

DUMP: Amounts = {
    "requests": {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "16Mi"},
    "limits": {"cpu": "1", "memory": "512Mi", "ephemeral-storage": "256Mi"},
}
"""pg_dump, and the server in which the dump is tried."""
