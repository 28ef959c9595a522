"""What one command makes of a file, every command makes of it: the same verdict, in the same words."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs7,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import certificates as made
from tests.support.material_files import Place, opening
from tests.support.mldsa_keys import elements, encrypted, tlv
from tlstunnel.access.peer import identity
from tlstunnel.cli import app
from tlstunnel.cli.cert import show
from tlstunnel.config.model import Admin
from tlstunnel.errors import TunnelError
from tlstunnel.observe.admin.tls import tls_context
from tlstunnel.tools.pki import bundle, chain, describe, keys, readers
from tlstunnel.tools.top.client import client_context
from tlstunnel.x509.checks import covers, is_for
from tlstunnel.x509.key import key_type
from tlstunnel.x509.material import contents_digest, load_credential
from tlstunnel.x509.passphrase import PassphraseSource
from tlstunnel.x509.pem import read_file, write_pem
from tlstunnel.x509.trust import load_ca, load_system_ca

PAIR, CA = made.server("localhost"), made.ca()
PEM = PAIR.certificate.read_bytes()
ISSUER = CA.certificate.read_bytes()
AUX = bytes.fromhex("300c300a06082b06010505070301")
"""Trusted for servers only (serverAuth)."""


def relabel(label: str, pem: bytes = PEM) -> bytes:
    return pem.replace(b" CERTIFICATE-", f" {label}-".encode())


def trusted(der: bytes, aux: bytes) -> bytes:
    return write_pem("TRUSTED CERTIFICATE", der + aux)


FILES = {
    "plain": PEM,
    "x509 label": relabel("X509 CERTIFICATE"),
    "trusted label": relabel("TRUSTED CERTIFICATE"),
    "trusted with purposes": trusted(PAIR.leaf_der, AUX),
    "byte order mark": b"\xef\xbb\xbf" + PEM,
    "windows line ends": PEM.replace(b"\n", b"\r\n"),
    "indented": b"".join(b"    " + line for line in PEM.splitlines(keepends=True)),
    "text around": b"subject=CN\n" + PEM + b"\nthe end",
    "joined without a line break": PEM.rstrip(b"\n") + ISSUER,
    "cut short": PEM[:-40],
    "cut short before another": PEM[:200] + b"\n" + ISSUER,
    "wrong end": PEM.replace(b"END CERT", b"END X509 CERT"),
    "not base64": PEM.replace(b"MII", b"M!I", 1),
    "damaged": PEM.replace(b"MIIB", b"MIIC", 1),
    "second damaged": ISSUER + PEM.replace(b"MIIB", b"MIIC", 1),
    "empty": b"",
    "empty block": b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
    "text": b"hello world\n",
    "html": b"<!doctype html><p>404",
    "pkcs7": relabel("PKCS7"),
    "pkcs7 der": pkcs7.serialize_certificates([PAIR.leaf], Encoding.DER),
    "other key": CA.key.read_bytes(),
}


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in FILES.items()])
def test_tunnel_and_cert_show_agree_about_a_file_of_certificates(content: bytes, tmp_path: Path) -> None:
    files = Place(tmp_path).pair(content, PAIR.key)
    assert files.certificate is not None
    verdicts = []
    for read in (
        lambda: load_credential(files, PassphraseSource()).certificate_der,
        lambda: readers.load_certificates(files.certificate)[0],
        lambda: show._read(files.certificate, show.Source())[0],
    ):
        try:
            found = read()  # type: ignore[no-untyped-call]
            verdicts.append("good" if found else "")
        except TunnelError as exc:
            verdicts.append(str(exc))
    if content == FILES["other key"]:  # which `cert show` shows as such
        verdicts.pop()
    assert len(set(verdicts)) == 1, verdicts


KEY = PAIR.key.read_bytes()
LOCKED = PAIR.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
KEYS = {
    "plain": KEY,
    "with its certificate": PEM + KEY,
    "windows line ends": KEY.replace(b"\n", b"\r\n"),
    "encrypted": LOCKED,
    "encrypted with another passphrase": PAIR.private_key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"other")
    ),
    "encrypted, cut short": LOCKED[:-40],
    "cut short": KEY[:-40],
    "two": KEY + made.ca().key.read_bytes(),
    "a certificate": PEM,
    "a request": relabel("CERTIFICATE REQUEST"),
    "for SSH": relabel("OPENSSH PRIVATE KEY"),
    "damaged": KEY.replace(b"MIG", b"MIH", 1),
    "not base64": KEY.replace(b"MIG", b"M!G", 1),
    "empty block": b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
    "wrong end": KEY.replace(b"END PRIVATE", b"END EC PRIVATE"),
}


Said = tuple[int, str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs a whole command in this process: its exit code, and what it says from the name of a file on."""

    def run(path: Path, *words: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["tlstunnel", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            app.main()
        text = capsys.readouterr().err
        return int(ended.value.code or 0), text[text.index(str(path)) :] if text else ""

    return run


def written(folder: Path, **keys: Path) -> Path:
    """A configuration of one service, with these files."""
    mode = "client" if "ca" in keys else "server"
    target = "localhost:1" if mode == "client" else "127.0.0.1:1"
    lines = ["[services.web]", f'mode = "{mode}"', 'listen = ["127.0.0.1:0"]', f'target = "{target}"']
    path = folder / "tunnel.toml"
    path.write_text("\n".join(lines + [f'{key} = "{value}"' for key, value in keys.items()]) + "\n")
    return path


def make(path: Path, content: bytes | None) -> Path:
    """The file; a link to nowhere, or a directory, where the name says so."""
    if path.name == "link":
        path.symlink_to("gone")
    elif path.name == "directory":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    return path


# What is wrong with it, and what is said of it as a certificate and as a file of CAs; `None` for nothing wrong.
BAD: dict[str, tuple[bytes | None, int, str | None, str | None]] = {
    "missing": (None, 1, "does not exist; check the path", "does not exist; check the path"),
    "link": (None, 1, *["is a symbolic link to a file that does not exist; link it to another"] * 2),
    "empty": (b" \n", 2, "is empty; write it anew", "is empty; write it anew"),
    "directory": (None, 2, "is a directory; name a file in it", "holds no certificates; name a folder with .pem, "
        ".crt or .cer files, or links made by openssl rehash"),
    "cut": (PEM[:-40], 2, *["line 1: BEGIN CERTIFICATE without END CERTIFICATE; the file is cut short"] * 2),
    "cut-der": (PAIR.leaf_der[:-40], 2, *["is DER that is cut short; copy it anew"] * 2),
    "text": (b"hello", 2, *["is not PEM; it would have a line like -----BEGIN CERTIFICATE-----"] * 2),
    "page": (b"<!doctype html>", 2, *["is an HTML page, not PEM; a download must have failed"] * 2),
    "large": (b"x" * (65 << 20), 2, "is larger than", "is larger than 16 MiB; this cannot be the file that was meant"),
    "crlf": (PEM.replace(b"\n", b"\r\n"), 0, None, None),
    "mark": (b"\xef\xbb\xbf" + PEM, 0, None, None),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_every_command_says_the_same_of_a_certificates_file(
    name: str, tmp_path: Path, command: Callable[..., Said]
) -> None:
    content, code, what, _ = BAD[name]
    path = make(tmp_path / name, content)
    commands: list[tuple[str | Path, ...]] = [
        ("check", written(tmp_path, certificate=path, key=PAIR.key)), ("cert", "show", path)
    ]  # fmt: skip
    if what is not None:  # else these go on to the network
        pair = ("--cert", path, "--key", PAIR.key)
        commands += [("status", *pair), *((tool, "localhost:1", *pair) for tool in ("connect", "explain"))]
    for words in commands:
        found = command(path, *words)
        assert found[0] == code, words
        assert found[1].startswith(f"{path}: {what}" if what else ""), words
        assert found[1].count("\n") == (what is not None)


def test_a_name_that_would_steer_the_terminal_is_written_the_same_way_by_every_command(
    tmp_path: Path, command: Callable[..., Said]
) -> None:
    path = tmp_path / "a\n\x1b[31m\u202e"
    written_as = Path(f"{tmp_path}/a\\n\\x1b[31m\\u202e")
    config = tmp_path / "tunnel.toml"
    config.write_text(written(tmp_path, ca=Path("PATH")).read_text().replace('"PATH"', json.dumps(str(path))))
    commands = [("check", config), *((tool, "localhost:1", "--ca", path) for tool in ("probe", "connect", "explain"))]
    said = {command(written_as, *words) for words in commands}
    assert said == {(1, f"{written_as}: does not exist; check the path\n")}


@pytest.mark.parametrize("name", BAD)
def test_every_command_says_the_same_of_a_file_of_cas(name: str, tmp_path: Path, command: Callable[..., Said]) -> None:
    content, code, _, what = BAD[name]
    path = make(tmp_path / name, content)
    commands: list[tuple[str | Path, ...]] = [
        ("check", written(tmp_path, ca=path)), ("cert", "show", PAIR.certificate, "--ca", path)
    ]  # fmt: skip
    if what is not None:  # else these go on to the network
        commands += [(tool, "localhost:1", "--ca", path) for tool in ("probe", "connect", "explain")]
        commands += [("status", "--ca", path)]
    said = {command(path, *words) for words in commands}
    assert said == {(code, f"{path}: {what}\n" if what else "")}


def test_a_key_in_the_place_of_a_certificate_is_called_that_by_every_command(
    tmp_path: Path, command: Callable[..., Said]
) -> None:
    key, wrong = PAIR.key, "holds a private key but no certificate"
    as_certificate = command(key, "check", written(tmp_path, certificate=key, key=key))
    assert as_certificate == (2, f"{key}: {wrong}; are certificate and key swapped?\n")
    assert command(key, "cert", "bundle", "--cert", key, "--out", tmp_path / "x.pem") == as_certificate
    as_ca = command(key, "check", written(tmp_path, ca=key))
    assert as_ca == (2, f"{key}: {wrong}; a CA needs no key here\n")
    for words in (("cert", "show", PAIR.certificate), ("probe", "localhost:1"), ("connect", "localhost:1")):
        assert command(key, *words, "--ca", key) == as_ca
    assert command(key, "cert", "show", key) == (0, "")


def test_der_in_the_place_of_pem_is_a_ca_everywhere_and_a_tunnels_certificate_nowhere(
    tmp_path: Path, command: Callable[..., Said]
) -> None:
    der = Place(tmp_path).put("server.der", PAIR.leaf_der)
    assert command(der, "check", written(tmp_path, ca=der)) == (0, "")
    assert command(der, "cert", "show", der, "--ca", der) == (0, "")
    what = "is a certificate in DER, not PEM; convert it with openssl x509 -inform DER"
    assert command(der, "check", written(tmp_path, certificate=der, key=PAIR.key)) == (2, f"{der}: {what}\n")
    for tool in ("connect", "explain"):
        assert command(der, tool, "localhost:1", "--cert", der, "--key", PAIR.key) == (2, f"{der}: {what}\n")


@pytest.mark.parametrize("passphrase", [b"wrong\n", b"\n", b"", None])
@pytest.mark.parametrize("kind", ["PEM", "PKCS#12"])
def test_every_command_says_the_same_where_a_passphrase_does_not_open(
    kind: str, passphrase: bytes | None, tmp_path: Path, command: Callable[..., Said]
) -> None:
    secret = make(tmp_path / "pass", passphrase)
    locked = tmp_path / "locked"
    commands: list[tuple[str | Path, ...]] = [("cert", "show", locked, "--passphrase-file", secret)]
    bundle_of = ("cert", "bundle", "--passphrase-file", secret, "--out", tmp_path / "x.pem")
    if kind == "PEM":
        locked.write_bytes(LOCKED)
        commands += [
            ("check", written(tmp_path, certificate=PAIR.certificate, key=locked, key_passphrase_file=secret)),
            (*bundle_of, "--cert", PAIR.certificate, "--key", locked),
            *((tool, "localhost:1", "--cert", PAIR.certificate, "--key", locked, "--key-passphrase-file", secret)
              for tool in ("connect", "explain")),
        ]  # fmt: skip
    else:
        locked.write_bytes(made.p12(PAIR, "secret").read_bytes())
        commands += [
            ("check", written(tmp_path, p12=locked, key_passphrase_file=secret)), (*bundle_of, "--p12", locked)
        ]  # fmt: skip
    of = locked if passphrase == b"wrong\n" else secret
    expected = {
        b"wrong\n": (2, f"is encrypted, and the passphrase in {secret} does not open it; correct the passphrase"),
        b"\n": (2, "is empty; write the passphrase into its first line"),
        b"": (2, "is empty; write the passphrase into its first line"),
        None: (1, "does not exist; check the path"),
    }
    code, what = expected[passphrase]
    assert {command(of, *words) for words in commands} == {(code, f"{of}: {what}\n")}


def test_the_daemon_says_of_a_file_what_check_says(tmp_path: Path, command: Callable[..., Said]) -> None:
    for name in ("missing", "directory", "cut"):
        path = make(tmp_path / name, BAD[name][0])
        config = written(tmp_path, certificate=path, key=PAIR.key)
        expected = command(path, "check", config)
        for words in (
            ("run", config),
            ("server", "--listen", "127.0.0.1:0", "--target", "127.0.0.1:1", "--cert", path, "--key", PAIR.key),
        ):
            done = subprocess.run(
                [sys.executable, "-m", "tlstunnel", *words], capture_output=True, text=True, check=False
            )
            assert (done.returncode, done.stderr[done.stderr.index(str(path)) :]) == expected


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in KEYS.items()])
def test_tunnel_and_cert_agree_about_a_file_with_a_key(content: bytes, tmp_path: Path) -> None:
    place = Place(tmp_path)
    secret = place.put("secret.txt", b"secret\n")
    files = replace(place.pair(PAIR.certificate, content), key_passphrase_file=secret)
    assert files.key is not None
    verdicts = []
    for read in (
        lambda: load_credential(files, PassphraseSource()),
        lambda: keys.load(files.key, PassphraseSource(file=read_file(secret))),
        lambda: bundle.from_pem(PAIR.certificate, files.key, passphrases=PassphraseSource(file=read_file(secret))),
    ):
        try:
            read()  # type: ignore[no-untyped-call]
            verdicts.append("good")
        except TunnelError as exc:
            verdicts.append(str(exc))
    assert len(set(verdicts)) == 1, verdicts


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in FILES.items()])
def test_every_command_agrees_about_a_file_of_cas(content: bytes, tmp_path: Path) -> None:
    path = Place(tmp_path).put("ca.pem", content)
    verdicts = []
    for read in (load_ca, chain.load_trust):  # of check, connect --ca; of cert show --ca, probe --ca, explain --ca
        try:
            read(path)
            verdicts.append("good")
        except TunnelError as exc:
            verdicts.append(str(exc))
    assert len(set(verdicts)) == 1, verdicts


