"""Rare files: keys and certificates that are correct, but of a kind or in a place one seldom meets."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12

from tests.support import certificates as made
from tests.support.material_files import Place
from tlstunnel.config.model import CertificateFiles
from tlstunnel.x509.checks import ca_warnings, crl_problems, warnings
from tlstunnel.x509.key import decrypt
from tlstunnel.x509.material import Credential, MaterialError, load_ca, load_credential, load_crls
from tlstunnel.x509.passphrase import VARIABLE, PassphraseSource
from tlstunnel.x509.pem import SourceFile, read_file
from tlstunnel.x509.permissions import is_open_to_others

PAIR = made.server("www.example.org")
ECDSA_SHA256 = bytes.fromhex("2a8648ce3d040302")
UNKNOWN = bytes.fromhex("2a8648ce3d04037f")
EC_KEY = bytes.fromhex("2a8648ce3d0201")
UNKNOWN_KEY = bytes.fromhex("2a8648ce3d027f")


def load(files: CertificateFiles) -> Credential:
    return load_credential(files, PassphraseSource())


def pem(label: str, der: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(der) + f"-----END {label}-----\n".encode()


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    return bytes([tag, size] if size < 0x80 else [tag, 0x82, size >> 8, size & 0xFF]) + body


def sec1(pair: made.Pair, before: bytes = b"", after: bytes = b"") -> bytes:
    """The pair's key as RFC 5915 has it, with something before its private value and at its end."""
    secret = pair.private_key.private_numbers().private_value
    size = (pair.private_key.key_size + 7) // 8
    curve = der(0xA0, bytes.fromhex("06082a8648ce3d030107"))
    return der(0x30, b"\x02\x01\x01", der(0x04, before + secret.to_bytes(size, "big")), curve, after)


def test_a_sign_byte_before_the_private_value_does_no_harm(tmp_path: Path) -> None:
    for before in (b"", b"\0"):
        files = Place(tmp_path).pair(PAIR.certificate, pem("EC PRIVATE KEY", sec1(PAIR, before)))
        assert load(files).spki_pin == load(CertificateFiles(certificate=PAIR.combined)).spki_pin


@pytest.mark.parametrize("before", [b"\1", b"\0\0", b"\0" * 17])
def test_any_other_byte_before_the_private_value_is_refused_with_the_remedy(before: bytes, tmp_path: Path) -> None:
    files = Place(tmp_path).pair(PAIR.certificate, pem("EC PRIVATE KEY", sec1(PAIR, before)))
    with pytest.raises(MaterialError, match=r"write it again with openssl|is damaged"):
        load(files)


