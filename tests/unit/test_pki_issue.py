"""What is issued: profiles, names, files, requests, renewal, revocation."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tlstunnel.errors import UsageError
from tlstunnel.tools.pki import authority, chain, index, issue, keys, names, profile, readers, renew, request, revoke
from tlstunnel.tools.pki.authority import Authority
from tlstunnel.tools.pki.keys import KeyKind
from tlstunnel.x509.key import key_type


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return authority.create(tmp_path / "ca", name="Root")


def texts(certificate: x509.Certificate) -> list[str]:
    return [names.long(name) for name in chain.alternative_names(certificate)]


def value(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> x509.ExtensionType:
    return certificate.extensions.get_extension_for_class(kind).value


def test_a_servers_certificate_is_right_for_its_use(ca: Authority, tmp_path: Path) -> None:
    made = issue.server(ca, ["localhost", "127.0.0.1", "::1", "*.Example.org", "localhost"], tmp_path / "out").parsed
    assert texts(made) == ["DNS:localhost", "IP:127.0.0.1", "IP:::1", "DNS:*.example.org"]
    assert made.subject.rfc4514_string() == "CN=localhost"
    assert list(value(made, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert value(made, x509.BasicConstraints) == x509.BasicConstraints(ca=False, path_length=None)
    assert value(made, x509.KeyUsage).digital_signature
    assert not value(made, x509.KeyUsage).key_encipherment
    own = value(ca.certificate, x509.SubjectKeyIdentifier).digest
    assert value(made, x509.AuthorityKeyIdentifier).key_identifier == own
    assert profile.days_left(made) in (89, 90)
    assert made.not_valid_before_utc < datetime.datetime.now(datetime.UTC)


def test_an_rsa_server_may_encipher_keys_and_an_rsa_client_may_not(ca: Authority, tmp_path: Path) -> None:
    server = issue.server(ca, ["localhost"], tmp_path, kind=KeyKind.RSA2048).parsed
    client = issue.client(ca, "billing", tmp_path, kind=KeyKind.RSA2048).parsed
    assert value(server, x509.KeyUsage).key_encipherment
    assert not value(client, x509.KeyUsage).key_encipherment


def test_a_clients_certificate_is_right_for_its_use(ca: Authority, tmp_path: Path) -> None:
    made = issue.client(ca, "billing", tmp_path, ou="payments", uris=["spiffe://example.org/billing"]).parsed
    assert made.subject.rfc4514_string() == "CN=billing,OU=payments"
    assert texts(made) == ["URI:spiffe://example.org/billing"]
    assert list(value(made, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_client_always_has_an_alternative_name(ca: Authority, tmp_path: Path) -> None:
    assert texts(issue.client(ca, "billing", tmp_path).parsed) == ["DNS:billing"]
    assert texts(issue.client(ca, "ann@example.org", tmp_path).parsed) == ["email:ann@example.org"]
    with pytest.raises(UsageError, match='"Ann Smith" is no host name; add --uri, --dns or --email'):
        issue.client(ca, "Ann Smith", tmp_path)
    made = issue.client(ca, "Ann Smith", tmp_path, emails=["ann@example.org"])
    assert made.certificate.name == "Ann_Smith.pem"


def test_a_name_too_long_for_a_subject_is_in_the_alternative_names_alone(ca: Authority, tmp_path: Path) -> None:
    host = "a" * 60 + ".example.org"
    made = issue.server(ca, [host], tmp_path).parsed
    assert not list(made.subject)
    assert made.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


@pytest.mark.parametrize(
    "host",
    ["", "exa mple", "-bad.org", "a..b", "*.localhost", "*", "a.*.org", "*.*.org", "300.1.1.1", "1.2.3", "ö.org",
     "a" * 64, "host:443", "http//x", "a/b", "x\ny"],
)  # fmt: skip
def test_what_is_no_host_name_is_refused(ca: Authority, tmp_path: Path, host: str) -> None:
    with pytest.raises(UsageError, match="--server") as caught:
        issue.server(ca, [host], tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("uri", ["billing", "spiffe://", "spiffe://A/b", "spiffe://a//b", "spiffe://a/../b", "x:/\n"])
def test_what_is_no_uri_is_refused(ca: Authority, tmp_path: Path, uri: str) -> None:
    with pytest.raises(UsageError, match="--uri"):
        issue.client(ca, "x", tmp_path, uris=[uri])


@pytest.mark.parametrize(
    ("name", "file"),
    [("*.example.org", "wildcard.example.org.pem"), ("::1", "__1.pem"), ("127.0.0.1", "127.0.0.1.pem")],
)
def test_files_are_named_after_the_first_name(ca: Authority, tmp_path: Path, name: str, file: str) -> None:
    assert issue.server(ca, [name], tmp_path / "out").certificate.name == file


@pytest.mark.parametrize("stem", ["../x", "/etc/x", ".hidden", "", "a/b"])
def test_a_file_name_stays_in_its_folder(ca: Authority, tmp_path: Path, stem: str) -> None:
    with pytest.raises(UsageError, match="is no file name"):
        issue.server(ca, ["localhost"], tmp_path, stem=stem)


def test_nothing_is_overwritten_without_force(ca: Authority, tmp_path: Path) -> None:
    first = issue.server(ca, ["localhost"], tmp_path)
    before = first.certificate.read_bytes()
    with pytest.raises(UsageError, match="exists already; choose another name, or --force"):
        issue.server(ca, ["localhost"], tmp_path)
    first.certificate.unlink()
    with pytest.raises(UsageError, match=r"localhost\.key: exists already"):
        issue.server(ca, ["localhost"], tmp_path)
    assert len(index.load(ca.folder / "index.txt")) == 1, "refused before anything was signed"
    assert issue.server(ca, ["localhost"], tmp_path, force=True).certificate.read_bytes() != before


def test_no_force_replaces_the_cas_own_key(ca: Authority) -> None:
    before = (ca.folder / "ca.key").read_bytes()
    with pytest.raises(UsageError, match="belongs to the CA itself"):
        issue.client(ca, "ca", ca.folder, force=True)
    assert (ca.folder / "ca.key").read_bytes() == before


@pytest.mark.parametrize("days", [0, -1, 3651, 10**9, 10**30])
def test_a_senseless_lifetime_is_refused(ca: Authority, tmp_path: Path, days: int) -> None:
    with pytest.raises(UsageError, match="--days"):
        issue.server(ca, ["localhost"], tmp_path, days=days)


def test_an_expired_ca_issues_nothing(tmp_path: Path) -> None:
    ca = authority.create(tmp_path / "ca")
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    dates = profile.Validity(yesterday - datetime.timedelta(days=9), yesterday)
    old = profile.build_ca(
        ca.certificate.subject, ca.key.public_key(), dates, issuer=None, issuer_key=ca.key, path_length=None,
        subtrees=profile.Subtrees(),
    )  # fmt: skip
    (ca.folder / "ca.pem").write_bytes(authority.to_pem(old))
    with pytest.raises(UsageError, match="the CA expired on"):
        issue.server(ca.folder, ["localhost"], tmp_path)
    made = renew.self_signed(ca.folder / "ca.pem", ca.key)
    assert profile.days_left(made.parsed) == 7
    issue.server(ca.folder, ["localhost"], tmp_path, days=5)


def test_a_request_is_signed_for_its_names_alone(ca: Authority, tmp_path: Path) -> None:
    asked = request.make(profile.client("billing", units="payments", uris=["spiffe://e.org/b"]), tmp_path, first="b")
    made = request.sign(ca, asked.request, tmp_path / "out")
    assert made.key is None
    assert made.certificate.name == "billing.pem"
    assert made.parsed.subject.rfc4514_string() == "CN=billing,OU=payments"
    assert texts(made.parsed) == ["URI:spiffe://e.org/b"]
    assert keys.public_bytes(made.parsed.public_key()) == keys.public_bytes(keys.load(asked.key))


def foreign(
    path: Path,
    *extensions: x509.ExtensionType,
    key: keys.PrivateKey | None = None,
    common_name: str = "evil",
) -> Path:
    """A request by someone who does not use our tool."""
    key = key or keys.generate()
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Bank"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    return path


SERVER_NAMES = x509.SubjectAlternativeName([x509.DNSName("www.example.org")])


def test_a_request_cannot_make_a_ca(ca: Authority, tmp_path: Path) -> None:
    path = foreign(tmp_path / "x.csr", SERVER_NAMES, x509.BasicConstraints(ca=True, path_length=None))
    with pytest.raises(UsageError, match="asks to be a CA"):
        request.sign(ca, path, tmp_path, use=profile.Use.SERVER)


def test_a_requests_subject_and_powers_are_not_taken_over(ca: Authority, tmp_path: Path) -> None:
    powers = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.SERVER_AUTH])
    made = request.sign(ca, foreign(tmp_path / "x.csr", SERVER_NAMES, powers), tmp_path).parsed
    assert made.subject.rfc4514_string() == "CN=www.example.org"
    assert list(value(made, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_a_request_without_use_or_names_needs_the_operators_word(ca: Authority, tmp_path: Path) -> None:
    path = foreign(tmp_path / "x.csr", SERVER_NAMES)
    with pytest.raises(UsageError, match="add --use server or --use client"):
        request.sign(ca, path, tmp_path)
    assert texts(request.sign(ca, path, tmp_path, use=profile.Use.SERVER).parsed) == ["DNS:www.example.org"]
    bare = foreign(tmp_path / "bare.csr")
    with pytest.raises(UsageError, match="a common name alone counts nowhere; add --names"):
        request.sign(ca, bare, tmp_path, use=profile.Use.SERVER)
    made = request.sign(ca, bare, tmp_path, use=profile.Use.SERVER, replacement=["a.example.org"])
    assert texts(made.parsed) == ["DNS:a.example.org"]


def test_a_request_for_a_kind_of_name_we_do_not_know_is_refused(ca: Authority, tmp_path: Path) -> None:
    odd = x509.SubjectAlternativeName([x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x01a")])
    with pytest.raises(UsageError, match="which we do not sign; replace it with --names"):
        request.sign(ca, foreign(tmp_path / "x.csr", odd), tmp_path, use=profile.Use.CLIENT)


def test_a_request_with_a_weak_key_is_refused(ca: Authority, tmp_path: Path) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
    with pytest.raises(UsageError, match=r"RSA 1024 is refused by OpenSSL \(security level 2\)"):
        request.sign(ca, foreign(tmp_path / "x.csr", SERVER_NAMES, key=weak), tmp_path, use=profile.Use.SERVER)


def test_a_request_signed_by_another_key_is_refused(ca: Authority, tmp_path: Path) -> None:
    path = foreign(tmp_path / "x.csr", SERVER_NAMES)
    parsed = readers.request(path.read_bytes(), where="x")
    der = bytearray(parsed.public_bytes(Encoding.DER))
    der[der.index(b"www.example.org")] ^= 1
    path.write_bytes(bytes(der))
    with pytest.raises(UsageError, match="its signature is not by its own key"):
        request.sign(ca, path, tmp_path, use=profile.Use.SERVER)


def test_renewal_keeps_names_key_and_files(ca: Authority, tmp_path: Path) -> None:
    old = issue.client(ca, "billing", tmp_path, ou="payments", uris=["spiffe://e.org/b"], days=30, crl_url="http://c/l")
    key = (old.key or Path()).read_bytes()
    new = renew.by_authority(ca, old.certificate)
    assert new.certificate == old.certificate
    assert (old.key or Path()).read_bytes() == key
    assert new.parsed.serial_number != old.parsed.serial_number
    assert new.parsed.not_valid_after_utc >= old.parsed.not_valid_after_utc
    assert profile.days_left(new.parsed) in (29, 30)
    assert new.parsed.subject == old.parsed.subject
    for extension in old.parsed.extensions:
        assert value(new.parsed, type(extension.value)) == extension.value
    assert len(index.load(ca.folder / "index.txt")) == 2


def test_renewal_with_a_new_key_needs_force_and_makes_a_pair(ca: Authority, tmp_path: Path) -> None:
    old = issue.server(ca, ["localhost"], tmp_path, kind=KeyKind.ED25519)
    with pytest.raises(UsageError, match=r"localhost\.key: exists already"):
        renew.by_authority(ca, old.certificate, new_key=renew.NewKey())
    new = renew.by_authority(ca, old.certificate, new_key=renew.NewKey(), force=True)
    key = keys.load(new.key or Path())
    assert keys.public_bytes(new.parsed.public_key()) == keys.public_bytes(key)
    assert key_type(key) == "Ed25519"
    assert keys.public_bytes(old.parsed.public_key()) != keys.public_bytes(key)


def test_renewal_is_refused_for_strangers_and_the_revoked(ca: Authority, tmp_path: Path) -> None:
    other = authority.create(tmp_path / "other", name="Root")
    foreign_leaf = issue.server(other, ["localhost"], tmp_path / "foreign")
    with pytest.raises(UsageError, match="not issued by the CA in"):
        renew.by_authority(ca, foreign_leaf.certificate)
    own = issue.server(ca, ["localhost"], tmp_path / "own")
    revoke.revoke(ca, own.parsed.serial_number)
    with pytest.raises(UsageError, match=r"revoked on .*; issue a new one instead"):
        renew.by_authority(ca, own.certificate)


def test_a_renewed_root_still_vouches_for_what_it_issued(ca: Authority, tmp_path: Path) -> None:
    leaf = issue.server(ca, ["localhost"], tmp_path).parsed
    renewed = renew.self_signed(ca.folder / "ca.pem", ca.key).parsed
    assert renewed != ca.certificate
    assert chain.verify(leaf, (), [renewed]).verifies
    issue.server(ca.folder, ["localhost"], tmp_path / "again")


def test_an_intermediate_is_renewed_with_its_chain(ca: Authority, tmp_path: Path) -> None:
    authority.create(tmp_path / "sub", name="Sub", parent=ca)
    renew.by_authority(ca, tmp_path / "sub" / "ca.pem")
    made = issue.server(tmp_path / "sub", ["localhost"], tmp_path)
    sent = readers.load_certificates(made.certificate)
    assert chain.verify(sent[0], sent[1:], [ca.certificate]).verifies


def crl(ca: Authority) -> x509.CertificateRevocationList:
    return readers.revocation_lists((ca.folder / "crl.pem").read_bytes(), where="crl")[0]


def test_a_revoked_certificate_is_on_the_list_with_its_reason(ca: Authority, tmp_path: Path) -> None:
    kept = issue.server(ca, ["a.example.org"], tmp_path).parsed
    lost = issue.server(ca, ["b.example.org"], tmp_path).parsed
    revoke.revoke(ca, lost.serial_number, reason="keyCompromise")
    published = crl(ca)
    assert published.is_signature_valid(ca.certificate.public_key())
    entry = published.get_revoked_certificate_by_serial_number(lost.serial_number)
    assert entry is not None
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
    assert published.get_revoked_certificate_by_serial_number(kept.serial_number) is None
    with pytest.raises(UsageError, match="nothing to do"):
        revoke.revoke(ca, lost.serial_number)


def test_list_numbers_grow_also_when_the_last_list_is_lost(ca: Authority) -> None:
    numbers = []
    for lose in (False, False, True, False):
        if lose:
            (ca.folder / "crl.pem").unlink()
        revoke.publish(ca)
        numbers.append(crl(ca).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
    assert numbers[0] < numbers[1]
    assert numbers[2] < numbers[3]
    assert numbers[0] <= numbers[2]


def test_a_damaged_list_is_replaced(ca: Authority) -> None:
    (ca.folder / "crl.pem").write_bytes(b"garbage")
    revoke.publish(ca)
    assert len(crl(ca)) == 0


def test_serials_are_given_as_files_or_digits(ca: Authority, tmp_path: Path) -> None:
    made = issue.server(ca, ["localhost"], tmp_path)
    text = index.serial_text(made.parsed.serial_number)
    colons = ":".join(text[i : i + 2] for i in range(0, len(text), 2))
    for given in (str(made.certificate), text, text.lower(), colons):
        assert revoke.serial_of(given, ca) == made.parsed.serial_number
    for given in ("not hex", "zz", "F" * 41, ""):
        with pytest.raises(UsageError, match="neither a file nor a serial number"):
            revoke.serial_of(given, ca)


def test_what_the_ca_did_not_issue_cannot_be_revoked(ca: Authority) -> None:
    with pytest.raises(UsageError, match="issued no certificate with serial 0A"):
        revoke.revoke(ca, 10)
    with pytest.raises(UsageError, match='"because" is no reason; write one of'):
        revoke.revoke(ca, 10, reason="because")
