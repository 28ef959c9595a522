"""Chains: found, judged and explained; bundles: opened, ordered and written."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.material_files import opening
from tlstunnel.errors import UsageError, printable
from tlstunnel.tools.pki import authority, bundle, chain, constraints, describe, issue, keys, names, profile, readers
from tlstunnel.tools.pki.authority import Authority
from tlstunnel.tools.pki.keys import KeyKind
from tlstunnel.x509.passphrase import Passphrase

DAY = datetime.timedelta(days=1)


@pytest.fixture
def root(tmp_path: Path) -> Authority:
    return authority.create(tmp_path / "root", name="Root", path_length=1)


@pytest.fixture
def sub(tmp_path: Path, root: Authority) -> Authority:
    return authority.create(tmp_path / "sub", name="Sub", parent=root)


def test_a_chain_is_found_whatever_its_order(root: Authority, sub: Authority, tmp_path: Path) -> None:
    leaf = issue.server(sub, ["localhost"], tmp_path).parsed
    stranger = authority.create(tmp_path / "other", name="Other").certificate
    verdict = chain.verify(leaf, [stranger, root.certificate, sub.certificate], [root.certificate], host="LOCALHOST")
    assert verdict.verifies
    assert verdict.path == (leaf, sub.certificate, root.certificate)
    assert chain.strict_opinion(verdict, profile.Use.SERVER, "localhost") is None


def test_a_trusted_intermediate_is_not_enough_as_it_is_not_for_a_tunnel(sub: Authority, tmp_path: Path) -> None:
    leaf = issue.server(sub, ["localhost"], tmp_path).parsed
    verdict = chain.verify(leaf, (), [sub.certificate])
    assert not verdict.verifies
    assert verdict.problems == (
        'ends at "CN=Sub", which is trusted here but no root; add its issuer "CN=Root" to --ca',
    )


def test_a_certificate_for_clients_is_none_for_a_server(root: Authority, tmp_path: Path) -> None:
    leaf = issue.client(root, "billing", tmp_path).parsed
    assert chain.verify(leaf, (), [root.certificate], use=profile.Use.CLIENT).verifies
    verdict = chain.verify(leaf, (), [root.certificate], use=profile.Use.SERVER)
    assert verdict.trusted
    assert verdict.problems == (
        "the certificate may not be used by servers; have it issued with that extended key usage",
    )


def test_a_missing_intermediate_is_named(root: Authority, sub: Authority, tmp_path: Path) -> None:
    leaf = issue.server(sub, ["localhost"], tmp_path).parsed
    verdict = chain.verify(leaf, (), [root.certificate])
    assert not verdict.verifies
    assert verdict.problems == ('the issuer "CN=Sub" is neither sent along nor trusted here; give it with --ca',)


def test_a_namesake_of_the_issuer_does_not_verify(root: Authority, tmp_path: Path) -> None:
    leaf = issue.server(root, ["localhost"], tmp_path).parsed
    namesake = authority.create(tmp_path / "namesake", name="Root").certificate
    verdict = chain.verify(leaf, (), [namesake])
    assert not verdict.verifies
    assert "it is another CA of that name" in verdict.problems[0]


def test_an_untrusted_root_is_named(root: Authority, tmp_path: Path) -> None:
    leaf = issue.server(root, ["localhost"], tmp_path).parsed
    verdict = chain.verify(leaf, [root.certificate], ())
    assert not verdict.verifies
    assert verdict.problems == ('ends at "CN=Root", which is self-signed and not trusted here; give it with --ca',)


def test_expired_and_future_certificates_are_named(root: Authority, tmp_path: Path) -> None:
    leaf = issue.server(root, ["localhost"], tmp_path, days=10).parsed
    anchors = [root.certificate]
    late = chain.verify(leaf, (), anchors, now=leaf.not_valid_after_utc + DAY)
    assert [p for p in late.problems if p.startswith("the certificate expired on")]
    early = chain.verify(leaf, (), anchors, now=leaf.not_valid_before_utc - DAY)
    assert [p for p in early.problems if "the certificate is not valid before" in p]
    assert [p for p in early.problems if 'the CA "CN=Root" is not valid before' in p]
    much_later = chain.verify(leaf, (), anchors, now=root.certificate.not_valid_after_utc + DAY)
    assert [p for p in much_later.problems if 'the CA "CN=Root" expired on' in p]


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("a.example.org", True),
        ("a.b.example.org", False),
        ("example.org", False),
        ("127.0.0.1", True),
        ("[::1]", True),
        ("127.0.0.2", False),
        ("other", False),
        ("*.example.org", True),
    ],
)
def test_names_match_as_in_rfc_9525(root: Authority, tmp_path: Path, host: str, good: bool) -> None:
    leaf = issue.server(root, ["localhost", "*.example.org", "127.0.0.1", "::1"], tmp_path).parsed
    verdict = chain.verify(leaf, (), [root.certificate], host=host)
    assert verdict.verifies is good
    if not good:
        assert verdict.problems[0].startswith(f'not for "{host.strip("[]")}": its names are localhost')


def unchecked(
    change: Callable[[x509.CertificateBuilder], x509.CertificateBuilder], issuer: Authority
) -> x509.Certificate:
    """A leaf that our own checks would not let us issue."""
    builder = profile.begin(x509.Name([]), keys.generate().public_key(), profile.validity(5), issuer.certificate)
    return change(builder).sign(issuer.key, hashes.SHA256())


def test_names_outside_the_constraints_are_named(tmp_path: Path) -> None:
    ca = authority.create(tmp_path / "ca", name="Narrow", subtrees=constraints.parse(["example.org"], []))
    wrong = x509.SubjectAlternativeName([x509.DNSName("example.com")])
    leaf = unchecked(lambda builder: builder.add_extension(wrong, critical=True), ca)
    verdict = chain.verify(leaf, (), [ca.certificate])
    assert verdict.problems == ('the CA "CN=Narrow": the CA may not vouch for "example.com"',)


def test_an_unknown_critical_extension_is_named(root: Authority) -> None:
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    leaf = unchecked(lambda builder: builder.add_extension(odd, critical=True), root)
    assert "critical extension we do not know (1.2.3.4)" in chain.verify(leaf, (), [root.certificate]).problems[0]


def test_a_root_with_the_exponent_3_verifies_as_it_does_in_a_handshake(tmp_path: Path) -> None:
    """Some in the systems' stores have it."""
    key = rsa.generate_private_key(public_exponent=3, key_size=2048)
    root = profile.build_ca(
        names.subject("Old", where=""), key.public_key(), profile.validity(5), issuer=None, issuer_key=key,
        path_length=None, subtrees=profile.Subtrees(),
    )  # fmt: skip
    leaf = unchecked(lambda builder: builder, Authority(tmp_path, root, (), root, key))
    assert chain.verify(leaf, (), [root]).verifies


