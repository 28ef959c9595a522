"""Certificate and key files that other programs wrote: openssl, GnuTLS's certtool, Java's keytool, ssh-keygen."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.interop import require
from tlstunnel.config.model import CertificateFiles
from tlstunnel.x509.checks import warnings
from tlstunnel.x509.material import Credential, MaterialError, load_ca, load_credential, load_crls
from tlstunnel.x509.passphrase import PassphraseSource

pytestmark = pytest.mark.interop
SECRET = "correct horse battery staple"


def run(program: str, *words: object, stdin: str = "") -> str:
    done = subprocess.run(
        [require(program), *map(str, words)], input=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def load(passphrase: str | None = None, **files: Path) -> Credential:
    environ = {} if passphrase is None else {"TLSTUNNEL_KEY_PASSPHRASE": passphrase}
    return load_credential(CertificateFiles(**files), PassphraseSource(environ))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """server.pem and server.key, ECDSA, by openssl."""
    folder = tmp_path_factory.mktemp("openssl")
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-keyout", folder / "server.key", "-out", folder / "server.pem", "-days", 90, "-subj", "/CN=www.example.org",
        "-addext", "subjectAltName=DNS:www.example.org,IP:192.0.2.7", "-addext", "basicConstraints=critical,CA:FALSE",
    )  # fmt: skip
    return folder


NEW_KEY = {
    "RSA 2048": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "RSA 3072": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"],
    "ECDSA P-256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "ECDSA P-384": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    "ECDSA P-521": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
    "ECDSA brainpoolP384r1": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:brainpoolP384r1"],
    "Ed25519": ["-algorithm", "ED25519"],
    "Ed448": ["-algorithm", "ED448"],
}


@pytest.mark.parametrize("key_type", NEW_KEY)
def test_every_kind_of_key_openssl_makes_loads(key_type: str, tmp_path: Path) -> None:
    key, certificate = tmp_path / "s.key", tmp_path / "s.pem"
    run("openssl", "genpkey", *NEW_KEY[key_type], "-out", key)
    run("openssl", "req", "-x509", "-key", key, "-out", certificate, "-subj", "/CN=s", "-text")
    assert load(certificate=certificate, key=key).key_type == key_type


def test_what_openssl_says_of_a_certificate_is_what_we_say(made: Path) -> None:
    credential = load(certificate=made / "server.pem", key=made / "server.key")
    said = run("openssl", "x509", "-in", made / "server.pem", "-noout", "-fingerprint", "-sha256", "-serial", "-dates")
    lines = dict(line.split("=", 1) for line in said.splitlines())
    assert lines["sha256 Fingerprint"].replace(":", "").lower() == credential.fingerprint
    assert int(lines["serial"], 16) == credential.serial
    assert lines["notAfter"] == f"{credential.not_after:%b %e %H:%M:%S %Y} GMT"
    assert credential.names == ("www.example.org", "192.0.2.7")
    assert warnings(credential, service_names=["www.example.org"], now=datetime.now(UTC)) == []


@pytest.mark.parametrize("cipher", ["-aes256", "-aes-128-cbc", "-des3", "-camellia256"])
def test_traditional_keys_with_a_passphrase_load(cipher: str, made: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    run("openssl", "ec", "-in", made / "server.key", cipher, "-passout", f"pass:{SECRET}", "-out", locked)
    if cipher == "-camellia256":  # what is not supported says so, and how to help
        with pytest.raises(MaterialError, match="write it again with openssl pkcs8 -topk8"):
            load(SECRET, certificate=made / "server.pem", key=locked)
        return
    assert load(SECRET, certificate=made / "server.pem", key=locked).key_type == "ECDSA P-256"
    with pytest.raises(MaterialError, match="does not open it"):
        load("wrong", certificate=made / "server.pem", key=locked)


@pytest.mark.parametrize(
    "options",
    ["-v2 aes-256-cbc", "-v2 aes-128-cbc -v2prf hmacWithSHA1", "-v2 des3", "-scrypt", "-v1 PBE-SHA1-3DES"],
)
def test_pkcs8_keys_with_a_passphrase_load(options: str, made: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    files = ["-in", made / "server.key", "-out", locked]
    run("openssl", "pkcs8", "-topk8", *options.split(), *files, "-passout", f"pass:{SECRET}")
    assert load(SECRET, certificate=made / "server.pem", key=locked).key_type == "ECDSA P-256"
    with pytest.raises(MaterialError, match="does not open it"):
        load("wrong", certificate=made / "server.pem", key=locked)


@pytest.mark.parametrize("secret", [SECRET, "pässwörd", ""], ids=["ASCII", "UTF-8", "empty"])
@pytest.mark.parametrize("options", [[], ["-legacy"], ["-legacy", "-descert"]], ids=["modern", "RC2", "3DES"])
def test_pkcs12_files_new_and_old_load(options: list[str], secret: str, made: Path, tmp_path: Path) -> None:
    p12, passphrase = tmp_path / "s.p12", tmp_path / "pass.txt"
    passphrase.write_text(secret + "\n", encoding="utf-8")
    run(
        "openssl", "pkcs12", "-export", *options, "-in", made / "server.pem", "-inkey", made / "server.key",
        "-out", p12, "-passout", f"file:{passphrase}", "-name", "server",
    )  # fmt: skip
    if secret:
        credential = load(p12=p12, key_passphrase_file=passphrase)
        with pytest.raises(MaterialError, match="does not open it"):
            load("wrong", p12=p12)
    else:
        credential = load(p12=p12)
    assert credential.names == ("www.example.org", "192.0.2.7")


def test_a_pkcs12_file_without_a_mac_loads(made: Path, tmp_path: Path) -> None:
    options = ["-nomac", "-keypbe", "NONE", "-certpbe", "NONE", "-passout", "pass:"]
    files = ["-in", made / "server.pem", "-inkey", made / "server.key", "-out", tmp_path / "s.p12"]
    run("openssl", "pkcs12", "-export", *options, *files)
    assert load(p12=tmp_path / "s.p12").key_type == "ECDSA P-256"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """root, intermediate and leaf by openssl ca's elder brother, x509 -req."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "ca.ext").write_text("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n")
    (folder / "leaf.ext").write_text("subjectAltName=DNS:www.example.org\nextendedKeyUsage=serverAuth\n")
    previous: list[object] = []
    for name, extensions in (("root", "ca.ext"), ("int", "ca.ext"), ("leaf", "leaf.ext")):
        key, request, out = folder / f"{name}.key", folder / f"{name}.csr", folder / f"{name}.pem"
        run("openssl", "genpkey", *NEW_KEY["ECDSA P-256"], "-out", key)
        run("openssl", "req", "-new", "-key", key, "-subj", f"/CN={name}", "-out", request)
        signer = previous or ["-key", key]
        run(
            "openssl",
            "x509",
            "-req",
            "-in",
            request,
            *signer,
            "-days",
            90,
            "-extfile",
            folder / extensions,
            "-out",
            out,
        )
        previous = ["-CA", out, "-CAkey", key, "-CAcreateserial"]
    return folder