def test_a_ca_that_is_trusted_for_some_purposes_only_is_not_trusted_for_all(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert load_ca(place.put("all.pem", trusted(CA.leaf_der, b""))).certificates_der == (CA.leaf_der,)
    with pytest.raises(TunnelError, match="line 1: TRUSTED CERTIFICATE is trusted for some purposes only"):
        load_ca(place.put("some.pem", trusted(CA.leaf_der, AUX)))


def test_a_ca_may_be_der_and_a_folder_may_be_hashed_or_a_cas_own(tmp_path: Path) -> None:
    hashed, own = tmp_path / "hashed", tmp_path / "own"
    hashed.mkdir()
    own.mkdir()
    (hashed / "0a1b2c3d.0").write_bytes(ISSUER)
    (hashed / "README").write_text("not looked at")
    (own / "ca.pem").write_bytes(ISSUER)
    der = Place(tmp_path).put("ca.der", CA.leaf_der)
    for path in (hashed, own, der):
        assert load_ca(path).certificates_der == (CA.leaf_der,)
        assert chain.load_trust(path)[1] == (CA.leaf,)
    before = contents_digest([hashed])
    (hashed / "0a1b2c3d.1").write_bytes(PEM)
    assert contents_digest([hashed]) != before


@pytest.mark.parametrize("kind", ["a file", "DER", "rehashed", "not hashed", "of our own CA"])
def test_a_trust_store_of_any_kind_is_the_same_for_every_command(kind: str, tmp_path: Path) -> None:
    other = made.ca("another root")
    folder, both = tmp_path / "store", {CA.leaf_der, other.leaf_der}
    folder.mkdir()
    (folder / "one.pem").write_bytes(ISSUER)
    (folder / "two.crt").write_bytes(other.leaf_der if kind == "not hashed" else other.certificate.read_bytes())
    (folder / "README").write_text("not looked at")
    path = folder
    if kind == "rehashed":
        subprocess.run(["openssl", "rehash", str(folder)], check=True)
        (folder / "three.pem").write_bytes(PEM)  # which has no link
    elif kind == "a file":
        path = Place(tmp_path).put("all.pem", ISSUER + other.certificate.read_bytes())
    elif kind == "DER":
        path, both = Place(tmp_path).put("ca.der", CA.leaf_der), {CA.leaf_der}
    elif kind == "of our own CA":
        (folder / "ca.pem").write_bytes(ISSUER)
        (folder / "ca.key").write_bytes(CA.key.read_bytes())
        both = {CA.leaf_der}
    assert set(load_ca(path).certificates_der) == both
    assert {one.public_bytes(Encoding.DER) for one in chain.load_trust(path)[1]} == both
    tls = tls_context(Admin(certificate=PAIR.certificate, key=PAIR.key, client_ca=path))
    for context in (tls, client_context(path, None, None)):
        assert context is not None
        assert set(context.get_ca_certs(binary_form=True)) == both
    assert contents_digest([path]) == load_ca(path).digest


@given(
    st.sampled_from(["*", "w*", "www", "x_y", "A-b"]),
    st.sampled_from(["www", "xn--abc", "A-b", "x_y", "other"]),
    st.lists(st.sampled_from(["www", "xn--abc", "A-b", "org", "b1"]), max_size=3),
    st.booleans(),
    st.sampled_from(["", "."]),
)
@settings(max_examples=200)
def test_names_are_matched_as_openssl_does(
    first: str, asked: str, parent: list[str], has_parent: bool, end: str
) -> None:
    name = ".".join([first, *parent])
    host = ".".join([asked, *(parent if has_parent else parent[1:])]) + end
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key(), 1, made.NOW, made.NOW)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .sign(key, hashes.SHA256())
    )
    assert covers([name], host) is is_for(certificate, host)


