"""Whatever bytes a file holds, reading it ends in a value or in one line of an error; never in anything else."""

from __future__ import annotations

import base64
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import certificates as made
from tlstunnel.config.model import CertificateFiles
from tlstunnel.x509.checks import ca_warnings, warnings
from tlstunnel.x509.material import MaterialError, load_ca, load_credential, load_crls
from tlstunnel.x509.passphrase import PassphraseSource

PAIR = made.issue(
    "www.example.org",
    dns=("www.example.org", "*.example.org"),
    ips=("192.0.2.7",),
    uris=("spiffe://example.org/web",),
    ou=("unit",),
    through_intermediate=True,
)
NOW = datetime(2026, 11, 20, tzinfo=UTC)
SEC1 = PAIR.private_key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
CRL_DER = x509.load_pem_x509_crl(made.crl(PAIR.leaf).read_bytes()).public_bytes(Encoding.DER)
SEEDS = [
    PAIR.combined.read_bytes(),
    made.crl().read_bytes(),
    made.p12(PAIR).read_bytes(),
    PAIR.leaf_der,
    CRL_DER,
    b"-----BEGIN EC PRIVATE KEY-----\n" + base64.encodebytes(SEC1) + b"-----END EC PRIVATE KEY-----\n",
]
# Enough to find what breaks within a few runs; the seconds are those of the whole suite.
fuzzed = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A good file with a few bytes changed, removed, doubled or put in."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        size = draw(st.integers(0, 40))
        how = draw(st.sampled_from(["change", "remove", "double", "insert", "cut"]))
        if how == "change" and content:
            content[at] = draw(st.integers(0, 255))
        elif how == "remove":
            del content[at : at + size]
        elif how == "double":
            content[at:at] = content[at : at + size]
        elif how == "insert":
            content[at:at] = draw(st.binary(max_size=12))
        elif how == "cut":
            del content[at:]
    return bytes(content)


def pem(label: bytes, der: bytes) -> bytes:
    return b"-----BEGIN %s-----\n%s-----END %s-----\n" % (label, base64.encodebytes(der), label)


def one_line(load: Callable[[], object]) -> object:
    said = ""
    try:
        return load()
    except MaterialError as exc:
        said = str(exc)
    assert said.isprintable()
    assert len(said) < 1000
    return None


def read_all(path: Path) -> None:
    """Every reader there is."""
    nobody = PassphraseSource()
    for files in (CertificateFiles(certificate=path), CertificateFiles(p12=path)):
        credential = one_line(lambda files=files: load_credential(files, nobody))
        if credential is not None:
            warnings(credential, service_names=["www.example.org"], now=NOW)
            warnings(credential, now=NOW, use="client")
    bundle = one_line(lambda: load_ca(path))
    if bundle is not None:
        ca_warnings(bundle, now=NOW)
    one_line(lambda: load_crls(path))


@fuzzed
@given(content=damaged(SEEDS) | st.binary(max_size=200))
def test_damaged_files_end_in_a_value_or_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    read_all(path)


@pytest.mark.parametrize("label", [b"CERTIFICATE", b"X509 CRL"])
@fuzzed
@given(data=st.data())
def test_damage_below_the_base64_ends_in_a_value_or_in_one_line(
    label: bytes, data: st.DataObject, tmp_path: Path
) -> None:
    """Damage to the text is found by the base64 alone; here it reaches the parsers of DER."""
    der = data.draw(damaged([PAIR.leaf_der if label == b"CERTIFICATE" else CRL_DER]))
    path = tmp_path / "file"
    path.write_bytes(pem(label, der) + PAIR.key.read_bytes())
    read_all(path)


@fuzzed
@given(data=st.data(), label=st.sampled_from([b"PRIVATE KEY", b"EC PRIVATE KEY", b"RSA PRIVATE KEY"]))
def test_a_damaged_key_ends_in_a_value_or_in_one_line_without_any_of_it(
    data: st.DataObject, label: bytes, tmp_path: Path
) -> None:
    der = data.draw(damaged([PAIR.key_der, SEC1]))
    block = pem(label, der)
    path = tmp_path / "file"
    path.write_bytes(PAIR.certificate.read_bytes() + block)
    shown = ""
    try:
        load_credential(CertificateFiles(certificate=path), PassphraseSource())
    except MaterialError as exc:
        shown = "".join(traceback.format_exception(exc))
    assert len(der) < 24 or der.hex()[:48] not in shown
    assert not any(line.decode() in shown for line in block.splitlines()[1:-1] if len(line) > 20)


@fuzzed
@given(text=st.text(st.sampled_from("-BEGINDCRTFA Y\n\r\t:=+/Q\\\x00é"), max_size=200))
def test_text_that_is_nearly_pem_ends_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"-----BEGIN CERTIFICATE-----" + text.encode())
    read_all(path)


@fuzzed
@given(order=st.lists(st.integers(0, 5), max_size=8))
def test_any_mixture_of_certificates_is_sent_leaf_first_and_in_order(order: list[int], tmp_path: Path) -> None:
    pool = [PAIR.leaf, PAIR.chain[0], made.ca().leaf, made.ca("x").leaf, made.server("y").leaf]
    pool.append(made.intermediate("x").leaf)
    path = tmp_path / "file"
    path.write_bytes(made.pem(*(pool[number] for number in order)) + PAIR.key.read_bytes())
    credential = one_line(lambda: load_credential(CertificateFiles(certificate=path), PassphraseSource()))
    assert (credential is not None) == (0 in order)
    if credential is not None:
        sent = [x509.load_der_x509_certificate(der) for der in (credential.certificate_der, *credential.chain_der)]  # type: ignore[attr-defined]
        assert sent[0] == PAIR.leaf
        for place, parent in enumerate(sent[1:], 1):
            assert any(child.issuer == parent.subject for child in sent[:place])
        assert len(set(sent)) == len(sent)
