"""Layers: same content, same bytes; and a difference that restores the whole."""

from __future__ import annotations

import io
import os
import tarfile

from ansible_collections.groundwork.platform.plugins.module_utils.build import layers, python
from ansible_collections.groundwork.platform.plugins.module_utils.build.debian import EPOCH, NOT_KEPT
from ansible_collections.groundwork.platform.plugins.module_utils.build.layers import Item

from .conftest import tar_names


def test_equal_items_in_any_order_make_equal_bytes(tmp_path):
    items = [Item("/a/b", b"1"), Item("c", link="a/b"), Item("d", mode=0o700)]
    one = layers.make(items, [], tmp_path / "1.tar")
    two = layers.make(items[::-1], [], tmp_path / "2.tar")
    assert one.digest == two.digest
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    assert tar_names(one.file) == ["a", "a/b", "c", "d"]


def test_times_owners_and_masks_of_this_machine_do_not_show(tmp_path):
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "run").write_text("x")
    (source / "sub" / "file").write_text("y")
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "x.pyc").write_text("z")
    (source / "run").chmod(0o700)
    one = layers.make(layers.from_folder(source, "/app"), [], tmp_path / "1.tar")
    (source / "run").chmod(0o755)
    (source / "sub" / "file").chmod(0o600)
    os.utime(source / "sub" / "file", (1, 1))
    two = layers.make(layers.from_folder(source, "/app"), [], tmp_path / "2.tar")
    assert one.digest == two.digest
    with tarfile.open(one.file) as tar:
        assert {member.name: (member.mode, member.uid, member.mtime) for member in tar} == {
            "app": (0o755, 0, EPOCH),
            "app/run": (0o755, 0, EPOCH),
            "app/sub": (0o755, 0, EPOCH),
            "app/sub/file": (0o644, 0, EPOCH),
        }


def test_folders_of_the_layers_below_are_left_as_they_are(tmp_path):
    below = layers.make([Item("tmp", mode=0o1777)], [], tmp_path / "below.tar")
    above = layers.make([Item("tmp/x/y", b"")], [below.file], tmp_path / "above.tar")
    assert tar_names(above.file) == ["tmp/x", "tmp/x/y"]


def test_a_capability_is_the_kernels_extended_attribute(tmp_path):
    layer = layers.make([Item("dns", b"x", capabilities=("net_bind_service",))], [], tmp_path / "1.tar")
    with tarfile.open(layer.file) as tar:
        value = tar.getmember("dns").pax_headers["SCHILY.xattr.security.capability"]
    assert value.encode() == bytes.fromhex("0100000200040000000000000000000000000000")


def test_a_difference_holds_what_changed_and_hides_what_went(tmp_path):
    same, gone = Item("usr/same", b"1"), Item("usr/gone/deep", b"1")
    below = layers.make([same, gone, Item("usr/changed", b"1"), Item("usr/mode", b"1")], [], tmp_path / "below.tar")
    new = [Item("usr/changed", b"2"), Item("usr/mode", b"1", mode=0o755), Item("etc/new", b""), Item("var/log/x", b"")]
    whole = layers.make([same, *new], [], tmp_path / "whole.tar")
    layer = layers.difference(whole.file, [below.file], NOT_KEPT, tmp_path / "layer.tar")
    assert tar_names(layer.file) == [
        "etc",
        "etc/new",
        "usr",
        "usr/.wh.gone",
        "usr/changed",
        "usr/mode",
        "var",
        "var/log",
    ]

    root = python.unpack([below.file, layer.file], tmp_path / "root", lambda text: None)
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) == [
        "etc/new",
        "usr/changed",
        "usr/mode",
        "usr/same",
    ]


def test_no_difference_is_an_empty_layer(tmp_path):
    below = layers.make([Item("a/b", b"1"), Item("a/c", link="b")], [], tmp_path / "below.tar")
    assert tar_names(layers.difference(below.file, [below.file], [], tmp_path / "layer.tar").file) == []


def test_what_a_lower_layer_hid_counts_as_absent(tmp_path):
    lowest = layers.make([Item("a/b", b"1")], [], tmp_path / "1.tar")
    hiding = layers.make([Item("a/.wh.b", b"")], [lowest.file], tmp_path / "2.tar")
    whole = layers.make([Item("a/b", b"1")], [], tmp_path / "whole.tar")
    layer = layers.difference(whole.file, [lowest.file, hiding.file], [], tmp_path / "3.tar")
    assert tar_names(layer.file) == ["a", "a/b"]


def test_a_hard_link_whose_target_is_below_becomes_a_file(tmp_path):
    def archive(name: str, *, linked: bool):
        with tarfile.open(tmp_path / name, "w") as tar:
            info = tarfile.TarInfo("./bin/a")
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
            for link in ("./bin/b", "./bin/c") if linked else ():
                info = tarfile.TarInfo(link)
                info.type, info.linkname = tarfile.LNKTYPE, "./bin/a"
                tar.addfile(info)
        return tmp_path / name

    below, whole = archive("below.tar", linked=False), archive("whole.tar", linked=True)
    layer = layers.difference(whole, [below], [], tmp_path / "layer.tar")
    with tarfile.open(layer.file) as tar:
        assert tar.getnames() == ["bin/b", "bin/c"]
        assert [tar.extractfile(name).read() for name in tar.getnames()] == [b"abc", b"abc"]
    complete = layers.difference(whole, [], [], tmp_path / "complete.tar")
    with tarfile.open(complete.file) as tar:
        assert [tar.getmember(name).islnk() for name in ("bin/a", "bin/b", "bin/c")] == [False, True, True]


def test_globs():
    match = layers.matcher(["/tmp/**", "/var/cache/x", "/usr/lib/*/libz*", "/**/*.old", "/a/**/tests"])
    for path in ("tmp/a", "tmp/a/b", "var/cache/x", "var/cache/x/y", "usr/lib/x86/libz.so.3", "q.old", "a/b/q.old"):
        assert match(path), path
    for path in ("tmp", "var/cache", "var/cache/xy", "usr/lib/libz", "usr/lib/a/b/libz", "a.older", "b/tests"):
        assert not match(path), path
    assert match("a/tests") and match("a/b/c/tests/d")
    assert not layers.matcher([])("anything")
