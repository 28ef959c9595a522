"""Whatever a file of certificates or keys holds: one line that says so, or objects that can be shown."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.material_files import opening
from tlstunnel.errors import TunnelError
from tlstunnel.tools.pki import (
    authority,
    bundle,
    chain,
    constraints,
    describe,
    encryption,
    index,
    keys,
    profile,
    readers,
)
from tlstunnel.x509.cost import check_cost
from tlstunnel.x509.passphrase import Passphrase
from tlstunnel.x509.pem import SourceFile, write_pem

PASSPHRASE = Passphrase(b"open sesame")
EXAMPLES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@functools.cache
def corpus() -> dict[str, bytes]:
    """One honest file of each kind."""
    key = keys.generate()
    subtrees = constraints.parse(["example.org", "10.0.0.0/8"], ["bad.example.org"])
    name = profile.client("ca").subject
    root = profile.build_ca(
        name, key.public_key(), profile.validity(10), issuer=None, issuer_key=key, path_length=1, subtrees=subtrees
    )
    wanted = profile.client(
        "jane", units="a", uris=["spiffe://e/x"], dns=["b.example.org"], emails=["j@e.org"], crl_url="http://e/c"
    )
    leaf = profile.build_leaf(wanted, key.public_key(), profile.validity(5), issuer=root, issuer_key=key)
    whole = bundle.Bundle(leaf, (root,), key)
    entry = index.entry_for(leaf)
    asked = x509.CertificateSigningRequestBuilder().subject_name(leaf.subject)
    asked = asked.add_extension(x509.SubjectAlternativeName(wanted.names), critical=False)
    now = datetime.datetime.now(datetime.UTC)
    revoked = x509.RevokedCertificateBuilder().serial_number(5).revocation_date(now)
    revoked = revoked.add_extension(x509.CRLReason(x509.ReasonFlags.key_compromise), critical=False)
    crl = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(now).next_update(now)
    crl = crl.add_revoked_certificate(revoked.build()).add_extension(x509.CRLNumber(7), critical=False)
    return {
        "request": asked.sign(key, hashes.SHA256()).public_bytes(Encoding.DER),
        "crl": crl.sign(key, hashes.SHA256()).public_bytes(Encoding.DER),
        "root": root.public_bytes(Encoding.DER),
        "leaf": leaf.public_bytes(Encoding.DER),
        "pem": authority.to_pem(leaf, root) + keys.to_pem(key),
        "key": key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        "key pem": keys.to_pem(key),
        "encrypted key": write_pem(
            "ENCRYPTED PRIVATE KEY",
            encryption.encrypt_pkcs8(
                key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), PASSPHRASE, rounds=10
            ),
        ),
        "p12": bundle.to_pkcs12(whole, None),
        "index": (entry.line + index.revoked(entry, entry.not_after, "keyCompromise").line).encode(),
    }


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An honest file with bytes changed, cut out or put in."""
    data = bytearray(corpus()[draw(st.sampled_from(sorted(corpus())))])
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        place = draw(st.integers(0, len(data) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                data[place] = draw(st.integers(0, 255))
            case 1:
                del data[place : place + draw(st.integers(1, 40))]
            case 2:
                data[place:place] = draw(st.binary(min_size=1, max_size=12))
            case _:
                del data[place:]
    return bytes(data)


def look(data: bytes) -> None:
    """Do to these bytes all that `cert show` does with each kind of file."""
    where = "file"
    kind = readers.guess(data)
    if kind == "bundle":
        opened = bundle.parse_pkcs12(data, where=where)
        found = (opened.certificate, *opened.chain)
    elif kind == "request":
        describe.request(readers.request(data, where=where))
        return
    elif kind == "crl":
        for found_list in readers.revocation_lists(data, where=where):
            describe.revocation_list(found_list)
        return
    elif kind == "key":
        key = keys.parse(data, where=where, passphrases=opening("open sesame"))
        describe.private_key(key, encrypted=keys.is_encrypted(data))
        return
    else:
        found = readers.certificates(data, where=where)
    for certificate in found:
        describe.certificate(certificate)
    verdict = chain.verify(found[0], found[1:], found[-1:], host="b.example.org")
    chain.strict_opinion(verdict, describe.use_of(found[0]))


def complaint(read: Callable[[], object]) -> str:
    """What is said about bad input; empty if nothing. Anything but a TunnelError is a surprise, and fails the test."""
    try:
        read()
    except TunnelError as exc:
        return str(exc)
    return ""


def is_one_line(text: str) -> bool:
    return "\n" not in text and (not text or text.isprintable()) and len(text) < 500


@given(damaged())
@EXAMPLES
def test_a_damaged_file_is_shown_or_refused_in_one_line(data: bytes) -> None:
    assert is_one_line(complaint(lambda: look(data)))


@given(st.binary(max_size=300))
@EXAMPLES
def test_garbage_is_refused_in_one_line(data: bytes) -> None:
    said = complaint(lambda: look(data))
    assert said
    assert is_one_line(said)


@given(damaged())
@EXAMPLES
def test_a_damaged_file_of_any_kind_is_no_surprise_to_any_reader(data: bytes) -> None:
    for read in (
        lambda: readers.certificates(data, where="f"),
        lambda: readers.request(data, where="f"),
        lambda: readers.revocation_lists(data, where="f"),
        lambda: keys.parse(data, where="f"),
        lambda: keys.parse(data, where="f", passphrases=opening("open sesame")),
        lambda: bundle.parse_pkcs12(data, where="f"),
        lambda: bundle.parse_pkcs12(data, where="f", passphrases=opening("open sesame")),
        lambda: index.parse(data, where="f"),
        lambda: check_cost(SourceFile(Path("f"), data, 0), data),
    ):
        assert is_one_line(complaint(read))


@given(st.text(max_size=80))
@EXAMPLES
def test_any_text_is_a_name_or_refused_in_one_line(text: str) -> None:
    for parse in (
        lambda: profile.server([text]),
        lambda: profile.client(text),
        lambda: profile.client("jane", uris=[text]),
        lambda: profile.client("jane", emails=[text]),
        lambda: constraints.parse([text], [text]),
    ):
        assert is_one_line(complaint(parse))


@given(st.text(max_size=60).filter(bool))
@EXAMPLES
def test_files_named_after_a_stranger_stay_in_their_folder(text: str) -> None:
    from tlstunnel.tools.pki import issue

    certificate, key = issue.paths("out", stem=None, first=text)
    assert certificate.parent == key.parent == Path("out")
    assert not certificate.name.startswith(".")
