"""Private keys: every kind we make, read back, encrypted and not; everything else refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.support.material_files import opening
from tlstunnel.cli.cert.options import Source
from tlstunnel.errors import UsageError
from tlstunnel.tools.pki import encryption, keys
from tlstunnel.tools.pki.keys import KeyKind
from tlstunnel.x509.key import key_type
from tlstunnel.x509.passphrase import Passphrase
from tlstunnel.x509.pem import SourceFile, write_pem

QUICK = [kind for kind in KeyKind if kind not in (KeyKind.RSA3072, KeyKind.RSA4096)]


def pem(key: object, format: PrivateFormat = PrivateFormat.PKCS8, secret: bytes | None = None) -> bytes:
    method = NoEncryption() if secret is None else BestAvailableEncryption(secret)
    return key.private_bytes(Encoding.PEM, format, method)  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("kind", QUICK)
def test_a_key_of_each_kind_reads_back(kind: KeyKind) -> None:
    key = keys.generate(kind)
    assert keys.same_kind(key.public_key()) is kind
    again = keys.parse(keys.to_pem(key), where="k")
    assert keys.public_bytes(again) == keys.public_bytes(key)
    again = keys.parse(keys.to_pem(key, Passphrase(b"secret")), where="k", passphrases=opening("secret"))
    assert keys.public_bytes(again) == keys.public_bytes(key)


def test_names_are_what_operators_say() -> None:
    said = {key_type(keys.generate(kind)) for kind in QUICK}
    assert said >= {"ECDSA P-256", "ECDSA P-384", "Ed25519", "RSA 2048", "ML-DSA-65"}


def test_an_encrypted_key_takes_many_rounds_to_guess() -> None:
    der = encryption.encrypt_pkcs8(b"x", Passphrase(b"p"))
    assert encryption.ROUNDS >= 600_000
    assert encryption.ROUNDS.to_bytes(3, "big") in der


@pytest.mark.parametrize("format", [PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8])
def test_older_forms_are_read(format: PrivateFormat) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    assert keys.public_bytes(keys.parse(pem(key, format), where="k")) == keys.public_bytes(key)
    opened = keys.parse(pem(key, format, b"old"), where="k", passphrases=opening("old"))
    assert keys.public_bytes(opened) == keys.public_bytes(key)


def test_a_passphrase_for_a_key_that_needs_none_does_no_harm() -> None:
    keys.parse(keys.to_pem(keys.generate()), where="k", passphrases=opening("needless"))
    der = keys.generate().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    keys.parse(der, where="k", passphrases=opening("needless"))


def test_a_key_beside_other_pem_blocks_is_found() -> None:
    key = keys.generate()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    text = b"Bag Attributes\n" + public + b"some text\n" + keys.to_pem(key)
    assert keys.public_bytes(keys.parse(text, where="k")) == keys.public_bytes(key)


def weak_rsa() -> bytes:
    return pem(rsa.generate_private_key(public_exponent=65537, key_size=1024))  # noqa: S505


BAD = {
    "garbage": (b"\x00\x01garbage", "is not PEM"),
    "empty": (b"", "is empty"),
    "truncated": (keys.to_pem(keys.generate())[:120], "the file is cut short"),
    "cut in the middle": (
        keys.to_pem(keys.generate())[:60] + b"\n-----END PRIVATE KEY-----\n",
        "line 1: PRIVATE KEY is damaged; copy it anew",
    ),
    "public": (
        keys.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "holds PUBLIC KEY but no private key",
    ),
    "certificate": (
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "holds a certificate but no private key; are certificate and key swapped",
    ),
    "ssh": (
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        "holds an OpenSSH key; convert a copy of it with ssh-keygen",
    ),
    "no signature": (pem(x25519.X25519PrivateKey.generate()), "is of no use in TLS"),
    "weak rsa": (weak_rsa(), "RSA 1024 is refused by OpenSSL"),
    "weak curve": (pem(ec.generate_private_key(ec.SECP224R1())), "TLS 1.3 has no signatures with ECDSA secp224r1"),
    "encrypted": (keys.to_pem(keys.generate(), Passphrase(b"x")), "is encrypted; give its passphrase"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_what_is_no_usable_key_is_refused_by_name(case: str) -> None:
    data, what = BAD[case]
    with pytest.raises(UsageError, match=what) as caught:
        keys.parse(data, where="some.key")
    assert str(caught.value).startswith("some.key: ")
    assert "\n" not in str(caught.value)


def test_a_wrong_passphrase_is_said_to_be_wrong_and_is_not_repeated() -> None:
    data = keys.to_pem(keys.generate(), Passphrase(b"right"))
    with pytest.raises(UsageError, match=r"is encrypted, and the passphrase in [A-Z_]+ does not open it") as caught:
        keys.parse(data, where="k", passphrases=opening("hunter2"))
    assert "hunter2" not in repr(caught.value) + str(caught.value)


def costly(rounds: int) -> bytes:
    der = encryption.encrypt_pkcs8(b"x" * 64, Passphrase(b"p"), rounds=1 << 20)
    old, new = b"\x02\x03\x10\x00\x00", b"\x02\x05" + rounds.to_bytes(5, "big")
    assert old in der
    head, tail = der.split(old)
    grown = bytearray(head + new + tail)
    # Five enclosing sequences have grown by two bytes each; all but the outermost two have one-byte lengths.
    for place in [i for i in range(len(head) - 1) if grown[i] == 0x30 and i < len(head)]:
        if grown[place + 1] < 0x7E:
            grown[place + 1] += 2
        elif grown[place + 1] == 0x81:
            grown[place + 2] += 2
    return bytes(grown)


@pytest.mark.parametrize("rounds", [1 << 32, 20_000_000])
def test_a_key_that_would_keep_us_busy_for_hours_is_refused_at_once(rounds: int) -> None:
    hostile = costly(rounds)
    for data in (hostile, write_pem("ENCRYPTED PRIVATE KEY", hostile)):
        with pytest.raises(UsageError, match="asks for more than 10000000 rounds"):
            keys.parse(data, where="k", passphrases=opening("p"))


def test_a_passphrase_shows_in_no_repr() -> None:
    assert "hunter2" not in repr(Passphrase(b"hunter2"))
    assert "hunter2" not in f"{Passphrase(b'hunter2')!s}"


def test_a_passphrase_file_counts_to_the_end_of_its_first_line(tmp_path: Path) -> None:
    for content in (b"open sesame", b"open sesame\n", b"open sesame\r\nsecond\n"):
        assert Passphrase.in_file(SourceFile(tmp_path / "pass", content, 0)).value == b"open sesame"
    with pytest.raises(UsageError, match="has an empty first line"):
        Passphrase.in_file(SourceFile(tmp_path / "pass", b"\nsecond\n", 0))


def test_a_new_passphrase_is_neither_empty_nor_longer_than_openssl_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_PASS", "open sesame")
    assert Source(variable="KEY_PASS").choose("k").value == b"open sesame"
    for wrong in ("", "x" * 1025):
        monkeypatch.setenv("KEY_PASS", wrong)
        with pytest.raises(UsageError, match="the passphrase in KEY_PASS is empty, or longer than 1024 bytes"):
            Source(variable="KEY_PASS").choose("k")
    with pytest.raises(UsageError, match='"NOT_THERE" is not set'):
        Source(variable="NOT_THERE").choose("k")