def test_a_sign_byte_in_pkcs8_is_refused_with_the_remedy(tmp_path: Path) -> None:
    algorithm = der(0x30, bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06082a8648ce3d030107"))
    wrapped = der(0x30, b"\x02\x01\x00", algorithm, der(0x04, sec1(PAIR, b"\0")))
    with pytest.raises(MaterialError, match="write it again with openssl"):
        load(Place(tmp_path).pair(PAIR.certificate, pem("PRIVATE KEY", wrapped)))


def test_an_ec_key_far_too_long_is_damaged(tmp_path: Path) -> None:
    content = pem("EC PRIVATE KEY", sec1(PAIR, b"\0", der(0x04, b"x" * 300)))
    with pytest.raises(MaterialError, match="is damaged"):
        load(Place(tmp_path).pair(PAIR.certificate, content))


def test_a_key_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    key = x25519.X25519PrivateKey.generate().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    content = pem("PRIVATE KEY", key.replace(bytes.fromhex("2b656e"), bytes.fromhex("2b6501")))
    with pytest.raises(MaterialError, match="of a kind that TLS does not use"):
        load(Place(tmp_path).pair(PAIR.certificate, content))


def test_an_unknown_signature_algorithm_neither_breaks_nor_vouches(tmp_path: Path) -> None:
    """A leaf signed in a way this library cannot check: its issuer is still sent, found by name."""
    leaf = pem("CERTIFICATE", PAIR.leaf_der.replace(ECDSA_SHA256, UNKNOWN))
    credential = load(Place(tmp_path).pair([leaf, made.ca().certificate], PAIR.key))
    assert credential.chain_der == (made.ca().leaf_der,)
    assert warnings(credential, now=made.NOW) == list(credential.remarks)


def test_a_list_signed_in_an_unknown_way_is_not_one_of_the_ca(tmp_path: Path) -> None:
    content = x509.load_pem_x509_crl(made.crl().read_bytes()).public_bytes(Encoding.DER).replace(ECDSA_SHA256, UNKNOWN)
    lists = load_crls(Place(tmp_path).put("ca.crl", content))
    assert "is not signed by a CA" in crl_problems(lists, load_ca(made.ca().certificate), now=made.NOW)[0]


def test_a_ca_whose_key_signs_nothing_signed_no_list(tmp_path: Path) -> None:
    namesake = made.issue("tlstunnel test CA", key_type="X25519")
    path = Place(tmp_path).put("ca.pem", [namesake.certificate, made.ca().certificate])
    assert crl_problems(load_crls(made.crl()), load_ca(path), now=made.NOW) == []


@pytest.mark.parametrize("key_type", ["RSA 2048", "Ed25519", "Ed448", "ML-DSA-65"])
def test_a_chain_is_put_in_order_whatever_its_cas_sign_with(key_type: str, tmp_path: Path) -> None:
    parent = made.intermediate(name=f"{key_type} CA", key_type=key_type)
    pair = made.issue("www.example.org", dns=("www.example.org",), under=parent)
    namesake = made.issue(f"{key_type} CA", self_signed=True)  # same name, other key: signed nothing
    mixed = [made.ca().certificate, namesake.certificate, parent.certificate, pair.certificate]
    credential = load(Place(tmp_path).pair(mixed, pair.key))
    assert credential.certificate_der == pair.leaf_der
    assert credential.chain_der == (parent.leaf_der, made.ca().leaf_der)


def test_pkcs12_with_a_certificate_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    odd = x509.load_der_x509_certificate(PAIR.leaf_der.replace(EC_KEY, UNKNOWN_KEY))
    content = pkcs12.serialize_key_and_certificates(b"x", PAIR.private_key, PAIR.leaf, [odd], NoEncryption())
    with pytest.raises(MaterialError, match="a certificate in it cannot be used; unknown key type"):
        load(Place(tmp_path).p12(content))


def test_pkcs12_that_is_not_strict_der_loads_without_a_word(tmp_path: Path) -> None:
    content = made.p12(PAIR).read_bytes() + b"\0\0"
    assert load(Place(tmp_path).p12(content)).certificate_der == PAIR.leaf_der


def test_an_encryption_that_is_not_supported_is_not_called_a_wrong_passphrase(tmp_path: Path) -> None:
    def unsupported(_: bytes) -> object:
        raise UnsupportedAlgorithm("scrypt")

    file = SourceFile(tmp_path / "server.key", b"", 0o600)
    with pytest.raises(MaterialError, match="encrypted in a way that is not supported"):
        decrypt(file, None, PassphraseSource({VARIABLE: "x"}), unsupported)


def test_a_certificate_with_a_key_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    content = pem("CERTIFICATE", PAIR.leaf_der.replace(EC_KEY, UNKNOWN_KEY))
    with pytest.raises(MaterialError, match="line 1: CERTIFICATE cannot be used; unknown key type"):
        load(Place(tmp_path).pair(content, PAIR.key))


def test_an_intermediate_with_its_root_beside_it_is_no_problem(tmp_path: Path) -> None:
    path = Place(tmp_path).put("ca.pem", [made.intermediate().certificate, made.ca().certificate])
    assert ca_warnings(load_ca(path), now=made.NOW) == []


def test_a_file_that_opens_but_cannot_be_read_is_the_machines_fault() -> None:
    with pytest.raises(MaterialError, match="cannot be read: input/output error") as caught:
        read_file(Path("/proc/self/mem"))
    assert caught.value.exit_code == 1


def test_a_user_without_a_name_is_called_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", deny)
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_001)
    with pytest.raises(MaterialError, match="permission denied for user 4000000001"):
        read_file(tmp_path / "server.pem")


def test_a_file_whose_folder_is_gone_is_not_called_exposed(tmp_path: Path) -> None:
    assert not is_open_to_others(SourceFile(tmp_path / "gone" / "server.key", b"", 0o644))