def test_a_leaf_is_no_ca(root: Authority, tmp_path: Path) -> None:
    made = issue.server(root, ["evil.example.org"], tmp_path)
    posing = Authority(tmp_path, made.parsed, (), root.certificate, keys.load(made.key or Path()))
    victim = x509.SubjectAlternativeName([x509.DNSName("victim.example.org")])
    leaf = unchecked(lambda builder: builder.add_extension(victim, critical=True), posing)
    problems = chain.verify(leaf, [made.parsed], [root.certificate]).problems
    assert 'the CA "CN=evil.example.org" is not a CA' in problems
    assert 'the CA "CN=evil.example.org" may not sign certificates' in problems


def test_too_many_cas_in_a_row_are_named(tmp_path: Path) -> None:
    root = authority.create(tmp_path / "root", name="Root", path_length=0)
    key = keys.generate()
    sub = profile.build_ca(
        names.subject("Sub", where=""), key.public_key(), profile.validity(5), issuer=root.certificate,
        issuer_key=root.key, path_length=None, subtrees=profile.Subtrees(),
    )  # fmt: skip
    posing = Authority(tmp_path, sub, (), root.certificate, key)
    leaf = unchecked(lambda builder: builder, posing)
    assert 'the CA "CN=Root" allows 0 CAs below it and has 1' in chain.verify(leaf, [sub], [root.certificate]).problems


