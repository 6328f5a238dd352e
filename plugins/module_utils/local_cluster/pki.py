# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster's certificates and keys: made once, kept, and renewed before they expire."""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
import os
from pathlib import Path

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import files
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.layout import (
    API_SERVICE_ADDRESS,
    DNS_DOMAIN,
    Layout,
)

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:  # modules must be importable without it; `ensure` says what is missing
    MISSING = True
else:
    MISSING = False

CA_DAYS = 3650
LEAF_DAYS = 365
RENEW_DAYS = 30
# A clock that was wrong when the cluster was made must not make its certificates invalid.
_BACKDATE = datetime.timedelta(hours=1)

CA, FRONT_PROXY_CA, ETCD_CA = "ca", "front-proxy-ca", "etcd-ca"
AUTHORITIES = (CA, FRONT_PROXY_CA, ETCD_CA)


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One certificate that the cluster needs.

    :param name: of its files: ``<name>.crt`` and ``<name>.key``.
    :param authority: the name of the CA that signs it.
    :param common_name: the user that it stands for, or the server's name.
    :param organization: the group that the user is in; none when empty.
    :param server: the names and addresses that it serves; none for a client only.
    :param client: whether it may be used as a client's.
    """

    name: str
    authority: str
    common_name: str
    organization: str = ""
    server: tuple[str, ...] = ()
    client: bool = True


def leaves(layout: Layout) -> tuple[Leaf, ...]:
    """Every certificate of a cluster."""
    api_names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{DNS_DOMAIN}"]
    api = (layout.name, "localhost", *api_names, layout.node_address, API_SERVICE_ADDRESS, "127.0.0.1")
    kubelet = (layout.name, layout.node_address)
    return (
        Leaf("apiserver", CA, "kube-apiserver", server=api, client=False),
        Leaf("apiserver-kubelet-client", CA, "kube-apiserver-kubelet-client", "system:masters"),
        Leaf("apiserver-etcd-client", ETCD_CA, "kube-apiserver-etcd-client"),
        Leaf("etcd", ETCD_CA, "etcd", server=("localhost", "127.0.0.1")),
        Leaf("front-proxy-client", FRONT_PROXY_CA, "front-proxy-client"),
        Leaf("admin", CA, "kubernetes-admin", "system:masters"),
        Leaf("controller-manager", CA, "system:kube-controller-manager"),
        Leaf("scheduler", CA, "system:kube-scheduler"),
        Leaf("kube-proxy", CA, "system:kube-proxy"),
        Leaf("kubelet", CA, f"system:node:{layout.name}", "system:nodes"),
        Leaf("kubelet-serving", CA, f"system:node:{layout.name}", "system:nodes", kubelet, client=False),
        Leaf("storage-provisioner", CA, "groundwork:storage-provisioner"),
    )


def ensure(layout: Layout, now: datetime.datetime | None = None) -> list[str]:
    """Make what is missing, broken, signed by another CA, for other names, or due for renewal.

    :param now: the current time; a test's way to let certificates age.
    :return: the names of what was made anew.
    :raises Failure: ``library_missing``.
    """
    if MISSING:
        cause = "lacks the library cryptography, which makes the cluster's certificates"
        raise Failure("library_missing", "Python", cause, hint="install it: ansible-core depends on it")
    now = now or datetime.datetime.now(datetime.UTC)
    layout.pki.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = [name for name in AUTHORITIES if _ensure_authority(layout.pki, name, f"{layout.name} {name}", now)]
    authorities = {name: _load(layout.pki, name) for name in AUTHORITIES}
    for leaf in leaves(layout):
        pair = authorities[leaf.authority]
        if pair is not None and _ensure_leaf(layout.pki, leaf, pair, now):
            made.append(leaf.name)
    if _ensure_service_account_key(layout.pki):
        made.append("service-account")
    return made


def due(layout: Layout, now: datetime.datetime | None = None) -> bool:
    """Whether :func:`ensure` would make any certificate; nothing is written."""
    now = now or datetime.datetime.now(datetime.UTC)
    for name in AUTHORITIES:
        if not _good_authority(_load(layout.pki, name), now):
            return True
    authorities = {name: _load(layout.pki, name) for name in AUTHORITIES}
    for leaf in leaves(layout):
        authority = authorities[leaf.authority]
        if authority is None or not _good_leaf(_load(layout.pki, leaf.name), leaf, authority, now):
            return True
    return False


def encryption_key(layout: Layout) -> bytes:
    """The key with which Secrets are encrypted in etcd: 32 bytes, made once and never renewed."""
    path = layout.pki / "encryption.key"
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = b""
    if len(key) != 32:
        key = os.urandom(32)
        files.write(path, key, 0o600)
    return key


@dataclasses.dataclass(frozen=True)
class _Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def _load(folder: Path, name: str) -> _Pair | None:
    """A certificate with its key; none when either is missing, cannot be read, or does not fit the other."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())
        key = serialization.load_pem_private_key((folder / f"{name}.key").read_bytes(), password=None)
    except (OSError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        return None
    return _Pair(certificate, key)


def _good_authority(pair: _Pair | None, now: datetime.datetime) -> bool:
    return pair is not None and pair.certificate.not_valid_after_utc - now >= datetime.timedelta(days=RENEW_DAYS)


def _good_leaf(pair: _Pair | None, leaf: Leaf, authority: _Pair, now: datetime.datetime) -> bool:
    return pair is not None and _good_authority(pair, now) and _fits(pair.certificate, leaf, authority)


def _ensure_authority(folder: Path, name: str, common_name: str, now: datetime.datetime) -> bool:
    if _good_authority(_load(folder, name), now):
        return False
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = _builder(subject, subject, key.public_key(), now, CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(authority=True), critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    _store(folder, name, builder.add_extension(identifier, critical=False).sign(key, hashes.SHA256()), key)
    return True


def _ensure_leaf(folder: Path, leaf: Leaf, authority: _Pair, now: datetime.datetime) -> bool:
    if _good_leaf(_load(folder, leaf.name), leaf, authority, now):
        return False
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.COMMON_NAME, leaf.common_name)]
    if leaf.organization:
        names.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, leaf.organization))
    builder = _builder(x509.Name(names), authority.certificate.subject, key.public_key(), now, LEAF_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(authority=False), critical=True)
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH] if leaf.server else []
    if leaf.client:
        purposes.append(ExtendedKeyUsageOID.CLIENT_AUTH)
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if leaf.server:
        names_served = x509.SubjectAlternativeName([_general_name(text) for text in leaf.server])
        builder = builder.add_extension(names_served, critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = builder.add_extension(issuer, critical=False)
    _store(folder, leaf.name, builder.sign(authority.key, hashes.SHA256()), key)
    return True


def _fits(certificate: x509.Certificate, leaf: Leaf, authority: _Pair) -> bool:
    """Whether a certificate was made by this CA for these names: a changed subnet changes them."""
    try:
        certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    served: set[str] = set()
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            served = {str(name.value) for name in extension.value}
    common_names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return served == set(leaf.server) and [str(name.value) for name in common_names] == [leaf.common_name]


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - _BACKDATE,
        not_valid_after=now + datetime.timedelta(days=days),
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _store(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    # The key first: a process killed in between leaves a pair that does not fit, which is made again.
    files.write(folder / f"{name}.key", _pem(key), 0o600)
    files.write(folder / f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o600)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _ensure_service_account_key(folder: Path) -> bool:
    """The key pair that signs service accounts' tokens; it has no certificate and does not expire."""
    private, public = folder / "service-account.key", folder / "service-account.pub"
    try:
        key = serialization.load_pem_private_key(private.read_bytes(), password=None)
    except (OSError, ValueError):
        key = ec.generate_private_key(ec.SECP256R1())
        files.write(private, _pem(key), 0o600)
    written = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return files.write(public, written, 0o600)
