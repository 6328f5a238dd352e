"""Patches: strategic merge and JSON patch, and an error for each that does nothing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.manifests.compile import compile_system
from ansible_collections.groundwork.platform.plugins.module_utils.manifests.patches import Miss, patched
from ansible_collections.groundwork.platform.plugins.module_utils.model.problems import SystemInvalid
from tests.support import medical_inventory as support


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}}, {"a": 1, "b": {"c": 2, "d": 3}}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"l": [1, 2]}, {"l": [3]}, {"l": [3]}),
        (
            {"containers": [{"name": "a", "image": "x"}, {"name": "b"}]},
            {"containers": [{"name": "a", "env": [{"name": "N", "value": "1"}]}, {"name": "c"}]},
            {
                "containers": [
                    {"name": "a", "image": "x", "env": [{"name": "N", "value": "1"}]},
                    {"name": "b"},
                    {"name": "c"},
                ]
            },
        ),
        (
            {"env": [{"name": "A"}, {"name": "B"}]},
            {"env": [{"name": "A", "$patch": "delete"}]},
            {"env": [{"name": "B"}]},
        ),
        ({"env": [{"name": "A"}]}, {"env": [{"$patch": "replace"}, {"name": "B"}]}, {"env": [{"name": "B"}]}),
        ({"env": []}, {"env": [{"name": "B"}]}, {"env": [{"name": "B"}]}),
        ({"a": {"b": 1}}, {"a": {"$patch": "replace", "c": 2}}, {"a": {"c": 2}}),
        ({"a": {"b": 1}}, {"a": {"$patch": "merge", "c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"a": {"b": 1}}, {"a": {"$patch": "delete"}}, {}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"$retainKeys": ["c"], "d": 3}}, {"a": {"c": 2, "d": 3}}),
        ({"f": ["a", "b"]}, {"$deleteFromPrimitiveList/f": ["a"]}, {"f": ["b"]}),
        (
            {"ports": [{"port": 80, "name": "x"}]},
            {"ports": [{"port": 80, "nodePort": 1}]},
            {"ports": [{"port": 80, "name": "x", "nodePort": 1}]},
        ),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "b"}]}),
        ({}, {"containers": [{"name": "a", "x": None}]}, {"containers": [{"name": "a"}]}),
    ],
)
def test_strategic_merge(target: Any, patch: Any, result: Any) -> None:
    assert done(target, patch) == (result, [])


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        ({"op": "add", "path": "/b", "value": 1}, {"a": [1, 2], "m": {"x/y": 1}, "b": 1}),
        ({"op": "add", "path": "/a/0", "value": 0}, {"a": [0, 1, 2], "m": {"x/y": 1}}),
        ({"op": "add", "path": "/a/-", "value": 3}, {"a": [1, 2, 3], "m": {"x/y": 1}}),
        ({"op": "add", "path": "/a/2", "value": None}, {"a": [1, 2, None], "m": {"x/y": 1}}),
        ({"op": "remove", "path": "/m/x~1y"}, {"a": [1, 2], "m": {}}),
        ({"op": "remove", "path": "/a/0"}, {"a": [2], "m": {"x/y": 1}}),
        ({"op": "replace", "path": "/a/1", "value": 9}, {"a": [1, 9], "m": {"x/y": 1}}),
        ({"op": "move", "from": "/a/0", "path": "/m/z"}, {"a": [2], "m": {"x/y": 1, "z": 1}}),
        ({"op": "copy", "from": "/a", "path": "/c"}, {"a": [1, 2], "m": {"x/y": 1}, "c": [1, 2]}),
        ({"op": "test", "path": "/a/0", "value": 1}, {"a": [1, 2], "m": {"x/y": 1}}),
    ],
)
def test_json_patch(operation: dict[str, Any], result: Any) -> None:
    assert done({"a": [1, 2], "m": {"x/y": 1}}, [operation]) == (result, [])


@pytest.mark.parametrize(
    ("patch", "at", "found", "guess"),
    [
        ({"sepc": None}, ("sepc",), "a removal of what is not there", "spec"),
        ({"spec": {"$retain": []}}, ("spec", "$retain"), "the directive $retain", "$retainKeys"),
        ({"spec": {"$patch": "remove"}}, ("spec", "$patch"), '"remove"', ""),
        (
            {"spec": {"env": [{"name": "LOG", "$patch": "delete"}]}},
            ("spec", "env", 0),
            "a removal of LOG, which is not there",
            "",
        ),
        (
            {"spec": {"env": [{"name": "LOG_LEVLE", "$patch": "delete"}]}},
            ("spec", "env", 0),
            "a removal of LOG_LEVLE, which is not there",
            "LOG_LEVEL",
        ),
        ({"spec": {"env": [{"value": "1"}]}}, ("spec", "env", 0), "an entry without name", ""),
        (
            {"spec": {"words": [{"name": "a", "$patch": "delete"}]}},
            ("spec", "words", 0),
            "a removal of an entry",
            "",
        ),
        (
            {"spec": {"$deleteFromPrimitiveList/words": ["c"]}},
            ("spec", "$deleteFromPrimitiveList/words", 0),
            "a removal of what is not there",
            "",
        ),
        ([{"op": "remove", "path": "/sepc/env"}], (0, "path"), '"/sepc/env", which leads nowhere', "/spec/env"),
        ([{"op": "replace", "path": "/spec/x", "value": 1}], (0, "path"), '"/spec/x", which leads nowhere', ""),
        ([{"op": "add", "path": "/spec/words/7", "value": 1}], (0, "path"), '"/spec/words/7", which leads nowhere', ""),
        ([{"op": "add", "path": "/spec/n/x", "value": 1}], (0, "path"), '"/spec/n/x", which leads nowhere', ""),
        ([{"op": "add", "path": "/spec/x"}], (0, "value"), "nothing", ""),
        ([{"op": "move", "path": "/spec/x"}], (0, "from"), "nothing", ""),
        (
            [{"op": "copy", "from": "/spec/evn", "path": "/x"}],
            (0, "from"),
            '"/spec/evn", which leads nowhere',
            "/spec/env",
        ),
        (
            [{"op": "remove", "path": "/spec/n"}, {"op": "test", "path": "/spec/words", "value": []}],
            (1, "value"),
            "another value than the object has",
            "",
        ),
    ],
)
def test_what_does_nothing_is_told_with_its_place(patch: Any, at: Any, found: str, guess: str) -> None:
    target = {"spec": {"env": [{"name": "LOG_LEVEL"}], "words": ["a", "b"], "n": 1}}
    misses = done(target, patch)[1]
    assert [(miss.at, miss.found) for miss in misses] == [(at, found)]
    if guess:
        assert misses[0].nearest == guess


def done(target: Any, patch: Any) -> tuple[Any, list[Miss]]:
    """The patched target, and what was wrong; the target itself is left alone."""
    before = copy.deepcopy(target)
    misses: list[Miss] = []
    result = patched(target, patch, misses)
    assert target == before
    return result, misses


def test_patches_come_last_and_reach_every_stage() -> None:
    result = support.compiled(
        "local",
        {
            "patches": {
                "Namespace/medical-inventory": {"metadata": {"annotations": {"owner": "clinic"}}},
                "Cluster/postgres": {"spec": {"logLevel": "debug"}},
                "Job/migrate": [{"op": "replace", "path": "/spec/activeDeadlineSeconds", "value": 60}],
                "Deployment/api": {
                    "spec": {
                        "minReadySeconds": 3,
                        "template": {"spec": {"containers": [{"name": "api", "env": [{"name": "X", "value": "1"}]}]}},
                    }
                },
            }
        },
    )
    assert support.find(result, "Namespace", "medical-inventory")["metadata"]["annotations"] == {"owner": "clinic"}
    assert support.find(result, "Cluster", "postgres")["spec"]["logLevel"] == "debug"
    assert result["stages"]["migration"]["spec"]["activeDeadlineSeconds"] == 60
    api = support.find(result, "Deployment", "api")
    assert api["spec"]["minReadySeconds"] == 3
    plain = support.find(support.shared("local"), "Deployment", "api")
    env = api["spec"]["template"]["spec"]["containers"][0]["env"]
    assert env == [*plain["spec"]["template"]["spec"]["containers"][0]["env"], {"name": "X", "value": "1"}]
    untouched = [one for one in support.objects(result) if one["metadata"]["name"] not in ("api", "postgres")]
    assert [one for one in support.objects(support.shared("local")) if one in untouched] == [
        one for one in untouched if one["kind"] not in ("Namespace", "Job")
    ]


def test_a_patch_must_hit_and_must_not_rename() -> None:
    with pytest.raises(SystemInvalid) as found:
        support.compiled(
            "local",
            {
                "patches": {
                    "Deployment/apii": {"spec": {}},
                    "CronJob/backup": {},
                    "Deployment/api": {"metadata": {"name": "x"}},
                    "Service/api": [{"op": "replace", "path": "/metadata", "value": None}],
                    "Service/proxy": [{"op": "remove", "path": "/spec/port"}],
                }
            },
        )
    said = [str(problem) for problem in found.value.problems]
    assert said == [
        "system_overrides: patches.CronJob/backup: found a patch that matches nothing, expected an object of the "
        "system",
        "system_overrides: patches.Deployment/api: found a change of kind, name or namespace, expected changes of the "
        "object itself only",
        "system_overrides: patches.Deployment/apii: found a patch that matches nothing, expected an object of the "
        "system (Deployment/api, Deployment/proxy or Deployment/websocket); did you mean Deployment/api?",
        "system_overrides: patches.Service/api: found a change of kind, name or namespace, expected changes of the "
        "object itself only",
        'system_overrides: patches.Service/proxy[0].path: found "/spec/port", which leads nowhere, expected what is '
        "there (type, selector or ports); did you mean /spec/ports?",
    ]


def test_mistakes_in_files_have_their_line(tmp_path: Path) -> None:
    folder = tmp_path / "systems" / "shop" / "environments"
    folder.mkdir(parents=True)
    (folder / "dev.yml").write_text("")
    (folder.parent / "system.yml").write_text(
        "image: shop:1\n"
        "components: {web: {port: 8080, args: [serve]}}\n"
        "patches:\n"
        "  Deployment/web:\n"
        "    spec:\n"
        "      minReady: null\n"
        "  Service/web:\n"
        "    - {op: remove, path: /spec/ports}\n"
        "    - op: replace\n"
        "      path: /spec/typ\n"
        "      value: NodePort\n"
    )
    with pytest.raises(SystemInvalid) as found:
        compile_system("shop", [tmp_path / "systems"], "dev", {}, {}, support.PINS)
    places = [(one.place.line, one.path, one.nearest) for one in found.value.problems]
    assert places == [
        (6, "patches.Deployment/web.spec.minReady", ""),
        (10, "patches.Service/web[1].path", "/spec/type"),
    ]


@pytest.mark.parametrize(
    ("patch", "path"),
    [
        ("x", "patches.Deployment/api"),
        ([], "patches.Deployment/api"),
        ([{"op": "set", "path": "/spec"}], "patches.Deployment/api[0].op"),
        ([{"op": "add", "path": "spec", "value": 1}], "patches.Deployment/api[0].path"),
        ([{"op": "add", "pth": "/spec"}], "patches.Deployment/api[0].pth"),
        ([1], "patches.Deployment/api[0]"),
    ],
)
def test_what_is_no_patch_at_all(patch: Any, path: str) -> None:
    with pytest.raises(SystemInvalid) as found:
        support.compiled("local", {"patches": {"Deployment/api": patch}})
    assert path in [problem.path for problem in found.value.problems]


CHANCES: list[Any] = [None, 1, "x", [], {}, [None], [{}], [{"name": "a"}], {"$patch": "delete"}, {"$patch": "replace"}]


def test_whatever_a_patch_says_it_is_applied_or_refused() -> None:
    """Every part of every object, put to everything by both kinds of patch: never a traceback."""
    outcomes = {"applied": 0, "refused": 0}
    for one in support.objects(support.shared("local")):
        for field in ("spec", "metadata", "data"):
            for value in CHANCES:
                for patch in ({field: value}, [{"op": "replace", "path": f"/{field}", "value": value}]):
                    outcomes["refused" if done(one, patch)[1] else "applied"] += 1
    assert min(outcomes.values()) > 100, outcomes