def test_what_is_no_certificate_in_a_folder_is_passed_over_with_a_remark(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(ISSUER)
    (tmp_path / "ca-key.pem").write_bytes(CA.key.read_bytes())
    (tmp_path / "old.cer").write_text("nothing")
    found = load_ca(tmp_path)
    assert found.certificates_der == (CA.leaf_der,)
    assert not found.is_system
    assert [line.partition(": ")[0] for line in found.remarks] == [str(tmp_path / "old.cer")]
    (tmp_path / "ca.crt").unlink()
    with pytest.raises(TunnelError, match=r"holds no certificates; name a folder with \.pem, \.crt or \.cer files"):
        load_ca(tmp_path)


def test_the_systems_trust_is_the_same_for_every_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0a1b2c3d.0").write_bytes(ISSUER)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    source, anchors = chain.load_trust(None)
    assert (source, anchors) == (f"SSL_CERT_DIR={tmp_path}", (CA.leaf,))
    assert load_system_ca().certificates_der == (CA.leaf_der,)
    other = made.issue("another root", self_signed=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(other.certificate))
    source, anchors = chain.load_trust(None)
    assert (source, anchors) == (f"{other.certificate} and SSL_CERT_DIR={tmp_path}", (other.leaf, CA.leaf))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "gone"))
    assert chain.load_trust(None) == (str(other.certificate), (other.leaf,))