def test_a_maze_of_cross_signed_cas_ends_soon(tmp_path: Path) -> None:
    key = keys.generate()
    subjects = [names.subject(f"CA {n}", where="") for n in range(12)]
    key_identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    maze = []
    for subject in subjects:
        for issuer in subjects:
            builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
            builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
            builder = builder.not_valid_before(datetime.datetime(2026, 1, 1)).not_valid_after(
                datetime.datetime(2090, 1, 1)
            )
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            maze.append(builder.add_extension(key_identifier, critical=False).sign(key, hashes.SHA256()))
    assert not chain.verify(maze[0], maze, ()).verifies


def test_a_chain_of_ed25519_verifies(tmp_path: Path) -> None:
    ca = authority.create(tmp_path / "ca", kind=KeyKind.ED25519)
    leaf = issue.server(ca, ["localhost"], tmp_path, kind=KeyKind.ED25519).parsed
    verdict = chain.verify(leaf, (), [ca.certificate])
    assert verdict.verifies
    assert chain.strict_opinion(verdict, profile.Use.SERVER) is None


def test_the_strict_verifier_objects_in_its_own_words(root: Authority) -> None:
    leaf = unchecked(lambda builder: builder, root)
    verdict = chain.verify(leaf, (), [root.certificate])
    assert verdict.verifies
    assert "2.5.29.17: Certificate is missing required extension" in (
        chain.strict_opinion(verdict, profile.Use.CLIENT) or ""
    )


def test_a_certificate_is_described_in_full(root: Authority, tmp_path: Path) -> None:
    made = issue.server(root, ["localhost", "127.0.0.1"], tmp_path, crl_url="http://crl.example.org/ca.crl").parsed
    facts = describe.certificate(made)
    assert facts["names"] == ["DNS:localhost", "IP:127.0.0.1"]
    assert facts["key"] == "ECDSA P-256"
    assert facts["signature"] == "ECDSA with SHA-256"
    assert facts["uses"] == ["server"]
    assert facts["crl_urls"] == ["http://crl.example.org/ca.crl"]
    assert facts["spki_pin"].startswith("sha256:")
    assert facts["remarks"] == []
    expired = describe.certificate(made, now=made.not_valid_after_utc + DAY)
    assert expired["remarks"] == ["expired; renew it"]
    assert expired["days_left"] < 0
    soon = describe.certificate(made, now=made.not_valid_after_utc - 3 * DAY)
    assert soon["remarks"] == ["expires in 3 days; renew it"]