def test_a_chain_in_pkcs12_comes_out_in_order_and_verifies(authority: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra.pem"
    extra.write_text((authority / "root.pem").read_text() + (authority / "int.pem").read_text())
    run(
        "openssl", "pkcs12", "-export", "-in", authority / "leaf.pem", "-inkey", authority / "leaf.key",
        "-certfile", extra, "-passout", "pass:", "-out", tmp_path / "s.p12",
    )  # fmt: skip
    credential = load(p12=tmp_path / "s.p12")
    paths = [tmp_path / f"{number}.der" for number in range(3)]
    for path, der in zip(paths, (credential.certificate_der, *credential.chain_der), strict=True):
        path.write_bytes(der)
    subjects = [run("openssl", "x509", "-in", path, "-noout", "-subject") for path in paths]
    assert [subject.split("=")[-1].strip() for subject in subjects] == ["leaf", "int", "root"]
    run("openssl", "verify", "-CAfile", authority / "root.pem", "-untrusted", paths[1], paths[0])


def test_a_certificate_signed_with_sha1_is_warned_about(authority: Path, tmp_path: Path) -> None:
    out = tmp_path / "sha1.pem"
    signer = ["-CA", authority / "int.pem", "-CAkey", authority / "int.key", "-CAcreateserial"]
    run("openssl", "x509", "-req", "-sha1", "-in", authority / "leaf.csr", *signer, "-days", 90, "-out", out)
    found = warnings(load(certificate=out, key=authority / "leaf.key"), now=datetime.now(UTC))
    assert f"{out}: its signature uses SHA-1; peers will refuse it" in found


def test_a_dsa_certificate_is_refused(tmp_path: Path) -> None:
    parameters, key, out = (tmp_path / name for name in ("dsa.par", "dsa.key", "dsa.pem"))
    parameters.write_text(_DSA_PARAMETERS)
    run("openssl", "genpkey", "-paramfile", parameters, "-out", key)
    run("openssl", "req", "-x509", "-key", key, "-subj", "/CN=dsa", "-out", out)
    with pytest.raises(MaterialError, match="DSA 1024 is of no use in TLS"):
        load(certificate=out, key=key)


def test_a_key_for_pss_signatures_keeps_that_it_is_one(tmp_path: Path) -> None:
    """OpenSSL refuses a certificate for RSASSA-PSS with a key that says plain RSA; parsing would lose it."""
    key, certificate, locked = tmp_path / "pss.key", tmp_path / "pss.pem", tmp_path / "locked.key"
    run("openssl", "genpkey", "-quiet", "-algorithm", "RSA-PSS", "-out", key)
    run("openssl", "req", "-x509", "-key", key, "-subj", "/CN=pss", "-out", certificate)
    credential = load(certificate=certificate, key=key)
    assert bytes.fromhex("2a864886f70d01010a") in credential.key_der
    run("openssl", "pkcs8", "-topk8", "-in", key, "-out", locked, "-passout", f"pass:{SECRET}")
    with pytest.raises(MaterialError, match="read only from unencrypted PKCS#8"):
        load(SECRET, certificate=certificate, key=locked)


def test_revocation_lists_openssl_makes_load_as_pem_and_der(authority: Path, tmp_path: Path) -> None:
    (tmp_path / "index.txt").write_text(f"R\t300101000000Z\t200101000000Z\t{'0A' * 8}\tunknown\t/CN=x\n")
    (tmp_path / "ca.cnf").write_text(
        f"[ca]\ndefault_ca=d\n[d]\ndatabase={tmp_path}/index.txt\ndefault_md=sha256\ndefault_crl_days=7\n"
    )
    signer = ["-keyfile", authority / "root.key", "-cert", authority / "root.pem", "-config", tmp_path / "ca.cnf"]
    run("openssl", "ca", "-gencrl", *signer, "-out", tmp_path / "crl.pem")
    run("openssl", "crl", "-in", tmp_path / "crl.pem", "-outform", "DER", "-out", tmp_path / "crl.der")
    for name in ("crl.pem", "crl.der"):
        (one,) = load_crls(tmp_path / name)
        assert (one.issuer, one.entries) == ("CN=root", 1)


def test_a_certificate_certtool_made_loads(tmp_path: Path) -> None:
    key, template, out = tmp_path / "g.key", tmp_path / "g.cfg", tmp_path / "g.pem"
    template.write_text('cn = "g"\ndns_name = "g.example"\nexpiration_days = 90\ntls_www_server\nsigning_key\n')
    key.write_text(run("certtool", "--generate-privkey", "--key-type", "ecdsa", "--curve", "secp384r1"))
    run("certtool", "--generate-self-signed", "--load-privkey", key, "--template", template, "--outfile", out)
    credential = load(certificate=out, key=key)  # the key's file has words around the block
    assert (credential.names, credential.key_type) == (("g.example",), "ECDSA P-384")
    p12 = ["--to-p12", "--load-certificate", out, "--load-privkey", key, "--password", SECRET, "--p12-name", "g"]
    run("certtool", *p12, "--outder", "--outfile", tmp_path / "g.p12")
    assert load(SECRET, p12=tmp_path / "g.p12").names == ("g.example",)


def test_an_ec_key_with_a_sign_byte_loads_or_says_how_to_write_it_again(tmp_path: Path) -> None:
    """Half of the EC keys certtool 3.7 makes have a zero before the private value; this is one of them."""
    key, template, out = tmp_path / "g.key", tmp_path / "g.cfg", tmp_path / "g.pem"
    key.write_text(_SIGN_BYTE_KEY)
    template.write_text('cn = "g"\ndns_name = "g.example"\nexpiration_days = 90\n')
    run("certtool", "--generate-self-signed", "--load-privkey", key, "--template", template, "--outfile", out)
    plain = load(certificate=out, key=key)
    assert plain.key_type == "ECDSA P-384"
    p12 = ["--to-p12", "--load-certificate", out, "--load-privkey", key, "--password", SECRET, "--p12-name", "g"]
    run("certtool", *p12, "--outder", "--outfile", tmp_path / "g.p12")
    assert load(SECRET, p12=tmp_path / "g.p12").key_der == plain.key_der
    locked, again = tmp_path / "locked.key", tmp_path / "again.key"
    run("certtool", "--to-p8", "--load-privkey", key, "--password", SECRET, "--outfile", locked)
    with pytest.raises(MaterialError, match="write it again with openssl"):
        load(SECRET, certificate=out, key=locked)
    run("openssl", "pkcs8", "-topk8", "-nocrypt", "-in", key, "-out", again)
    assert load(certificate=out, key=again).key_der == plain.key_der


def test_pkcs12_from_the_library_of_firefox_loads(made: Path, tmp_path: Path) -> None:
    """NSS writes BER, with lengths left open."""
    run(
        "openssl", "pkcs12", "-export", "-in", made / "server.pem", "-inkey", made / "server.key", "-name", "n",
        "-passout", f"pass:{SECRET}", "-out", tmp_path / "in.p12",
    )  # fmt: skip
    run("certutil", "-N", "--empty-password", "-d", tmp_path)
    run("pk12util", "-i", tmp_path / "in.p12", "-W", SECRET, "-d", tmp_path)
    run("pk12util", "-o", tmp_path / "out.p12", "-n", "n", "-W", SECRET, "-d", tmp_path)
    assert (tmp_path / "out.p12").read_bytes()[:2] == b"\x30\x80"
    assert load(SECRET, p12=tmp_path / "out.p12").names == ("www.example.org", "192.0.2.7")


def test_a_java_key_store_loads_as_pkcs12_and_is_named_as_jks(tmp_path: Path) -> None:
    new = ["-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1", "-alias", "a", "-dname", "CN=j"]
    new += ["-ext", "san=dns:j.example", "-storepass", SECRET, "-validity", "90"]
    run("keytool", *new, "-storetype", "PKCS12", "-keystore", tmp_path / "j.p12")
    assert load(SECRET, p12=tmp_path / "j.p12").names == ("j.example",)
    run("keytool", *new, "-keypass", SECRET, "-storetype", "JKS", "-keystore", tmp_path / "j.jks")
    with pytest.raises(MaterialError, match="is a Java key store"):
        load(SECRET, p12=tmp_path / "j.jks")


def test_the_advice_for_other_formats_works(made: Path, tmp_path: Path) -> None:
    """Each message names a command: what it makes must load."""
    run("openssl", "x509", "-in", made / "server.pem", "-outform", "DER", "-out", tmp_path / "s.cer")
    with pytest.raises(MaterialError, match="convert it with openssl x509 -inform DER"):
        load(certificate=tmp_path / "s.cer")
    run("openssl", "x509", "-inform", "DER", "-in", tmp_path / "s.cer", "-out", tmp_path / "s.pem")
    run("openssl", "pkey", "-in", made / "server.key", "-outform", "DER", "-out", tmp_path / "s.der")
    with pytest.raises(MaterialError, match="convert it with openssl pkey -inform DER"):
        load(certificate=tmp_path / "s.pem", key=tmp_path / "s.der")
    run("openssl", "pkey", "-inform", "DER", "-in", tmp_path / "s.der", "-out", tmp_path / "s.key")
    assert load(certificate=tmp_path / "s.pem", key=tmp_path / "s.key")
    for form in ("PEM", "DER"):
        words = ["-nocrl", "-certfile", made / "server.pem", "-outform", form, "-out", tmp_path / "s.p7b"]
        run("openssl", "crl2pkcs7", *words)
        with pytest.raises(MaterialError, match=r"convert it with openssl pkcs7 .*-print_certs"):
            load(certificate=tmp_path / "s.p7b")
        pkcs7 = run("openssl", "pkcs7", "-inform", form, "-print_certs", "-in", tmp_path / "s.p7b")
        (tmp_path / "s.pem").write_text(pkcs7)
        assert load(certificate=tmp_path / "s.pem", key=tmp_path / "s.key")
    run("openssl", "x509", "-in", made / "server.pem", "-trustout", "-out", tmp_path / "t.pem")
    assert load(certificate=tmp_path / "t.pem", key=tmp_path / "s.key")
    run("openssl", "x509", "-in", made / "server.pem", "-addtrust", "serverAuth", "-out", tmp_path / "t.pem")
    with pytest.raises(MaterialError, match=r"TRUSTED CERTIFICATE is trusted for some purposes only.*\(openssl x509\)"):
        load_ca(tmp_path / "t.pem")
    run("openssl", "x509", "-in", tmp_path / "t.pem", "-out", tmp_path / "t2.pem")
    assert load_ca(tmp_path / "t2.pem")


def test_an_openssh_key_loads_after_the_conversion_the_message_names(tmp_path: Path) -> None:
    key, out = tmp_path / "id", tmp_path / "s.pem"
    run("ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", key)
    run(
        "openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=s", "-out", out
    )
    with pytest.raises(MaterialError, match="ssh-keygen -p -m PKCS8 -f COPY"):
        load(certificate=out, key=key)
    run("ssh-keygen", "-q", "-p", "-m", "PKCS8", "-N", "", "-f", key)
    run("openssl", "req", "-x509", "-key", key, "-subj", "/CN=s", "-out", out)
    assert load(certificate=out, key=key).key_type == "ECDSA P-256"


def test_the_cas_of_this_system_load() -> None:
    path = Path("/etc/ssl/certs/ca-certificates.crt")
    if not path.exists():
        message = f"{path} is missing; the Debian package is ca-certificates"
        pytest.fail(message) if os.environ.get("TLSTUNNEL_REQUIRE_INTEROP") == "1" else pytest.skip(message)
    assert len(load_ca(path).subjects) > 50


_SIGN_BYTE_KEY = """-----BEGIN EC PRIVATE KEY-----
MIGlAgEBBDEAzAuvbtbsrTmaxHy9fbTReI5j66+mt5UpDQaXUK/Jx9RtGbPB2V2v
nPmhKNpqZnr9oAcGBSuBBAAioWQDYgAEtPOCiG/uMEGi7gk9qER8X17JhTNOkCc1
g3OWD0aulbKbT3h9dLoeX/p/Wz3iUuz5ZJ55hIRj46LAMoYaRvAw0QW+GTBRAq+v
UCSZkZ0uZ9XbKA40gntM6Wx8YN3HV9Rn
-----END EC PRIVATE KEY-----
"""
# Made once with openssl dsaparam 1024: finding new ones takes seconds.
_DSA_PARAMETERS = """-----BEGIN DSA PARAMETERS-----
MIIBJwKBgQDHdlK62VjajWcElTOPXUltxVC9r9/kFmljGGp1hkgK5NgbWfHydtNw
jo8n6xILVVnE5haRMQJvGl1zIYCTQtldk6YFBXOWc/6FYrwQgwRyjG9d+pV6EIVi
GDBLnB965gSUFPb/5MhRs6FeeZyaBHqXz+J7UWIqMcJ5f9tdeV7mHwIdAOhhoGB4
pusEXCq36XjjUKTy+xMXz/miKc4l/hkCgYEAp7wIMTJnLU2O2OPXGBZ46oNXVwTJ
tqrxZl30DVZL/CG6AhY9U0tALxgu7pceWru6IRaSkKxpLnDqWRPwj5qQKd/VPg3t
ETyjgiqrJGbx2XJALagwartg1qNxCaEHyoPHT59RtLjQK0IBZIQh9Pc3jxT9FeQY
5d7wLaK+pr3gZ0o=
-----END DSA PARAMETERS-----
"""


def test_of_two_keys_in_one_pkcs12_the_first_is_used_and_that_is_said(tmp_path: Path) -> None:
    """keytool puts as many in as it is told; `cryptography` hands out one, with its certificate."""
    for name in ("first", "second"):
        run(
            "keytool", "-genkeypair", "-alias", name, "-keyalg", "EC", "-dname", f"CN={name}", "-storepass", SECRET,
            "-storetype", "PKCS12", "-keystore", tmp_path / "two.p12",
        )  # fmt: skip
    credential = load(SECRET, p12=tmp_path / "two.p12")
    assert b"first" in credential.certificate_der
    (remark,) = [each for each in credential.remarks if "not in the chain" in each]
    assert "CN=second is not in the chain of CN=first; it is not sent" in remark
