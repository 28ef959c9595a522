"""Every wording about a certificate or key file that cannot be used, as golden files: a broken file in, one line out.

`UPDATE_GOLDEN=1 pytest tests/unit/test_material_refused.py` writes them anew; read the difference before you keep it.
"""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, pkcs12

from tests.support import certificates as made
from tests.support.material_files import GOLDEN, SECRET, WRONG, Place, assert_no_secret, compare
from tests.support.refused_material import LEAF, REFUSED, refused
from tlstunnel.config.model import CertificateFiles
from tlstunnel.x509.material import MaterialError, load_credential
from tlstunnel.x509.passphrase import PassphraseSource

# Damage.


@refused
def cut_short(place: Place) -> CertificateFiles:
    return place.pair(LEAF.certificate.read_bytes()[:-20], LEAF.key)


@refused
def cut_short_before_another(place: Place) -> CertificateFiles:
    return place.pair([b"leaf\n", LEAF.certificate.read_bytes()[:300], b"\n", made.ca().certificate], LEAF.key)


@refused
def wrong_end(place: Place) -> CertificateFiles:
    return place.pair(LEAF.certificate.read_bytes().replace(b"END CERT", b"END X509 CERT"), LEAF.key)


@refused
def damaged_begin(place: Place) -> CertificateFiles:
    return place.pair(
        LEAF.certificate.read_bytes().replace(b"BEGIN CERTIFICATE-----", b"BEGIN CERTIFICATE--"), LEAF.key
    )


@refused
def not_base64(place: Place) -> CertificateFiles:
    return place.pair(LEAF.certificate.read_bytes().replace(b"MII", b"M!I", 1), LEAF.key)


@refused
def escaped_line_breaks(place: Place) -> CertificateFiles:
    return place.pair(LEAF.certificate.read_bytes().replace(b"\n", b"\\n"), LEAF.key)