def test_a_broken_certificate_in_a_bundle_is_named(tmp_path: Path) -> None:
    broken = PEM.replace(b"MIIB", b"MIIC", 1)
    path = Place(tmp_path).put("bundle.pem", [ISSUER] * 86 + [broken] + [ISSUER] * 65)
    line = 86 * ISSUER.count(b"\n") + 1
    for read in (load_ca, readers.load_certificates):
        with pytest.raises(TunnelError, match=f"line {line}: CERTIFICATE 87 of 152 is damaged; copy it anew"):
            read(path)


def test_pkcs12_that_is_cut_short_is_not_called_a_wrong_passphrase(tmp_path: Path) -> None:
    content = made.p12(PAIR, "secret").read_bytes()[:-40]
    with pytest.raises(TunnelError, match="cut short"):
        load_credential(Place(tmp_path).p12(content, b"secret"), PassphraseSource())
    with pytest.raises(TunnelError, match="cut short"):
        bundle.parse_pkcs12(content, where="x.p12", passphrases=opening("secret"))


def test_an_encrypted_key_in_der_is_not_called_a_certificate(tmp_path: Path) -> None:
    der = PAIR.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    path = Place(tmp_path).put("key.der", der)
    for read in (load_ca, readers.load_certificates):
        with pytest.raises(TunnelError, match="is an encrypted private key in DER"):
            read(path)
    assert readers.guess(der) == "key"
    assert keys.is_encrypted(der)
    assert keys.public_bytes(keys.load(path, opening("secret"))) == keys.public_bytes(PAIR.private_key)
    plain = PAIR.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert not keys.is_encrypted(plain)


