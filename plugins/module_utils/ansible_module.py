# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How every module ends: with what the core returns, or with the sentence and the data of its Failure."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def run(module: AnsibleModule, work: Callable[[], Mapping[str, Any]]) -> None:
    """Exit the module with what ``work`` returns, or fail it with the sentence and the data of its Failure.

    :param work: does the module's work and returns its result; what it raises other than
        :class:`Failure` is a defect and keeps its traceback.
    """
    if importlib.util.find_spec("yaml") is None:
        module.fail_json(msg=missing_required_lib("PyYAML"))
    try:
        result = work()
    except Failure as failure:
        module.fail_json(msg=failure.sentence, failure=failure.as_dict())
    module.exit_json(**result)
