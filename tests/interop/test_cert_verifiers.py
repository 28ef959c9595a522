"""What we issue, judged by OpenSSL (strictly), GnuTLS, NSS and cryptography; what others write, read by us."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import verification

from tests.support.interop import require
from tests.support.material_files import opening
from tlstunnel.errors import UsageError
from tlstunnel.tools.pki import authority, bundle, chain, constraints, issue, keys, profile, readers, request, revoke
from tlstunnel.tools.pki.keys import KeyKind
from tlstunnel.x509.passphrase import Passphrase

pytestmark = pytest.mark.interop

KINDS = [KeyKind.P256, KeyKind.P384, KeyKind.ED25519, KeyKind.RSA2048]
SECRET = Passphrase(b"open sesame")


def run(*command: str | Path, good: bool = True) -> str:
    """What a program says; it must succeed, or must fail."""
    texts = [require(str(command[0])), *(str(part) for part in command[1:])]
    done = subprocess.run(texts, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    said = done.stdout + done.stderr
    assert (done.returncode == 0) is good, said
    return said


class Issued:
    """A root with constraints, an intermediate, a server and a client, all with keys of one kind."""

    def __init__(self, folder: Path, kind: KeyKind) -> None:
        subtrees = constraints.parse(["example.org", "localhost", "127.0.0.0/8"], ["bad.sub.example.org"])
        root = authority.create(folder / "root", name="Root", kind=kind, subtrees=subtrees, path_length=1)
        self.sub = authority.create(folder / "sub", name="Sub", kind=kind, parent=root)
        self.root = folder / "root" / "ca.pem"
        hosts = ["localhost", "127.0.0.1", "*.example.org"]
        self.server = issue.server(self.sub, hosts, folder, kind=kind)
        self.client = issue.client(
            self.sub, "billing", folder, ou="payments", uris=["spiffe://example.org/billing"], kind=kind
        )
        (folder / "sub.pem").write_bytes(authority.to_pem(self.sub.certificate))
        self.sub_pem = folder / "sub.pem"


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> object:
    return functools.cache(lambda kind: Issued(tmp_path_factory.mktemp(kind), kind))


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_verifies_strictly(issued: functools._lru_cache_wrapper[Issued], kind: KeyKind) -> None:
    made = issued(kind)
    for leaf, purpose, names in (
        (made.server, "sslserver", ["-verify_hostname", "a.example.org"]),
        (made.server, "sslserver", ["-verify_ip", "127.0.0.1"]),
        (made.client, "sslclient", []),
    ):
        run("openssl", "verify", "-x509_strict", "-purpose", purpose, *names, "-CAfile", made.root,
            "-untrusted", leaf.certificate, leaf.certificate)  # fmt: skip


def test_openssl_refuses_the_wrong_use_and_the_wrong_name(issued: functools._lru_cache_wrapper[Issued]) -> None:
    made = issued(KeyKind.P256)
    for leaf, purpose, names in (
        (made.server, "sslclient", []),
        (made.client, "sslserver", []),
        (made.server, "sslserver", ["-verify_hostname", "example.com"]),
    ):
        run("openssl", "verify", "-purpose", purpose, *names, "-CAfile", made.root,
            "-untrusted", leaf.certificate, leaf.certificate, good=False)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_gnutls_verifies(issued: functools._lru_cache_wrapper[Issued], kind: KeyKind) -> None:
    made = issued(kind)
    said = run("certtool", "--verify", "--verify-profile", "medium", "--load-ca-certificate", made.root,
               "--verify-hostname", "localhost", "--infile", made.server.certificate)  # fmt: skip
    assert "The certificate is trusted" in said


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not KeyKind.ED25519])  # NSS knows no Ed25519
def test_nss_verifies(issued: functools._lru_cache_wrapper[Issued], kind: KeyKind, tmp_path: Path) -> None:
    made = issued(kind)
    store = f"sql:{tmp_path}"
    run("certutil", "-N", "-d", store, "--empty-password")
    for name, trust, path in (
        ("root", "CT,C,C", made.root),
        ("sub", ",,", made.sub_pem),
        ("server", ",,", made.server.certificate),
        ("client", ",,", made.client.certificate),
    ):
        run("certutil", "-A", "-d", store, "-n", name, "-t", trust, "-i", path)
    for name, usage in (("server", "V"), ("client", "C"), ("sub", "L")):
        assert "certificate is valid" in run("certutil", "-V", "-e", "-d", store, "-n", name, "-u", usage)
    run("certutil", "-V", "-e", "-d", store, "-n", "client", "-u", "V", good=False)


@pytest.mark.parametrize("kind", [KeyKind.P256, KeyKind.P384, KeyKind.RSA2048, KeyKind.MLDSA65])
def test_cryptography_verifies_by_the_rules_of_the_web(
    issued: functools._lru_cache_wrapper[Issued], kind: KeyKind
) -> None:
    made = issued(kind)
    store = verification.Store(list(readers.load_certificates(made.root)))
    builder = verification.PolicyBuilder().store(store)
    leaf, *above = readers.load_certificates(made.server.certificate)
    builder.build_server_verifier(x509.DNSName("a.example.org")).verify(leaf, above)
    leaf, *above = readers.load_certificates(made.client.certificate)
    builder.build_client_verifier().verify(leaf, above)


@pytest.mark.parametrize(
    ("permit", "inside", "outside"),
    [
        ("example.org", "a.example.org", "a.example.com"),
        ("example.org", "a.example.org", "10.0.0.1"),
        ("10.0.0.0/8", "10.1.2.3", "11.1.2.3"),
        ("10.0.0.0/8", "10.1.2.3", "fd00::1"),
        ("10.0.0.0/8", "10.1.2.3", "a.example.org"),
    ],
)
def test_verifiers_agree_with_us_on_name_constraints(tmp_path: Path, permit: str, inside: str, outside: str) -> None:
    ca = authority.create(tmp_path / "ca", name="Narrow", subtrees=constraints.parse([permit], []))
    for host, good in ((inside, True), (outside, False)):
        # Around our own check, which refuses to sign the name outside.
        leaf = dataclasses.replace(profile.server([host]), subject=x509.Name([]))
        dates = profile.validity(5)
        made = profile.build_leaf(leaf, keys.generate().public_key(), dates, issuer=ca.certificate, issuer_key=ca.key)
        path = tmp_path / "leaf.pem"
        path.write_bytes(authority.to_pem(made))
        assert chain.verify(made, (), [ca.certificate]).verifies is good
        run("openssl", "verify", "-x509_strict", "-CAfile", ca.anchor, path, good=good)
        run("certtool", "--verify", "--load-ca-certificate", ca.anchor, "--infile", path, good=good)
        builder = verification.PolicyBuilder().store(verification.Store([ca.certificate]))
        name = chain.alternative_names(made)[0]
        assert isinstance(name, x509.DNSName | x509.IPAddress)
        with nullcontext() if good else pytest.raises(verification.VerificationError):
            builder.build_server_verifier(name).verify(made, [])


def test_openssl_agrees_with_us_on_constraints_of_uris(tmp_path: Path) -> None:
    ca = authority.create(tmp_path / "ca", subtrees=constraints.parse(["example.org", "uri:example.org"], []))
    inside = issue.client(ca, "billing", tmp_path, uris=["spiffe://example.org/billing"])
    run("openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", ca.anchor, inside.certificate)


def test_openssl_verifies_a_self_signed_certificate(tmp_path: Path) -> None:
    made = issue.self_signed(profile.server(["localhost"]), tmp_path, first="localhost")
    run("openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "localhost",
        "-CAfile", made.certificate, made.certificate)  # fmt: skip


def test_every_verifier_honours_our_revocation_list(tmp_path: Path) -> None:
    ca = authority.create(tmp_path / "ca", name="Root")
    kept, lost = (issue.server(ca, [name], tmp_path) for name in ("a.example.org", "b.example.org"))
    revoke.revoke(ca, lost.parsed.serial_number, reason="keyCompromise")
    crl = tmp_path / "ca" / "crl.pem"
    check = ("openssl", "verify", "-x509_strict", "-crl_check", "-CRLfile", crl, "-CAfile", kept.ca)
    run(*check, kept.certificate)
    assert "certificate revoked" in run(*check, lost.certificate, good=False)
    gnutls = ("certtool", "--verify", "--load-ca-certificate", kept.ca, "--load-crl", crl, "--infile")
    run(*gnutls, kept.certificate)
    assert "revoked" in run(*gnutls, lost.certificate, good=False)
    assert "keyCompromise" in run("openssl", "crl", "-in", crl, "-noout", "-text").replace(
        "Key Compromise", "keyCompromise"
    )


def test_openssls_ocsp_responder_answers_from_our_index(tmp_path: Path) -> None:
    ca = authority.create(tmp_path / "ca", name="Root")
    kept, lost = (issue.server(ca, ["localhost"], tmp_path, stem=stem) for stem in ("a", "b"))
    revoke.revoke(ca, lost.parsed.serial_number)
    folder, query, answer = tmp_path / "ca", tmp_path / "query", tmp_path / "answer"
    which = ("-issuer", folder / "ca.pem", "-cert", kept.certificate, "-cert", lost.certificate)
    run("openssl", "ocsp", "-no_nonce", *which, "-reqout", query)
    run("openssl", "ocsp", "-index", folder / "index.txt", "-CA", folder / "ca.pem", "-rsigner", folder / "ca.pem",
        "-rkey", folder / "ca.key", "-reqin", query, "-respout", answer)  # fmt: skip
    said = run("openssl", "ocsp", "-no_nonce", "-respin", answer, *which, "-CAfile", folder / "ca.pem")
    assert f"{kept.certificate}: good" in said
    assert f"{lost.certificate}: revoked" in said


@pytest.mark.parametrize("kind", KINDS)
def test_others_read_our_keys(kind: KeyKind, tmp_path: Path) -> None:
    key = keys.generate(kind)
    keys.write(tmp_path / "plain.key", key)
    keys.write(tmp_path / "secret.key", key, SECRET)
    plain = run("openssl", "pkey", "-in", tmp_path / "plain.key", "-pubout")
    assert run("openssl", "pkey", "-in", tmp_path / "secret.key", "-passin", "pass:open sesame", "-pubout") == plain
    said = run("certtool", "--pubkey-info", "--load-privkey", tmp_path / "secret.key", "--password", "open sesame")
    assert plain.strip() in said


@pytest.mark.parametrize(
    "arguments",
    [["-v2", "aes-256-cbc"], ["-v1", "PBE-SHA1-3DES"], ["-scrypt"], ["-iter", "1000000"], ["-v2prf", "hmacWithSHA1"]],
)
def test_we_read_what_openssl_encrypts(arguments: list[str], tmp_path: Path) -> None:
    key = keys.generate()
    keys.write(tmp_path / "k", key)
    run("openssl", "pkcs8", "-topk8", "-in", tmp_path / "k", *arguments, "-passout", "pass:open sesame",
        "-out", tmp_path / "e")  # fmt: skip
    assert keys.public_bytes(keys.load(tmp_path / "e", opening("open sesame"))) == keys.public_bytes(key)


def test_we_refuse_what_openssl_makes_too_costly(tmp_path: Path) -> None:
    keys.write(tmp_path / "k", keys.generate())
    run("openssl", "pkcs8", "-topk8", "-in", tmp_path / "k", "-iter", "10000001", "-passout", "pass:open sesame",
        "-out", tmp_path / "e")  # fmt: skip
    with pytest.raises(UsageError, match="asks for more than 10000000 rounds"):
        keys.load(tmp_path / "e", opening("open sesame"))


@pytest.mark.parametrize("legacy", [False, True])
def test_bundles_travel_to_openssl_gnutls_and_nss(tmp_path: Path, legacy: bool) -> None:
    ca = authority.create(tmp_path / "ca")
    made = issue.server(ca, ["localhost"], tmp_path)
    path = tmp_path / "x.p12"
    path.write_bytes(bundle.to_pkcs12(bundle.from_pem(made.certificate, made.key), SECRET, legacy=legacy))
    old = ["-legacy"] if legacy else []
    said = run("openssl", "pkcs12", *old, "-in", path, "-passin", "pass:open sesame", "-nodes")
    assert "BEGIN PRIVATE KEY" in said
    assert "friendlyName: localhost" in said
    assert "PRIVATE KEY" in run("certtool", "--p12-info", "--inder", "--infile", path, "--password", "open sesame")
    (tmp_path / "nss").mkdir()
    run("certutil", "-N", "-d", f"sql:{tmp_path / 'nss'}", "--empty-password")
    run("pk12util", "-i", path, "-d", f"sql:{tmp_path / 'nss'}", "-W", "open sesame", "-K", "")
    assert "localhost" in run("certutil", "-L", "-d", f"sql:{tmp_path / 'nss'}")


@pytest.mark.parametrize("arguments", [[], ["-legacy"], ["-keypbe", "NONE", "-certpbe", "NONE"], ["-nomac"]])
def test_bundles_by_openssl_are_read(tmp_path: Path, arguments: list[str]) -> None:
    made = issue.server(authority.create(tmp_path / "ca"), ["localhost"], tmp_path)
    run("openssl", "pkcs12", "-export", *arguments, "-in", made.certificate, "-inkey", made.key or "",
        "-out", tmp_path / "x.p12", "-passout", "pass:open sesame")  # fmt: skip
    opened = bundle.parse_pkcs12((tmp_path / "x.p12").read_bytes(), where="x.p12", passphrases=opening("open sesame"))
    assert opened.certificate == made.parsed


def test_requests_travel_both_ways(tmp_path: Path) -> None:
    ca = authority.create(tmp_path / "ca")
    asked = request.make(profile.server(["a.example.org"]), tmp_path, first="a")
    assert "DNS:a.example.org" in run("openssl", "req", "-in", asked.request, "-noout", "-text", "-verify")
    run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-keyout", tmp_path / "o.key", "-subj", "/CN=o", "-addext", "subjectAltName=DNS:o.example.org,IP:10.0.0.1",
        "-addext", "extendedKeyUsage=serverAuth", "-out", tmp_path / "o.csr")  # fmt: skip
    made = request.sign(ca, tmp_path / "o.csr", tmp_path)
    run("openssl", "verify", "-x509_strict", "-CAfile", made.ca, "-verify_ip", "10.0.0.1", made.certificate)