def test_a_serial_number_of_zero_is_no_reason_for_a_warning_of_the_library(tmp_path: Path) -> None:
    ((_, certificate),) = elements(PAIR.leaf_der)
    to_be_signed, *signature = elements(certificate)
    version, _, *rest = elements(to_be_signed[1])
    fields = b"".join(tlv(tag, content) for tag, content in (version, (0x02, b"\0"), *rest))
    whole = tlv(0x30, tlv(0x30, fields) + b"".join(tlv(tag, content) for tag, content in signature))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = Place(tmp_path).pair(write_pem("CERTIFICATE", whole), PAIR.key)
        credential = load_credential(files, PassphraseSource())
        assert credential.serial == 0
        assert identity(credential.certificate_der).serial == 0
        [found] = readers.load_certificates(tmp_path / "server.pem")
        assert describe.certificate(found)["serial"] == "00"


def test_a_leaf_signed_with_sha_1_keeps_its_intermediate_and_verifies_nowhere(tmp_path: Path) -> None:
    parent = made.intermediate(name="an old CA", key_type="RSA 2048")
    pair = made.issue("old", dns=("old.example.org",), under=parent)
    ((_, certificate),) = elements(pair.leaf_der)
    version, serial, _, *rest = elements(elements(certificate)[0][1])
    algorithm = tlv(0x30, bytes.fromhex("06092a864886f70d0101050500"))  # sha1WithRSAEncryption
    fields = b"".join(tlv(tag, content) for tag, content in (version, serial))
    fields = tlv(0x30, fields + algorithm + b"".join(tlv(tag, content) for tag, content in rest))
    signature = parent.private_key.sign(fields, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
    leaf = tlv(0x30, fields + algorithm + tlv(0x03, b"\0" + signature))
    files = Place(tmp_path).pair([write_pem("CERTIFICATE", leaf), parent.certificate], pair.key)
    assert load_credential(files, PassphraseSource()).chain_der == (parent.leaf_der,)
    found = readers.load_certificates(tmp_path / "server.pem")
    verdict = chain.verify(found[0], found[1:], [CA.leaf], now=made.NOW)
    assert len(verdict.path) == 3
    assert verdict.problems == ("the certificate is signed with SHA-1, which can be forged",)
    forged = leaf[:-1] + bytes([leaf[-1] ^ 1])
    files = Place(tmp_path).pair([write_pem("CERTIFICATE", forged), parent.certificate], pair.key)
    assert load_credential(files, PassphraseSource()).chain_der == ()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"\xef\xbb\xbfsecret\n", "which begins with a byte order mark"),
        (b"secret \r\n", "which ends with a blank"),
        (b" secret", "which begins with a blank"),
    ],
)
def test_a_passphrase_that_opens_nothing_is_looked_at_for_what_its_owner_does_not_see(
    written: bytes, said: str, tmp_path: Path
) -> None:
    pair = made.server("localhost")
    der = pair.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    place = Place(tmp_path)
    files = place.pair(pair.certificate, encrypted(der, "secret"))
    secret = place.put("pass.txt", written)
    with pytest.raises(TunnelError, match=said) as caught:
        load_credential(replace(files, key_passphrase_file=secret), PassphraseSource())
    assert "secret" not in str(caught.value)
    with pytest.raises(TunnelError, match=said):
        keys.load(tmp_path / "server.key", PassphraseSource(file=read_file(secret)))
    content = made.p12(pair, "secret").read_bytes()
    with pytest.raises(TunnelError, match=said):
        bundle.parse_pkcs12(content, where="x.p12", passphrases=PassphraseSource(file=read_file(secret)))


