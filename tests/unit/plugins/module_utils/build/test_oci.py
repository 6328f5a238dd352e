"""Archives: what containerd reads in them, and that their digest follows from their content."""

from __future__ import annotations

import hashlib
import json
import tarfile

from ansible_collections.groundwork.platform.plugins.module_utils.build import layers, oci
from ansible_collections.groundwork.platform.plugins.module_utils.build.definitions import Image


def read(tar: tarfile.TarFile, name: str):
    return json.loads(tar.extractfile(name).read())


def test_an_archive_is_an_image_layout_with_the_runtimes_name(tmp_path):
    layer = layers.make([layers.Item("a", b"1")], [], tmp_path / "layer.tar")
    image = Image("store", tag="17", user="26:26", env={"A": "1"}, command=("serve",), stop_signal="SIGINT")
    digest = oci.write(image, [layer, layer], "amd64", tmp_path / "image.tar")
    with tarfile.open(tmp_path / "image.tar") as tar:
        (entry,) = read(tar, "index.json")["manifests"]
        manifest = read(tar, f"blobs/{digest.replace(':', '/')}")
        config = read(tar, f"blobs/{manifest['config']['digest'].replace(':', '/')}")
        for member in tar:
            if member.name.startswith("blobs/sha256/"):
                content = tar.extractfile(member).read()
                assert hashlib.sha256(content).hexdigest() == member.name.removeprefix("blobs/sha256/")
        assert tar.getnames().count(f"blobs/{layer.digest.replace(':', '/')}") == 1
    assert entry["digest"] == digest
    assert entry["annotations"] == {"io.containerd.image.name": f"docker.io/groundwork/store@{digest}"}
    assert [item["digest"] for item in manifest["layers"]] == config["rootfs"]["diff_ids"] == [layer.digest] * 2
    assert config["config"] == {
        "User": "26:26",
        "Env": [f"PATH={oci.PATH}", "A=1"],
        "Cmd": ["serve"],
        "WorkingDir": "/",
        "StopSignal": "SIGINT",
        "Labels": {"org.opencontainers.image.title": "store"},
    }
    assert config["created"] == "2025-01-01T00:00:00Z"


def test_the_digest_follows_from_the_content(tmp_path):
    layer = layers.make([layers.Item("a", b"1")], [], tmp_path / "layer.tar")
    one = oci.write(Image("x"), [layer], "amd64", tmp_path / "1.tar")
    assert oci.write(Image("x", stands_for=("y",)), [layer], "amd64", tmp_path / "2.tar") == one
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    assert oci.write(Image("x", user="1"), [layer], "amd64", tmp_path / "3.tar") != one


def test_references_by_digest_with_and_without_tag():
    assert oci.reference(Image("redis"), "sha256:1") == "docker.io/groundwork/redis@sha256:1"
    assert oci.reference(Image("postgresql", tag="17"), "sha256:1") == "docker.io/groundwork/postgresql:17@sha256:1"
    assert oci.stored_name(Image("postgresql", tag="17"), "sha256:1") == "docker.io/groundwork/postgresql@sha256:1"
