"""The Debian side: which mirror is used, and what mmdebstrap is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.build import debian
from ansible_collections.groundwork.platform.plugins.module_utils.build.debian import Mirror


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, Mirror()),
        (
            {
                "sources.list.d/debian.sources": "# a comment\nTypes: deb\n# http://old.test/debian\n"
                "URIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n"
                "Types: deb\nURIs: http://mirror.test/debian-security/\nSuites: bookworm-security\nComponents: main\n"
            },
            Mirror("http://mirror.test/debian", "http://mirror.test/debian-security"),
        ),
        (
            {"sources.list": "# deb http://no.test/debian x\ndeb [arch=amd64] https://m.test/debian/ trixie main\n"},
            Mirror("https://m.test/debian"),
        ),
        (
            {
                "sources.list": "deb cdrom:[x]/ trixie main\n",
                "sources.list.d/other.list": "deb https://packages.test/node nodistro main\n",
                "sources.list.d/off.sources": "Enabled: no\nTypes: deb\nURIs: http://off.test/debian\n"
                "Suites: trixie\nComponents: main\n",
                "sources.list.d/src.sources": "Types: deb-src\nURIs: http://src.test/debian\nSuites: x\n",
            },
            Mirror(),
        ),
    ],
    ids=["none", "deb822", "one line", "others'"],
)
def test_the_machines_own_mirror_is_used(tmp_path: Path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert debian.find_mirror(tmp_path) == expected


def test_sources_have_updates_and_security():
    assert Mirror("http://a", "http://b").sources("trixie").splitlines() == [
        "deb http://a trixie main",
        "deb http://a trixie-updates main",
        "deb http://b trixie-security main",
    ]


def test_the_base_is_the_essential_packages():
    command = debian.command("trixie", [], [], Path("/c/whole.tar"), [])
    assert command[0] == "mmdebstrap"
    assert command[-3:] == ["trixie", "/c/whole.tar", "-"]
    assert {"--mode=root", "--format=tar", "--variant=essential"} < set(command)
    assert not [part for part in command if part.startswith(("--include", "--setup-hook", "--aptopt"))]


def test_packages_are_installed_on_top_of_what_is_below():
    proxies = ['Acquire::http::Proxy "http://p.test";']
    below = [Path("/c a/base.tar"), Path("/c a/seed.tar")]
    command = debian.command("trixie", ["redis-server", "redis-tools"], below, Path("/c/whole.tar"), proxies)
    assert "--variant=custom" in command
    assert "--include=redis-server,redis-tools" in command
    assert f"--aptopt={proxies[0]}" in command
    hooks = [part for part in command if part.startswith("--setup-hook=")]
    assert ["'/c a/base.tar'" in hooks[0], "'/c a/seed.tar'" in hooks[1]] == [True, True]


def test_progress_names_the_package(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(debian, "Occasionally", lambda say: say)
    watch = debian._Installation(said.append)
    for line in (
        "Get:7 http://deb.debian.org/debian trixie/main amd64 libc6 amd64 2.41-12 [2847 kB]",
        "Get:1 http://deb.debian.org/debian trixie InRelease [140 kB]",
        "Get:4 http://deb.debian.org/debian trixie/main amd64 Packages [9676 kB]",
        "Unpacking libc6:amd64 (2.41-12) ...",
        "Setting up libc6:amd64 (2.41-12) ...",
        "Hit:1 http://deb.debian.org/debian trixie InRelease",
        "I: creating tarball...",
    ):
        watch(line)
    assert said == ["downloading libc6 (1)", "unpacking libc6 (1)", "configuring libc6 (1)", "packing the file system"]
