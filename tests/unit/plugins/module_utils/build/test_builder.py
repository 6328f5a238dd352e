"""A whole build with stand-ins for its tools: what is made again, when, and what an interrupted build leaves."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.build import builder, oci
from ansible_collections.groundwork.platform.plugins.module_utils.build.builder import build, plan
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

EVERYTHING = [
    "bootstrap image app: essential",
    "bootstrap image store: essential",
    "bootstrap image store: store-server",
    "compile operator",
    "compile server",
    "copy releases/operator-1.2.3.yaml",
]


def change(file: Path) -> None:
    file.write_text(file.read_text() + "\n# changed\n")


def test_everything_is_built_once(project, cache, calls):
    first = build(project, cache)
    assert first["changed"] is True
    made = [name for name in calls.made if name != "bootstrap image app: essential"]
    assert sorted(made) == [name for name in EVERYTHING if name in made]
    assert sorted(first["built"]) == [
        *("Go program operator", "Go program server", "image app", "image operator", "image store", "manifest operator")
    ]
    calls.made.clear()
    second = build(project, cache)
    assert (second["changed"], second["built"], calls.made) == (False, {}, [])
    assert {**first, "changed": 0, "built": 0} == {**second, "changed": 0, "built": 0}
    assert Path(first["binaries"]["server"]).read_text() == "program server"
    assert Path(first["manifests"]["operator"]).name == "operator-1.2.3.yaml"
    image = first["images"]["store"]
    assert image["reference"] == f"{oci.REPOSITORY}/store:17@{image['digest']}"
    assert first["images"]["operator"]["stands_for"] == ["example.test/operator:1.2.3"]
    assert Path(image["archive"]).stat().st_size == image["size"]


def test_an_empty_cache_gives_equal_digests(project, cache, calls, tmp_path):
    other = builder.Cache(tmp_path / "other")
    digests = [
        {name: image["digest"] for name, image in build(project, one)["images"].items()} for one in (cache, other)
    ]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("file", "made"),
    [
        ("app/main.py", ["image app"]),
        ("local_cluster/cmd/server/main.go", ["Go program server"]),
        ("local_cluster/go.sum", ["Go program server", "Go program operator", "image operator"]),
    ],
)
def test_a_change_makes_what_it_concerns(project, cache, calls, file, made):
    before = build(project, cache)
    change(project / file)
    after = build(project, cache)
    assert list(after["built"]) == made
    changed = [name for name in after["images"] if after["images"][name]["digest"] != before["images"][name]["digest"]]
    # The operator's program came out the same, so its image did too.
    assert changed == [name.removeprefix("image ") for name in made if name == "image app"]
    assert not [name for name in calls.made[len(EVERYTHING) :] if "essential" in name]


def test_a_changed_definition_makes_its_image(project, cache, calls):
    build(project, cache)
    file = project / "local_cluster/images.yml"
    file.write_text(file.read_text().replace("[store-server]", "[store-server, store-tools]"))
    assert list(build(project, cache)["built"]) == ["image store"]
    file.write_text(file.read_text().replace("[example.test/operator:1.2.3]", "[example.test/operator:1.2.4]"))
    result = build(project, cache)
    assert (result["built"], result["images"]["operator"]["stands_for"]) == ({}, ["example.test/operator:1.2.4"])


def test_targets_bring_what_they_need_and_no_more(project, cache, calls):
    result = build(project, cache, ["store"])
    assert sorted(result["images"]) == ["store"]
    assert result["binaries"] == result["manifests"] == {}
    result = build(project, cache, ["operator"])
    assert [*result["binaries"], *result["images"], *result["manifests"]] == ["operator"] * 3
    with pytest.raises(Failure, match=r"radis is not defined \(known are server, operator, store, app\)"):
        build(project, cache, ["radis"])


def test_check_says_what_would_be_built_and_builds_nothing(project, cache, calls):
    result = build(project, cache, check=True)
    assert result["changed"] is True
    assert result["missing"] == [
        *("Go program server", "Go program operator", "image operator", "image store", "image app", "manifest operator")
    ]
    assert result["images"]["store"]["reference"] == ""
    assert not cache.folder.exists()
    built = build(project, cache)
    checked = build(project, cache, check=True)
    assert (checked["changed"], checked["missing"], checked["images"]) == (False, [], built["images"])


def fail(error: BaseException):
    def raise_it() -> None:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("at", "error", "code"),
    [
        ("bootstrap image store: store-server", Failure("no_network", "image store", "x"), "no_network"),
        ("bootstrap image store: essential", OSError(errno.ENOSPC, "No space left on device"), "no_space"),
        ("compile server", Failure("build_failed", "Go program server", "x"), "build_failed"),
        ("compile operator", OSError(errno.EACCES, "Permission denied"), "cache_unusable"),
        ("copy releases/operator-1.2.3.yaml", OSError(errno.EDQUOT, "Disk quota exceeded"), "no_space"),
    ],
)
def test_a_failure_is_told_and_the_next_build_continues(project, cache, calls, at, error, code):
    calls.fail[at] = fail(error)
    with pytest.raises(Failure) as failed:
        build(project, cache)
    assert failed.value.code == code
    assert list((cache.folder / "tmp").iterdir()) == []
    done = [name for name in EVERYTHING if name not in plan(project, cache).missing]
    calls.fail.clear()
    calls.made.clear()
    assert build(project, cache)["changed"] is True
    assert at in calls.made
    assert len(calls.made) <= len(done)
    assert plan(project, cache).missing == []


@pytest.mark.parametrize("at", [name for name in EVERYTHING if "image app" not in name])
def test_after_a_kill_at_any_moment_the_next_build_ends_well(project, cache, calls, at):
    expected = build(project, builder.Cache(cache.folder.with_name("other")))["images"]
    child = os.fork()
    if not child:
        calls.fail[at] = lambda: os._exit(9)
        build(project, cache)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert list((cache.folder / "tmp").iterdir()) != []
    result = build(project, cache)
    assert list((cache.folder / "tmp").iterdir()) == []
    assert {name: image["digest"] for name, image in result["images"].items()} == {
        name: image["digest"] for name, image in expected.items()
    }


def test_an_image_with_base_and_program_waits_for_the_program(project, cache, calls):
    file = project / "local_cluster/images.yml"
    file.write_text(file.read_text() + "  both:\n    base: debian\n    programs: {server: {to: /server}}\n")
    assert build(project, cache, ["both"])["images"]["both"]["digest"]
    calls.fail["compile server"] = fail(Failure("build_failed", "Go program server", "x"))
    change(project / "local_cluster/cmd/server/main.go")
    with pytest.raises(Failure, match="Go program server"):
        build(project, cache, ["both"])


def test_the_cache_is_kept_within_its_limit(project, cache, calls):
    first = build(project, cache)
    change(project / "app/main.py")
    second = build(project, cache, limit=1)
    assert not Path(first["images"]["app"]["archive"]).exists()
    assert build(project, cache)["built"] == {}
    assert Path(second["images"]["app"]["archive"]).exists()
