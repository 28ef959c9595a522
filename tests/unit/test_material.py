"""Certificates and keys as values: what is promised of what loads."""

from __future__ import annotations

import base64
import hashlib
import pickle
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)
from cryptography.x509.oid import AuthorityInformationAccessOID

from tests.support import certificates as made
from tests.support.material_files import SECRET, Place
from tlstunnel.config.model import CertificateFiles
from tlstunnel.x509.certificate import MAX_CHAIN
from tlstunnel.x509.checks import covers
from tlstunnel.x509.material import Credential, MaterialError, contents_digest, files_of, load_credential
from tlstunnel.x509.passphrase import PassphraseSource

KEY_TYPES = ["RSA 2048", "ECDSA P-256", "ECDSA P-384", "ECDSA P-521", "Ed25519", "Ed448"]
KEY_TYPES += ["ML-DSA-44", "ML-DSA-65", "ML-DSA-87"]


def load(files: CertificateFiles, **environ: str) -> Credential:
    return load_credential(files, PassphraseSource(environ))


def of(pair: made.Pair) -> CertificateFiles:
    return CertificateFiles(certificate=pair.certificate, key=pair.key)


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_every_kind_of_key_loads_from_every_kind_of_file(key_type: str, tmp_path: Path) -> None:
    pair = made.server("www.example.org", key_type=key_type)
    place = Place(tmp_path)
    ways = [
        load(of(pair)),
        load(CertificateFiles(certificate=pair.combined)),
        load(CertificateFiles(certificate=pair.combined, key=pair.combined)),
        load(place.pair(pair.certificate, made.encrypted_key(pair, SECRET)), TLSTUNNEL_KEY_PASSPHRASE=SECRET),
    ]
    if not key_type.startswith("ML-DSA"):  # cryptography 50 writes no PKCS#12 with these, so nobody has one yet
        ways.append(load(CertificateFiles(p12=made.p12(pair, SECRET)), TLSTUNNEL_KEY_PASSPHRASE=SECRET))
        ways.append(load(CertificateFiles(p12=made.p12(pair))))
    for credential in ways:
        assert credential.key_type == key_type
        assert credential.certificate_der == pair.leaf_der
        assert load_der_private_key(credential.key_der, None).public_key() == pair.leaf.public_key()


@pytest.mark.parametrize("key_type", ["RSA 2048", "ECDSA P-256"])
@pytest.mark.parametrize("passphrase", ["", SECRET])
def test_keys_in_the_formats_of_older_openssl_load(key_type: str, passphrase: str, tmp_path: Path) -> None:
    pair = made.server("www.example.org", key_type=key_type)
    how = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    key = pair.private_key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, how)
    assert (b"Proc-Type" in key) == bool(passphrase)
    files = Place(tmp_path).pair(pair.certificate, key)
    assert load(files, TLSTUNNEL_KEY_PASSPHRASE=passphrase or "unused").key_type == key_type


def test_a_credential_says_what_its_certificate_says() -> None:
    pair = made.issue("Common Name", dns=("a.example", "*.b.example"), ips=("192.0.2.7", "2001:db8::1"), ou=("unit",))
    credential = load(of(pair))
    assert credential.names == ("a.example", "*.b.example", "192.0.2.7", "2001:db8::1")
    assert credential.has_san
    assert credential.subject == "CN=Common Name,OU=unit"
    assert credential.issuer == "CN=tlstunnel test CA"
    assert credential.serial == pair.leaf.serial_number
    assert (credential.not_before, credential.not_after) == (made.NOW - timedelta(1), made.NOW + timedelta(90))
    assert credential.not_after.utcoffset() == timedelta(0)
    assert credential.fingerprint == hashlib.sha256(pair.leaf_der).hexdigest()
    key = pair.leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert credential.spki_pin == "sha256:" + base64.b64encode(hashlib.sha256(key).digest()).decode()
    assert credential.source == str(pair.certificate)
    assert not credential.must_staple
    assert credential.ocsp_responders == ()


