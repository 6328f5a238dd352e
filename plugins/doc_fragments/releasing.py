# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options that every module has which makes a release."""

from __future__ import annotations


class ModuleDocFragment:
    """Used as C(groundwork.platform.releasing)."""

    DOCUMENTATION = r"""
options:
  by:
    description:
      - Who does it, as far as the play knows it better than the environment, such as C(user), C(job) and C(template)
        of AWX.
    type: dict
    default: {}
  history:
    description:
      - How many releases to keep in the record. What serves, and what can be returned to, is always kept.
    type: int
    default: 10
  force_conflicts:
    description:
      - Take over fields that another manager owns with another value.
    type: bool
    default: false
  wait_timeout:
    description:
      - Seconds until everything must be healthy. Each step of a strategy has as many, with the time on top for which
        it is watched.
    type: float
    default: 300
  lock_timeout:
    description:
      - Seconds to wait for another run that releases the same system.
    type: float
    default: 900
  retry_timeout:
    description:
      - Seconds for which what passes is waited for, such as an API server or a webhook that does not answer.
    type: float
    default: 120
"""
