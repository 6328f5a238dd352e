"""Certificates: complete, kept, renewed in time, and made again when they do not fit."""

from __future__ import annotations

import datetime
import stat
from pathlib import Path

import pytest
from cryptography import x509

from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import pki
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.layout import Layout

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout.of("c", tmp_path, "10.210.7.0/24", state_root=tmp_path)
    pki.ensure(made, NOW)
    return made


def read(layout: Layout, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((layout.pki / f"{name}.crt").read_bytes())


def test_a_second_run_makes_nothing(layout: Layout) -> None:
    assert pki.ensure(layout, NOW) == []


def test_nobody_else_can_read_any_of_it(layout: Layout) -> None:
    assert stat.S_IMODE(layout.pki.stat().st_mode) == 0o700
    pki.encryption_key(layout)
    assert {stat.S_IMODE(path.stat().st_mode) for path in layout.pki.iterdir()} == {0o600}


def test_the_api_server_is_reached_by_all_its_names(layout: Layout) -> None:
    extension = read(layout, "apiserver").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    names = {str(name.value) for name in extension}
    assert {"10.210.7.2", "10.96.0.1", "127.0.0.1", "localhost", "kubernetes.default.svc", "kubernetes"} <= names


def test_the_kubelet_is_the_node(layout: Layout) -> None:
    assert read(layout, "kubelet").subject.rfc4514_string() == "CN=system:node:c,O=system:nodes"


def test_authorities_do_not_vouch_for_each_other(layout: Layout) -> None:
    issuers = {leaf.name: read(layout, leaf.name).issuer.rfc4514_string() for leaf in pki.leaves(layout)}
    assert issuers["etcd"] == issuers["apiserver-etcd-client"] == "CN=c etcd-ca"
    assert issuers["front-proxy-client"] == "CN=c front-proxy-ca"
    assert issuers["apiserver"] == issuers["admin"] == "CN=c ca"


def test_what_nears_its_end_is_renewed_and_authorities_stay(layout: Layout) -> None:
    before = read(layout, "ca").serial_number
    made = pki.ensure(layout, NOW + datetime.timedelta(days=pki.LEAF_DAYS - pki.RENEW_DAYS + 1))
    assert set(made) == {leaf.name for leaf in pki.leaves(layout)}
    assert read(layout, "ca").serial_number == before


def test_nothing_is_renewed_too_early(layout: Layout) -> None:
    assert pki.ensure(layout, NOW + datetime.timedelta(days=pki.LEAF_DAYS - pki.RENEW_DAYS - 1)) == []


def test_a_renewed_authority_renews_what_it_signed(layout: Layout) -> None:
    made = pki.ensure(layout, NOW + datetime.timedelta(days=pki.CA_DAYS - 1))
    assert set(made) >= {*pki.AUTHORITIES, *(leaf.name for leaf in pki.leaves(layout))}


@pytest.mark.parametrize("name", ["apiserver.crt", "apiserver.key", "ca.key", "service-account.key"])
@pytest.mark.parametrize("content", [None, b"", b"half of a fi"])
def test_what_an_interrupted_run_left_is_made_again(layout: Layout, name: str, content: bytes | None) -> None:
    path = layout.pki / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert name.partition(".")[0] in pki.ensure(layout, NOW)
    assert pki.ensure(layout, NOW) == []


def test_a_key_that_does_not_fit_its_certificate_is_noticed(layout: Layout) -> None:
    (layout.pki / "admin.key").write_bytes((layout.pki / "scheduler.key").read_bytes())
    assert pki.ensure(layout, NOW) == ["admin"]


def test_another_subnet_needs_other_server_certificates(layout: Layout, tmp_path: Path) -> None:
    moved = Layout.of("c", tmp_path, "10.211.0.0/24", state_root=tmp_path)
    assert pki.ensure(moved, NOW) == ["apiserver", "kubelet-serving"]


def test_the_key_of_secrets_is_made_once(layout: Layout) -> None:
    key = pki.encryption_key(layout)
    assert len(key) == 32
    assert pki.encryption_key(layout) == key