def test_what_stapling_needs_is_read_from_the_certificate() -> None:
    responder = x509.AccessDescription(
        AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier("http://ocsp.example/")
    )
    extensions = (
        x509.TLSFeature([x509.TLSFeatureType.status_request]),
        x509.AuthorityInformationAccess([responder]),
    )
    credential = load(of(made.server("www.example.org", extensions=extensions)))
    assert credential.must_staple
    assert credential.ocsp_responders == ("http://ocsp.example/",)


def test_the_common_name_counts_only_without_any_other_name() -> None:
    assert load(of(made.issue("old.example"))).names == ("old.example",)
    assert not load(of(made.issue("old.example"))).has_san
    assert load(of(made.issue("billing", uris=("spiffe://example.org/billing",)))).names == ()


def test_a_credential_crosses_to_another_process_whole() -> None:
    credential = load(of(made.server("www.example.org", through_intermediate=True)))
    assert pickle.loads(pickle.dumps(credential)) == credential  # noqa: S301


def test_no_representation_of_a_credential_holds_the_key() -> None:
    credential = load(of(made.server("www.example.org")))
    shown = f"{credential!r} {credential}"
    for secret in (credential.key_der, credential.digest.encode(), credential.certificate_der):
        assert repr(secret)[2:20] not in shown
        assert secret.hex()[:20] not in shown
        assert base64.b64encode(secret).decode()[:20] not in shown


@pytest.mark.parametrize("order", ["leaf int root", "int leaf root", "root int leaf", "leaf root int", "int root leaf"])
def test_whatever_the_order_in_the_file_the_chain_is_sent_in_order(order: str, tmp_path: Path) -> None:
    pair = made.server("www.example.org", through_intermediate=True)
    parts = {"leaf": pair.leaf, "int": pair.chain[0], "root": made.ca().leaf}
    files = Place(tmp_path).pair(made.pem(*(parts[part] for part in order.split())), pair.key)
    credential = load(files)
    assert credential.certificate_der == pair.leaf_der
    assert [x509.load_der_x509_certificate(der) for der in credential.chain_der] == [parts["int"], parts["root"]]


def test_both_paths_of_a_cross_signed_issuer_are_sent_one_after_the_other(tmp_path: Path) -> None:
    other = made.intermediate(root="other root")
    pair = made.server("www.example.org", through_intermediate=True)
    assert other.leaf.public_key() == pair.chain[0].public_key()
    order = [pair.leaf, pair.chain[0], made.ca().leaf, other.leaf, made.ca("other root").leaf]
    credential = load(Place(tmp_path).pair(made.pem(*order), pair.key))
    assert [x509.load_der_x509_certificate(der) for der in (credential.certificate_der, *credential.chain_der)] == order
    assert not any("out of order" in line for line in credential.remarks)


def test_an_issuer_by_name_that_did_not_sign_is_not_sent(tmp_path: Path) -> None:
    impostor = made.issue("tlstunnel test CA", self_signed=True)
    pair = made.server("www.example.org")
    credential = load(Place(tmp_path).pair([pair.certificate, impostor.certificate], pair.key))
    assert credential.chain_der == ()
    assert "is not in the chain" in credential.remarks[0]


def test_a_chain_as_long_as_allowed_loads(tmp_path: Path) -> None:
    pair = made.server("www.example.org")
    files = Place(tmp_path).pair([pair.certificate, *[made.ca().certificate] * (MAX_CHAIN - 1)], pair.key)
    assert len(load(files).chain_der) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda pem: b"\xef\xbb\xbf" + pem,
        lambda pem: pem.replace(b"\n", b"\r\n"),
        lambda pem: b"Bag Attributes\n    friendlyName: x\nsubject=CN = x\n" + pem + b"\ntrailing words",
        lambda pem: b"".join(b"    " + line + b" \n" for line in pem.splitlines()),
        lambda pem: pem.rstrip(b"\n"),
        lambda pem: pem.replace(b" CERTIFICATE-", b" X509 CERTIFICATE-"),
        lambda pem: b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + pem,
        lambda pem: pem.replace(b"-----END CERTIFICATE-----\n", b"-----END CERTIFICATE-----", 1),
    ],
    ids=["BOM", "Windows", "comments", "indented", "no last line break", "old label", "parameters", "joined"],
)
def test_files_that_people_and_tools_really_write_load(change: object, tmp_path: Path) -> None:
    pair = made.server("www.example.org", through_intermediate=True)
    content = change(pair.combined.read_bytes())  # type: ignore[operator]
    credential = load(Place(tmp_path).pair(content, None))
    assert (credential.certificate_der, len(credential.chain_der)) == (pair.leaf_der, 1)


