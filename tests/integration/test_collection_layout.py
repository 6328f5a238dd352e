"""The collection runs from a plain clone under a runner that puts its own folders first, and built and installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import ansible_runner
import pytest

from tests.support.deployment import ROOT, VENV, environment

# Folders that AWX puts in front of whatever a project configures, then Ansible's own defaults.
AWX_PATH = "{private}/requirements_collections:~/.ansible/collections:/usr/share/ansible/collections"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files of this checkout as they are now, and nothing else, as a project sync brings them."""
    target = tmp_path_factory.mktemp("project") / "platform"
    target.mkdir()
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, files.stdout.split("\0")):
        source, copy = ROOT / name, target / name
        if not os.path.lexists(source):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy, follow_symlinks=False)
    return target


@pytest.fixture(scope="module")
def installed(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of collections into which the built archive was installed."""
    folder = tmp_path_factory.mktemp("installed")
    env = environment(ANSIBLE_CONFIG=os.devnull + ".cfg")
    galaxy = str(VENV / "ansible-galaxy")
    built = subprocess.run(
        [galaxy, "collection", "build", "--output-path", str(folder)],
        cwd=clone, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    (archive,) = folder.glob("groundwork-platform-*.tar.gz")
    print(f"built {archive.name}: {archive.stat().st_size / 1024:.0f} KiB")
    done = subprocess.run(
        [galaxy, "collection", "install", str(archive), "--no-deps", "--offline", "-p", str(folder)],
        cwd=folder, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def awx(clone: Path, private: Path, playbook: str, *arguments: str, **env: str) -> ansible_runner.Runner:
    """Run a playbook of the clone as an AWX job does: from the project's root, with AWX's own collection path."""
    (private / "requirements_collections").mkdir(parents=True)
    return ansible_runner.run(
        private_data_dir=str(private),
        project_dir=str(clone),
        playbook=playbook,
        cmdline=" ".join(arguments),
        quiet=True,
        envvars={
            **{key: value for key, value in environment(**env).items() if key in {"PATH", "HOME", *env}},
            "ANSIBLE_COLLECTIONS_PATH": AWX_PATH.format(private=private),
            "ANSIBLE_CONFIG": str(clone / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        },
    )


@pytest.mark.parametrize("playbook", ["site.yml", "playbooks/site.yml", "playbooks/status.yml", "playbooks/down.yml"])
def test_a_plain_clone_finds_itself_under_a_runner(clone: Path, tmp_path: Path, playbook: str) -> None:
    runner = awx(clone, tmp_path / "private", playbook, "-i inventories/prod", "--syntax-check")
    assert runner.rc == 0, runner.stdout.read()


def test_a_job_without_a_cluster_compiles_and_says_how_much_it_would_create(clone: Path, tmp_path: Path) -> None:
    runner = awx(clone, tmp_path / "private", "site.yml", "-i inventories/local", "--check", "--diff")
    output = runner.stdout.read()
    assert runner.rc == 0, output
    assert "objects, all of which would be created" in " ".join(output.split()), output
    assert not (clone / "inventories" / "local" / ".cluster").exists()


def test_an_inventory_that_is_not_filled_in_is_refused_in_one_sentence(clone: Path, tmp_path: Path) -> None:
    runner = awx(clone, tmp_path / "private", "site.yml", "-i inventories/prod", "--limit=medical_inventory")
    output = " ".join(runner.stdout.read().split())
    assert runner.rc == 2, output
    assert "Cluster prod has no connection yet" in output


def test_a_credential_of_the_environment_is_enough(clone: Path, tmp_path: Path) -> None:
    """Host and token as an AWX credential injects them: what is refused then is the address, not the inventory."""
    runner = awx(
        clone, tmp_path / "private", "site.yml", "-i inventories/prod", "--limit=medical_inventory",
        K8S_AUTH_HOST="https://127.0.0.1:9", K8S_AUTH_API_KEY="token", K8S_AUTH_VERIFY_SSL="False",
    )  # fmt: skip
    output = " ".join(runner.stdout.read().split())
    assert runner.rc == 2, output
    assert "127.0.0.1:9" in output
    assert "has no connection yet" not in output


def test_only_the_local_inventory_can_create_a_cluster() -> None:
    for environment_name in ("dev", "staging", "prod"):
        shown = subprocess.run(
            [str(VENV / "ansible-inventory"), "-i", f"inventories/{environment_name}", "--host", environment_name],
            cwd=ROOT, env=environment(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert '"local_cluster_enabled": false' in shown.stdout


@pytest.mark.parametrize("arguments", [["--syntax-check"], ["--check"]])
def test_built_and_installed_it_runs_by_its_full_name(
    installed: Path, clone: Path, tmp_path: Path, arguments: list[str]
) -> None:
    inventory = tmp_path / "inventory"
    shutil.copytree(clone / "inventories" / "local", inventory)
    core = VENV.parent / "lib"
    done = subprocess.run(
        [str(VENV / "ansible-playbook"), "-i", str(inventory), *arguments, "groundwork.platform.site"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env=environment(ANSIBLE_CONFIG=str(tmp_path / "none.cfg"), ANSIBLE_COLLECTIONS_PATH=f"{installed}:{core}"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    if "--check" in arguments:
        assert "would be created" in " ".join(done.stdout.split())


def test_what_is_installed_holds_no_caches_links_or_state(installed: Path) -> None:
    root = installed / "ansible_collections" / "groundwork" / "platform"
    assert (root / "plugins" / "modules").is_dir()
    assert (root / "systems").is_dir()
    unwanted = [".venv", ".git", "collections", "playbooks/collections", "inventories/local/.cluster", "tests/output"]
    assert [name for name in unwanted if os.path.lexists(root / name)] == []
    assert not [path for path in root.rglob("*") if path.is_symlink() or path.name == "__pycache__"]
