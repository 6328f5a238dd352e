"""Image definitions: what is accepted, and how a wrong one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.build.definitions import load
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

ROOT = Path(__file__).parents[5]


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "images.yml"
    file.write_text(text)
    return file


def test_own_definitions_are_valid_and_their_sources_exist():
    definitions = load(ROOT / "local_cluster" / "images.yml", "amd64")
    assert {
        "pause",
        "coredns",
        "metrics-server",
        "cloudnative-pg",
        "postgresql",
        "redis",
        "nginx",
        "reference-app",
    } <= {*definitions.images}
    assert definitions.images["cloudnative-pg"].programs[0].to == "/operator/manager_amd64"
    assert definitions.images["postgresql"].users[0].uid == 26


def test_every_image_of_the_components_has_a_stand_in():
    definitions = load(ROOT / "local_cluster" / "images.yml", "amd64")
    components = yaml.safe_load((ROOT / "roles/components/vars/main.yml").read_text())["components"]
    published = {ref for component in components.values() for ref in component.get("images", {}).values()}
    stands_for = {ref for image in definitions.images.values() for ref in image.stands_for}
    # Debian has no version 2 of InfluxDB: local environments name version 1, which has a stand-in.
    assert published - stands_for == {components["influxdb"]["images"]["influxdb"]}


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("[]", "the top", "a mapping"),
        ("imagse: {}", "imagse", "no key of this name (known are go_module, binaries, manifests, bases, images)"),
        ("images: []", "images", "a mapping"),
        ("images: {Redis: {}}", "images.Redis", "a name of small letters"),
        ("images: {a: {sieze: 1}}", "images.a.sieze", "no key of this name"),
        ("images: {a: {packages: redis}}", "images.a.packages", "a list"),
        ("images: {a: {packages: [1]}}", "images.a.packages.0", "a package name"),
        ("images: {a: {user: root}}", "images.a.user", "numbers of a user and group"),
        ("images: {a: {env: {A: 1}}}", "images.a.env.A", "a string"),
        ("images: {a: {working_dir: data}}", "images.a.working_dir", "an absolute path in the image"),
        ("images: {a: {stop_signal: 9}}", "images.a.stop_signal", "a signal such as SIGTERM"),
        ("images: {a: {base: debian}}", "images.a.base", "one of the bases ()"),
        ("images: {a: {packages: [x]}}", "images.a.base", "a base, because packages"),
        ("images: {a: {programs: {x: {to: /x}}}}", "images.a.programs", "names of binaries"),
        ("images: {a: {programs: {x: {}}}}", "images.a.programs.x.to", "a value"),
        ("images: {a: {programs: {x: {to: /x, capabilities: [all]}}}}", "capabilities.0", "one of net_bind_service"),
        ("images: {a: {copy: [{from: nowhere, to: /x}]}}", "images.a.copy.0.from", "a file or folder that exists"),
        ("images: {a: {users: {x: {uid: -1, gid: 1}}}}", "images.a.users.x.uid", "a number of 0 or more"),
        ("images: {a: {folders: {data: {}}}}", "images.a.folders.data", "an absolute path"),
        ("images: {a: {folders: {/data: {mode: 755}}}}", "images.a.folders./data.mode", 'a mode such as "0755"'),
        ("images: {a: {python: {version: 3.13, requirements: x}}}", "images.a.python.version", 'such as "3.13"'),
        ("bases: {debian: {suite: 13}}", "bases.debian.suite", "the code name of a Debian suite"),
        ("bases: {debian: {}}", "bases.debian.suite", "a value"),
        ("bases: {debian: }", "bases.debian", "a mapping"),
        ("binaries: {x: {}}", "binaries.x.package", "a value"),
        ("manifests: {x: {module: y}}", "manifests.x.path", "a value"),
    ],
)
def test_a_wrong_definition_is_refused_with_file_path_and_expectation(tmp_path, text, path, expected):
    file = write(tmp_path, text)
    with pytest.raises(Failure) as refused:
        load(file, "amd64")
    assert refused.value.code == "bad_definition"
    assert refused.value.object == str(file)
    assert f"{path}" in refused.value.cause
    assert f"expected {expected}" in refused.value.cause or expected in refused.value.cause


@pytest.mark.parametrize("text", ["images: {", "\t- x", "a: b: c"])
def test_what_is_no_yaml_is_refused_in_one_line(tmp_path, text):
    with pytest.raises(Failure, match="cannot be read as YAML") as refused:
        load(write(tmp_path, text), "amd64")
    assert "\n" not in refused.value.sentence


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(Failure, match="cannot be read"):
        load(tmp_path / "images.yml", "amd64")


def test_an_empty_file_defines_nothing(tmp_path):
    assert load(write(tmp_path, ""), "amd64").names == []