@refused
def empty_block(place: Place) -> CertificateFiles:
    return place.pair(b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", LEAF.key)


@refused
def lost_line(place: Place) -> CertificateFiles:
    lines = LEAF.certificate.read_bytes().splitlines(keepends=True)
    return place.pair(b"".join(lines[:2] + lines[3:]), LEAF.key)


@refused
def damaged_key(place: Place) -> CertificateFiles:
    lines = LEAF.key.read_bytes().splitlines(keepends=True)
    return place.pair(LEAF.certificate, b"".join(lines[:1] + lines[2:]))


@refused
def key_not_base64(place: Place) -> CertificateFiles:
    return place.pair(LEAF.certificate, LEAF.key.read_bytes().replace(b"MI", b"*I", 1))


@refused
def p12_cut_short(place: Place) -> CertificateFiles:
    return place.p12(made.p12(LEAF, SECRET).read_bytes()[:-40], SECRET.encode())


# Parts that do not fit.


@refused
def no_key(place: Place) -> CertificateFiles:
    return place.pair(LEAF.certificate, None)


@refused
def several_keys(place: Place) -> CertificateFiles:
    return place.pair(LEAF.certificate, [LEAF.key, made.ca().key])


@refused
def other_key(place: Place) -> CertificateFiles:
    return place.pair(LEAF.certificate, made.ca().key)


@refused
def other_key_in_one_file(place: Place) -> CertificateFiles:
    return place.pair([LEAF.certificate, made.ca("another").key], None)


@refused
def other_kind_of_key(place: Place) -> CertificateFiles:
    return place.pair([LEAF.certificate, made.ca().certificate], made.server("rsa.example", key_type="RSA 2048").key)


@refused
def key_that_cannot_sign(place: Place) -> CertificateFiles:
    return place.pair(LEAF.certificate, made.key_bytes(x25519.X25519PrivateKey.generate(), Encoding.PEM))


@refused
def dsa_key(place: Place) -> CertificateFiles:
    return place.pair(LEAF.certificate, made.key_bytes(dsa.generate_private_key(1024), Encoding.PEM))  # noqa: S505


@refused
def small_rsa_key(place: Place) -> CertificateFiles:
    pair = made.server("www.example.org", key_type="RSA 1024")
    return place.pair(pair.certificate, pair.key)


@refused
def curve_without_signatures(place: Place) -> CertificateFiles:
    pair = made.server("www.example.org", key_type="ECDSA secp256k1")
    return place.pair(pair.certificate, pair.key)


@refused
def ca_bundle_as_certificate(place: Place) -> CertificateFiles:
    return place.pair([LEAF.combined] + [made.ca().certificate] * 40, None)


@refused
def p12_without_key(place: Place) -> CertificateFiles:
    return place.p12(pkcs12.serialize_key_and_certificates(b"x", None, LEAF.leaf, None, NoEncryption()))


@refused
def p12_without_certificate(place: Place) -> CertificateFiles:
    return place.p12(pkcs12.serialize_key_and_certificates(b"x", LEAF.private_key, None, None, NoEncryption()))


@refused
def p12_with_another_key(place: Place) -> CertificateFiles:
    other = pkcs12.serialize_key_and_certificates(b"x", LEAF.private_key, None, [made.ca().leaf], NoEncryption())
    return place.p12(other)


# Passphrases.


@refused
def encrypted_and_nobody_to_ask(place: Place) -> CertificateFiles:
    return place.pair(LEAF.certificate, made.encrypted_key(LEAF, SECRET))


@refused
def encrypted_and_the_file_is_wrong(place: Place) -> CertificateFiles:
    place.environ["TLSTUNNEL_KEY_PASSPHRASE"] = SECRET  # the file counts, although this would open it
    files = place.pair(LEAF.certificate, made.encrypted_key(LEAF, SECRET))
    secret = place.put("pass.txt", f"{WRONG}\n".encode())
    return CertificateFiles(certificate=files.certificate, key=files.key, key_passphrase_file=secret)


@refused
def encrypted_and_the_variable_is_wrong(place: Place) -> CertificateFiles:
    place.environ["TLSTUNNEL_KEY_PASSPHRASE"] = WRONG
    return place.pair(LEAF.certificate, made.encrypted_key(LEAF, SECRET))


@refused
def passphrase_file_missing(place: Place) -> CertificateFiles:
    files = place.pair(LEAF.certificate, made.encrypted_key(LEAF, SECRET))
    return CertificateFiles(certificate=files.certificate, key=files.key, key_passphrase_file=place.folder / "pass.txt")


@refused
def passphrase_file_begins_empty(place: Place) -> CertificateFiles:
    files = place.pair(LEAF.certificate, made.encrypted_key(LEAF, SECRET))
    secret = place.put("pass.txt", b"\n" + SECRET.encode())
    return CertificateFiles(certificate=files.certificate, key=files.key, key_passphrase_file=secret)


@refused
def p12_and_nobody_to_ask(place: Place) -> CertificateFiles:
    return place.p12(made.p12(LEAF, SECRET))


@refused
def p12_and_the_file_is_wrong(place: Place) -> CertificateFiles:
    return place.p12(made.p12(LEAF, SECRET), WRONG.encode())


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_file_is_refused_in_one_line_that_says_what_it_is(name: str, tmp_path: Path) -> None:
    place = Place(tmp_path)
    with pytest.raises(MaterialError) as caught:
        load_credential(REFUSED[name](place), PassphraseSource(place.environ))
    assert str(caught.value).isprintable()
    assert "; " in str(caught.value), "no remedy"
    compare(f"refused_{name}", f"{caught.value}\nexit {caught.value.exit_code}\n", tmp_path)
    assert_no_secret("".join(traceback.format_exception(caught.value, chain=True)), place)


def test_an_unreadable_file_names_the_user_who_may_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    path = Place(tmp_path).put("server.pem", b"x")
    monkeypatch.setattr(os, "open", deny)
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    with pytest.raises(MaterialError) as caught:
        load_credential(CertificateFiles(certificate=path), PassphraseSource())
    compare("refused_permission", f"{caught.value}\nexit {caught.value.exit_code}\n", tmp_path)


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("refused_*.txt")} == {
        f"refused_{name}" for name in [*REFUSED, "permission"]
    }
