"""Reading: places, and what YAML allows that a system file must not have."""

from __future__ import annotations

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.model.merge import merge
from ansible_collections.groundwork.platform.plugins.module_utils.model.source import from_plain, read_file, read_text


def problems(text: str) -> list[str]:
    return [str(problem) for problem in read_text(text, "f.yml")[1]]


def test_values_know_their_lines() -> None:
    tree, found = read_text("a:\n  b: 1\n  c:\n    - x\n    - y: true\n", "f.yml")
    assert not found
    assert tree.plain() == {"a": {"b": 1, "c": ["x", {"y": True}]}}
    assert str(tree.at("a", "c", 1, "y").place) == "f.yml:5"
    assert str(tree.at("a", "c").key_place) == "f.yml:3"
    assert str(tree.at("a", "nowhere", "at all").place) == "f.yml:2", "the deepest that exists"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yml:3: a: found the key a second time, expected one, which is in line 1"),
        ("a:\n  - '{{ x }}'\n", "f.yml:2: a[0]: found a template ({{), expected no Jinja"),
        ("a: {{ x }}\n", "f.yml:1: a: found a template ({{), expected no Jinja"),
        ("a: |\n  {% if x %}\n", "f.yml:1: a: found a template ({%)"),
        ("a: &x 1\nb: *x\n", "f.yml:2: b: found a YAML alias, expected the value, written out"),
        ("a: &x [*x]\n", "a YAML alias"),
        ("on: 1\n", 'f.yml:1: on: found the key on, expected a key that is text: quote it, "on"'),
        ("a: 2026-01-02\n", 'expected text: quote it, "2026-01-02"'),
        ("a: !!python/object:os.system x\n", "the YAML tag tag:yaml.org,2002:python/object:os.system"),
        ("a: .inf\n", "expected a finite number"),
        ("a: 010\n", 'expected a plain decimal number or quoted text, "010"'),
        ("a: 1:30\n", "found 1:30, expected a plain decimal number or quoted text"),
        ("a: off\n", 'expected true, false or quoted text, "off"'),
        ("- a\n", "expected a map of keys to values"),
        ("a: [1\n", "f.yml:2: found "),
        ("a: 1\n---\nb: 2\n", "expected one YAML document"),
        ("? [a]\n: 1\n", "found a list or a map as a key"),
        ("a: \x00\n", "expected one YAML document"),
        ("[" * 5000, "expected one YAML document"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    assert any(said in problem for problem in problems(text)), problems(text)


def test_jinja_in_a_comment_is_a_comment() -> None:
    assert not problems("a: 1  # {{ x }}\n")


@pytest.mark.parametrize("text", ["", "---\n", "# nothing\n", "null\n"])
def test_an_empty_file_is_an_empty_map(text: str) -> None:
    tree, found = read_text(text, "f.yml")
    assert (tree.plain(), found) == ({}, [])


def test_files_that_cannot_be_read(tmp_path) -> None:
    (tmp_path / "latin.yml").write_bytes(b"a: \xe4\n")
    assert "not UTF-8" in str(read_file(tmp_path / "latin.yml", "latin.yml")[1][0])
    assert "No such file" in str(read_file(tmp_path / "gone.yml", "gone.yml")[1][0])
    assert "directory" in str(read_file(tmp_path, "folder")[1][0])


def test_plain_data_is_checked_as_files_are() -> None:
    tree, found = from_plain({"a": ["{{ x }}", {1: 2}], "b": object()}, "system_overrides")
    assert [str(problem).split(", expected")[0] for problem in found] == [
        "system_overrides: a[0]: found a template ({{)",
        "system_overrides: a[1].1: found the key 1",
        "system_overrides: b: found a object",
    ]
    assert tree.at("a").place.line is None


def test_layers_merge_once() -> None:
    base, _ = read_text("m: {a: 1, b: 2, c: {d: 3}}\nl: [1, 2]\ns: x\n", "base.yml")
    over, _ = read_text("m:\n  b: null\n  c: {e: 4}\nl: [3]\ns: {now: a map}\nn: null\n", "over.yml")
    merged = merge(base, over)
    assert merged.plain() == {"m": {"a": 1, "c": {"d": 3, "e": 4}}, "l": [3], "s": {"now": "a map"}}
    assert str(merged.at("m", "c", "e").place) == "over.yml:3"
    assert str(merged.at("m", "c", "d").place) == "base.yml:1"


def test_null_in_a_patch_is_the_patch_s() -> None:
    base, _ = read_text("patches: {A/b: {spec: {x: null}}, A/c: {}}\n", "base.yml")
    over, _ = from_plain({"patches": {"A/c": None, "A/b": {"spec": {"y": None}}}}, "o")
    assert merge(base, over).plain() == {"patches": {"A/b": {"spec": {"x": None, "y": None}}}}
