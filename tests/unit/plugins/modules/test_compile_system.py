"""The module as Ansible starts it: result, failure, check mode, and how long a start takes."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from typing import Any

from tests.support.medical_inventory import PINS, ROOT, compiled

PROGRAM = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1));"
    "runpy.run_module('ansible_collections.groundwork.platform.plugins.modules.compile_system', run_name='__main__')"
)


def run(**parameters: Any) -> dict[str, Any]:
    given = {"name": "medical_inventory", "path": [str(ROOT / "systems")], "environment": "local", "components": PINS}
    arguments = {"ANSIBLE_MODULE_ARGS": {**given, **parameters, "_ansible_remote_tmp": "/tmp"}}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT / "collections"), json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ.copy(),
    )
    assert "Traceback" not in done.stderr, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_it_returns_what_the_core_compiles_and_changes_nothing() -> None:
    for check_mode in (False, True):
        result = run(_ansible_check_mode=check_mode)
        assert result.pop("changed") is False
        result.pop("invocation")
        assert result == compiled("local")


def test_mistakes_are_lines_for_people_and_data_for_programs() -> None:
    result = run(overrides={"components": {"api": {"prot": 1, "drain": "x"}}})
    assert result["failed"] is True
    assert result["msg"].splitlines()[1:] == [
        '  system_overrides: components.api.drain: found "x", expected a duration with its unit, '
        "such as 30s, 5m, 1h or 7d",
        "  system_overrides: components.api.prot: found the key prot, expected a known key; did you mean port?",
    ]
    assert [error["nearest"] for error in result["failure"]["errors"]] == ["", "port"]
    assert run(environment="stagging")["failure"]["code"] == "environment_not_found"
    assert run(components={})["failure"]["code"] == "image_not_pinned"


def test_a_start_takes_well_under_a_second() -> None:
    """In processor time: what else the machine does is not the module's."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(3)) < 0.8
