# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The version of this collection, for what is written down: a module cannot read galaxy.yml where it runs."""

from __future__ import annotations

VERSION = "0.1.0"