def test_the_digest_follows_the_content_of_every_file_and_nothing_else(tmp_path: Path) -> None:
    pair = made.server("www.example.org")
    place = Place(tmp_path)
    plain = place.pair(pair.certificate, made.encrypted_key(pair, SECRET))
    files = CertificateFiles(
        certificate=plain.certificate, key=plain.key, key_passphrase_file=place.put("pass.txt", f"{SECRET}\n".encode())
    )
    credential = load(files)
    assert contents_digest(files_of(files)) == credential.digest
    for path in files_of(files):
        before = path.read_bytes()
        path.write_bytes(before + b"\n")
        assert contents_digest(files_of(files)) != credential.digest
        path.write_bytes(before)
    assert load(files) == credential
    assert files.certificate is not None
    files.certificate.unlink()
    with pytest.raises(MaterialError):
        contents_digest(files_of(files))


@pytest.mark.parametrize("kind", ["both in one", "one path twice", "p12"])
def test_the_digest_can_be_taken_again_for_every_way_of_naming_files(kind: str) -> None:
    pair = made.server("www.example.org")
    files = {
        "both in one": CertificateFiles(certificate=pair.combined),
        "one path twice": CertificateFiles(certificate=pair.combined, key=pair.combined),
        "p12": CertificateFiles(p12=made.p12(pair)),
    }[kind]
    assert contents_digest(files_of(files)) == load(files).digest


def test_files_behind_swapped_links_are_read_where_the_links_lead_now(tmp_path: Path) -> None:
    """As Kubernetes replaces a mounted secret: the link to the folder changes, the files' paths do not."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        pair = made.server(f"{name}.example.org")
        shutil.copy(pair.certificate, tmp_path / name / "tls.crt")
        shutil.copy(pair.key, tmp_path / name / "tls.key")
    (tmp_path / "data").symlink_to("one")
    files = CertificateFiles(certificate=tmp_path / "data" / "tls.crt", key=tmp_path / "data" / "tls.key")
    first = load(files)
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").rename(tmp_path / "data")
    assert contents_digest(files_of(files)) != first.digest
    assert load(files).names == ("two.example.org",)


@pytest.mark.parametrize(
    ("names", "wanted", "is_covered"),
    [
        (["www.example.org"], "WWW.example.ORG.", True),
        (["*.example.org"], "www.example.org", True),
        (["*.example.org"], "example.org", False),
        (["*.example.org"], "a.b.example.org", False),
        (["*.example.org"], "*.example.org", True),
        (["www.example.org"], "*.example.org", False),
        (["*.org"], "example.org", False),
        (["w*.example.org"], "www.example.org", False),
        (["192.0.2.7"], "192.0.2.7", True),
        (["*.0.2.7"], "192.0.2.7", False),
        (["2001:db8::1"], "[2001:DB8:0::1]", True),
        ([], "www.example.org", False),
    ],
)
def test_a_wildcard_covers_one_whole_label(names: list[str], wanted: str, is_covered: bool) -> None:
    assert covers(names, wanted) is is_covered


def test_loading_material_needs_no_tls_library() -> None:
    """The supervisor reads keys; it should not carry what only workers use."""
    program = "import sys, tlstunnel.x509.material; print([m for m in ('OpenSSL', 'trio', 'ssl') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