@pytest.mark.parametrize(
    "change",
    [
        lambda pem: b"\xef\xbb\xbf" + pem,
        lambda pem: pem.replace(b"\n", b"\r\n"),
        lambda pem: b"".join(b"   " + line for line in pem.splitlines(keepends=True)),
        lambda pem: PEM.rstrip(b"\n") + pem,
    ],
    ids=["byte order mark", "windows line ends", "indented", "joined without a line break"],
)
def test_tunnel_and_cert_read_the_same_files_of_keys(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    files = Place(tmp_path).pair(PEM, change(PAIR.key.read_bytes()))
    assert files.key is not None
    assert load_credential(files, PassphraseSource()).certificate_der == PAIR.leaf_der
    assert keys.public_bytes(keys.load(files.key)) == keys.public_bytes(PAIR.private_key)


def test_a_link_that_leads_nowhere_is_called_that_by_every_command(tmp_path: Path) -> None:
    link = tmp_path / "link.pem"
    link.symlink_to(tmp_path / "gone.pem")
    for read in (load_ca, readers.load_certificates, keys.load):
        with pytest.raises(TunnelError, match="is a symbolic link to a file that does not exist"):
            read(link)


def test_a_request_or_a_list_that_is_damaged_is_told_without_the_words_of_a_library() -> None:
    for label, read in (("CERTIFICATE REQUEST", readers.request), ("X509 CRL", readers.revocation_lists)):
        for body in (b"MIIB", b"!!!!", b""):
            data = b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (label.encode(), body, label.encode())
            with pytest.raises(TunnelError) as caught:
                read(data, where="x.pem")  # type: ignore[operator]
            assert "faq" not in str(caught.value).lower()
            assert "http" not in str(caught.value)


def test_the_longest_rsa_key_that_openssl_takes_is_loaded_without_a_search_for_primes() -> None:
    p, q = known_primes()
    secret = pow(65537, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(65537, p * q)
    numbers = rsa.RSAPrivateNumbers(p, q, secret, secret % (p - 1), secret % (q - 1), pow(q, -1, p), public)
    key = numbers.private_key(unsafe_skip_rsa_key_validation=True)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    before = time.process_time()
    assert key_type(keys.parse(pem, where="k")) == "RSA 16384"
    assert time.process_time() - before < 10  # of the processor, which took 30 for the library's own check


def known_primes() -> tuple[int, int]:
    """Two of 8192 bits, which take long to find: those of RFC 3526 section 7, out of pi, and RFC 7919 A.5, out of e."""
    one = 1 << 8200

    def arctan_of_inverse(number: int) -> int:
        total, term, place = 0, one // number, 1
        while term:
            total += term // place if place % 4 == 1 else -(term // place)
            term //= number * number
            place += 2
        return total

    euler, term, place = 0, one, 1
    while term:
        euler, term, place = euler + term, term // place, place + 1
    pi = 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239))
    frame = (1 << 8192) - (1 << 8128) - 1
    return tuple(  # type: ignore[return-value]
        frame + ((number >> 138) + more << 64) for number, more in ((pi, 4743158), (euler, 10965728))
    )


def test_a_key_with_the_exponent_3_is_read_as_a_tunnel_reads_it(tmp_path: Path) -> None:
    key = rsa.generate_private_key(3, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    builder = x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key(), 1, made.NOW, made.NOW)
    files = Place(tmp_path).pair(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM), pem)
    assert load_credential(files, PassphraseSource()).key_type == key_type(keys.parse(pem, where="k")) == "RSA 2048"


def test_an_rsa_key_whose_halves_do_not_fit_is_refused() -> None:
    one, other = (rsa.generate_private_key(65537, 2048).private_numbers() for _ in range(2))
    mixed = rsa.RSAPrivateNumbers(
        one.p, one.q, other.d, other.dmp1, other.dmq1, one.iqmp, one.public_numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)
    with pytest.raises(TunnelError, match="damaged"):
        keys.parse(mixed.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), where="k")