def test_a_system_store_with_a_damaged_certificate_is_still_of_use(
    root: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store.pem"
    broken = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    store.write_bytes(broken + authority.to_pem(root.certificate) + broken)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    assert chain.load_trust(None) == (str(store), (root.certificate,))


def test_a_strangers_names_cannot_move_the_cursor() -> None:
    assert printable("a\x1b[2Jb\n\u202e") == "a\\x1b[2Jb\\n\\u202e"


def pair(root: Authority, tmp_path: Path, **more: object) -> issue.Issued:
    return issue.server(root, ["localhost"], tmp_path, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("legacy", [False, True])
def test_a_bundle_comes_back_as_it_went(sub: Authority, tmp_path: Path, legacy: bool) -> None:
    made = pair(sub, tmp_path)
    opened = bundle.from_pem(made.certificate, made.key)
    data = bundle.to_pkcs12(opened, Passphrase(b"p"), name="web", legacy=legacy)
    again = bundle.parse_pkcs12(data, where="x", passphrases=opening("p"))
    assert again.certificate == made.parsed
    assert again.chain == (sub.certificate,)
    assert again.name == "web"
    assert again.key is not None
    assert keys.public_bytes(again.key) == keys.public_bytes(made.parsed.public_key())
    with pytest.raises(UsageError, match="does not open it"):
        bundle.parse_pkcs12(data, where="x", passphrases=opening("q"))
    with pytest.raises(UsageError, match="is encrypted; give its passphrase"):
        bundle.parse_pkcs12(data, where="x")


def test_a_bundle_without_encryption_opens_without_a_passphrase(root: Authority, tmp_path: Path) -> None:
    made = pair(root, tmp_path)
    data = bundle.to_pkcs12(bundle.from_pem(made.certificate, made.key), None)
    assert bundle.parse_pkcs12(data, where="x").certificate == made.parsed


def test_certificate_and_key_are_found_in_one_file_in_any_order(sub: Authority, tmp_path: Path) -> None:
    made = pair(sub, tmp_path)
    mixed = tmp_path / "mixed.pem"
    blocks = readers.load_certificates(made.certificate)
    mixed.write_bytes((made.key or Path()).read_bytes() + authority.to_pem(*reversed(blocks)))
    opened = bundle.from_pem(mixed)
    assert opened.certificate == made.parsed
    assert opened.chain == (sub.certificate,)
    again = tmp_path / "again.pem"
    again.write_bytes(bundle.to_pem(opened, Passphrase(b"p")))
    assert bundle.from_pem(again, passphrases=opening("p")).certificate == made.parsed


def test_a_key_of_another_certificate_is_noticed(root: Authority, tmp_path: Path) -> None:
    one, other = pair(root, tmp_path / "a"), pair(root, tmp_path / "b")
    with pytest.raises(UsageError, match="the private key does not belong to the certificate CN=localhost"):
        bundle.from_pem(one.certificate, other.key)
    with pytest.raises(
        UsageError, match=r"holds no private key; name the key's file with key \(--key\), or append the key"
    ):
        bundle.from_pem(one.certificate)


def test_a_bundle_that_cannot_hold_the_key_says_so(root: Authority, tmp_path: Path) -> None:
    made = pair(root, tmp_path, kind=KeyKind.MLDSA44)
    with pytest.raises(UsageError, match="knows no ML-DSA-44 keys; write PEM instead"):
        bundle.to_pkcs12(bundle.from_pem(made.certificate, made.key), Passphrase(b"p"))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (
            b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
            "is PEM, not PKCS#12",
        ),
        (b"\x30\x03\x02\x01\x05", "not PKCS#12"),
        (b"hello", "is not PKCS#12"),
    ],
)
def test_what_is_no_bundle_is_refused_by_name(data: bytes, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        bundle.parse_pkcs12(data, where="x")


def test_a_bundle_without_certificate_is_refused() -> None:
    only_key = serialization.pkcs12.serialize_key_and_certificates(
        b"k",
        keys.generate(),
        None,
        None,
        serialization.NoEncryption(),  # type: ignore[arg-type]
    )
    with pytest.raises(UsageError, match="holds a private key but no certificate"):
        bundle.parse_pkcs12(only_key, where="x")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (b"hello world", "is not PEM"),
        (b"-----BEGIN CERTIFICATE-----\nMIIB", "the file is cut short"),
        (b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "line 1: CERTIFICATE is damaged"),
        (b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n", "holds a private key but no certificate"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n", "a certificate request"),
        (b"-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n", "holds X509 CRL but no certificate"),
        (b"\x30\x82\x01\x00", "is cut short"),
    ],
)
def test_what_is_no_certificate_is_refused_by_name(data: bytes, what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        readers.certificates(data, where="some.pem")
    assert str(caught.value).startswith("some.pem: ")
