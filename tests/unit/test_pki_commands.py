"""`tlstunnel cert` as it is typed: what it prints, its exit codes, where passphrases may come from."""

from __future__ import annotations

import errno
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.material_files import opening
from tlstunnel.cli.cert import app
from tlstunnel.errors import TunnelError
from tlstunnel.tools.pki import keys, readers


class Ran:
    """One command: its exit code, its results and what it said, as `cli.app.main` would turn them out."""

    def __init__(self, *arguments: str | Path) -> None:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        self.code, self.out, self.said = result.exit_code, result.stdout, result.stderr
        if isinstance(result.exception, TunnelError):
            self.code, self.said = result.exception.exit_code, str(result.exception)
        elif result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception


def good(*arguments: str | Path) -> Ran:
    ran = Ran(*arguments)
    assert ran.code == 0, ran.said
    return ran


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ca() -> str:
    good("ca", "--out", "ca", "--name", "Example CA")
    return "ca"


def test_a_ca_and_a_servers_certificate_in_two_commands(ca: str) -> None:
    ran = good("issue", "--ca", ca, "--server", "localhost,127.0.0.1,*.example.org", "--out", "out")
    assert ran.out == "certificate: out/localhost.pem\nkey: out/localhost.key\ntrust: ca/ca.pem\n"
    shown = good("show", "out/localhost.pem", "--ca", "ca/ca.pem", "--name", "localhost").out
    assert "DNS:localhost, IP:127.0.0.1, DNS:*.example.org" in shown
    assert "89 days left" in shown
    assert "verifies    yes for localhost, against ca/ca.pem" in shown


def test_an_unencrypted_ca_key_is_pointed_out() -> None:
    assert "ca/ca.key is not encrypted" in good("ca", "--out", "ca").said


def test_show_gives_json_with_the_pin_of_the_key(ca: str) -> None:
    good("issue", "--ca", ca, "--client", "billing", "--ou", "payments, Berlin", "--uri", "spiffe://e.org/billing")
    report = json.loads(good("show", "billing.pem", "--json", "--ca", "ca/ca.pem").out)
    (item,) = report["items"]
    assert item["subject"] == "CN=billing, OU=payments\\, Berlin"
    assert item["names"] == ["URI:spiffe://e.org/billing"]
    assert report["chain"]["verifies"]
    key = json.loads(good("show", "billing.key", "--json").out)["items"][0]
    assert key["spki_pin"] == item["spki_pin"]
    assert good("show", "billing.pem", "--ca", "ca/ca.pem").out.count(item["spki_pin"]) == 1


def test_each_kind_of_file_is_shown_for_what_it_is(ca: str) -> None:
    good("request", "--server", "a.example.org")
    good("crl", "--ca", ca)
    good("self-signed", "--server", "localhost")
    good("bundle", "--cert", "localhost.pem", "--key", "localhost.key", "--out", "x.p12", "--unencrypted")
    kinds = {}
    for file in ("a.example.org.csr", "ca/crl.pem", "localhost.pem", "localhost.key", "x.p12"):
        kinds[file] = json.loads(good("show", file, "--json").out)["items"][0]["kind"]
        good("show", file)
    assert kinds == {
        "a.example.org.csr": "request",
        "ca/crl.pem": "revocation list",
        "localhost.pem": "certificate",
        "localhost.key": "private key",
        "x.p12": "certificate",
    }


def test_a_request_is_signed_renewed_and_revoked(ca: str) -> None:
    good("request", "--server", "a.example.org")
    signed = good("sign", "a.example.org.csr", "--ca", ca)
    assert "signed CN=a.example.org for DNS:a.example.org" in signed.said
    first = readers.load_certificates(Path("a.example.org.pem"))[0]
    good("renew", "a.example.org.pem", "--ca", ca, "--days", "7")
    second = readers.load_certificates(Path("a.example.org.pem"))[0]
    assert first.public_key() == second.public_key()
    good("revoke", "a.example.org.pem", "--ca", ca, "--reason", "superseded")
    shown = good("show", "ca/crl.pem").out
    assert f"{second.serial_number:X}" in shown
    assert "superseded" in shown
    assert f"{first.serial_number:X}" not in shown


def test_a_self_signed_certificate_is_renewed_with_its_key() -> None:
    good("self-signed", "--server", "localhost")
    before = readers.load_certificates(Path("localhost.pem"))[0]
    good("renew", "localhost.pem")
    after = readers.load_certificates(Path("localhost.pem"))[0]
    assert after.serial_number != before.serial_number
    assert after.public_key() == before.public_key()
    assert "verifies    yes" in good("show", "localhost.pem", "--ca", "localhost.pem").out


def test_an_intermediate_ca_issues_with_its_chain(ca: str) -> None:
    good("ca", "--intermediate", "--ca", ca, "--out", "sub", "--name", "Sub")
    ran = good("issue", "--ca", "sub", "--server", "localhost")
    assert "trust: sub/root.pem" in ran.out
    shown = good("show", "localhost.pem", "--ca", "sub/root.pem").out
    assert "verifies    yes" in shown
    assert "CA, at most 0 below it" in shown


def test_passphrases_come_from_file_environment_or_terminal_never_from_an_argument(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("pass").write_text("from a file\n")
    monkeypatch.setenv("KEY_PASS", "from the environment")
    good("ca", "--out", "ca", "--passphrase-file", "pass")
    good("issue", "--ca", "ca", "--ca-passphrase-file", "pass", "--server", "a", "--passphrase-env", "KEY_PASS")
    keys.load(Path("a.key"), opening("from the environment"))
    ran = Ran("issue", "--ca", "ca", "--server", "b")
    assert ran.code == 2
    assert ran.said.endswith("give its passphrase with --ca-passphrase-file or --ca-passphrase-env, or at a terminal")
    ran = Ran("key", "make", "--out", "x.key", "--passphrase", "hunter2")
    assert ran.code == 2
    assert "hunter2" not in ran.said
    assert not Path("x.key").exists()


def test_both_sources_of_a_passphrase_are_one_too_many() -> None:
    Path("pass").write_text("p\n")
    ran = Ran("key", "make", "--out", "x.key", "--passphrase-file", "pass", "--passphrase-env", "P")
    assert ran.code == 2
    assert ran.said == "--passphrase-file: is given beside --passphrase-env; give one of them"


@pytest.mark.slow
def test_a_passphrase_is_asked_for_on_the_terminal_without_echo(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "tlstunnel", "cert", "key", "make", "--out", str(tmp_path / "x.key"), "--encrypt"]
    # A session of its own has no /dev/tty: what is asked goes to the pty.
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    seen = b""
    answers = [(b"new passphrase for", b"hunter2\n"), (b"the same again", b"hunter2\n")]
    while True:
        try:
            seen += os.read(master, 4096)
        except OSError as exc:
            if exc.errno != errno.EIO:  # which means that the other end is gone
                raise
            break
        if answers and answers[0][0] in seen:
            os.write(master, answers.pop(0)[1])
    os.close(master)
    assert process.wait() == 0, seen
    assert b"hunter2" not in seen
    keys.load(tmp_path / "x.key", opening("hunter2"))


def test_a_key_is_encrypted_decrypted_and_its_passphrase_changed() -> None:
    Path("old").write_text("old\n")
    Path("new").write_text("new\n")
    good("key", "make", "--out", "k.key", "--key-type", "ed25519")
    ran = Ran("key", "encrypt", "k.key", "--passphrase-file", "old")
    assert (ran.code, ran.said) == (2, "k.key: would be replaced; name another file with --out, or add --force")
    good("key", "encrypt", "k.key", "--passphrase-file", "old", "--force")
    assert "encrypted already" in Ran("key", "encrypt", "k.key", "--passphrase-file", "old", "--force").said
    good("key", "passphrase", "k.key", "--passphrase-file", "old", "--new-passphrase-file", "new", "--force")
    keys.load(Path("k.key"), opening("new"))
    good("key", "decrypt", "k.key", "--passphrase-file", "new", "--out", "plain.key")
    keys.load(Path("plain.key"))
    assert Path("plain.key").stat().st_mode & 0o777 == 0o600


def test_a_bundle_goes_to_pem_and_back() -> None:
    Path("p").write_text("p\n")
    good("self-signed", "--client", "billing")
    good("bundle", "--cert", "billing.pem", "--key", "billing.key", "--out", "b.p12", "--new-passphrase-file", "p")
    good("bundle", "--p12", "b.p12", "--passphrase-file", "p", "--out", "b.pem", "--key-out", "b.key")
    assert Path("b.pem").read_bytes() == Path("billing.pem").read_bytes()
    assert b"PRIVATE" not in Path("b.pem").read_bytes()
    good("bundle", "--p12", "b.p12", "--passphrase-file", "p", "--out", "all.pem")
    assert Path("all.pem").stat().st_mode & 0o777 == 0o600
    good("bundle", "--cert", "all.pem", "--out", "c.p12", "--new-passphrase-file", "p", "--legacy")
    assert Path("c.p12").stat().st_mode & 0o777 == 0o600
    Path("q").write_text("q\n")
    ran = Ran("show", "c.p12", "--passphrase-file", "q")
    assert (ran.code, ran.said.split(";")[0]) == (2, "c.p12: is encrypted, and the passphrase in q does not open it")


WRONG = {
    "neither server nor client": (("issue", "--ca", "ca"), 2, "neither is given; say which of the two"),
    "server and client": (("issue", "--ca", "ca", "--server", "a", "--client", "b"), 2, "both are given"),
    "no name": (("issue", "--ca", "ca", "--server", ","), 2, "no name given"),
    "bad name": (("issue", "--ca", "ca", "--server", "a b"), 2, '"a b" is neither a host name nor an IP address'),
    "no ca": (("issue", "--ca", "nowhere", "--server", "a"), 2, "make one with tlstunnel cert ca --out"),
    "bad key type": (("issue", "--ca", "ca", "--server", "a", "--key-type", "dsa"), 2, "write one of p256"),
    "ou for a server": (("issue", "--ca", "ca", "--server", "a", "--ou", "x"), 2, "are for clients"),
    "too long": (("issue", "--ca", "ca", "--server", "a", "--days", "99999"), 2, "outlive the CA"),
    "bad mail address of a server": (
        ("issue", "--ca", "ca", "--server", "a", "--email", "foo"),
        2,
        '--email: "foo" is not a mail',
    ),
    "bad uri of a server": (("issue", "--ca", "ca", "--server", "a", "--uri", "foo"), 2, '--uri: "foo" is not a URI'),
    "address of an interface": (("issue", "--ca", "ca", "--server", "fe80::1%lo"), 2, "knows no interfaces"),
    "bad name of a server": (("issue", "--ca", "ca", "--server", "a", "--dns", "a@b"), 2, '--dns: "a@b" is neither'),
    "second ca": (("ca", "--out", "ca"), 2, "exists already"),
    "parent without flag": (("ca", "--out", "x", "--ca", "ca"), 2, "add --intermediate"),
    "flag without parent": (("ca", "--out", "x", "--intermediate"), 2, "add --ca DIR"),
    "bad permit": (("ca", "--out", "x", "--permit", "10.0.0.1/8"), 2, "--permit"),
    "file for a folder": (("issue", "--ca", "ca/ca.pem", "--server", "a"), 2, "is a file; name the CA's folder, ca"),
    "missing file": (("show", "missing.pem"), 1, "missing.pem: does not exist"),
    "missing request": (("sign", "missing.csr", "--ca", "ca"), 1, "missing.csr: does not exist"),
    "not a request": (
        ("sign", "ca/ca.pem", "--ca", "ca"),
        2,
        "holds CERTIFICATE but no certificate request",
    ),
    "endless": (("show", "/dev/zero"), 2, "/dev/zero: is a device; name a file"),
    "empty": (("show", "/dev/null"), 2, "/dev/null: is a device; name a file"),
    "directory": (("show", "ca"), 2, "ca: is a directory; name a file in it"),
    "bad port": (("show", "localhost:http"), 2, '"http" is not a port'),
    "bad store": (
        ("show", "ca/ca.pem", "--ca", "ca/ca.key"),
        2,
        "holds a private key but no certificate; a CA needs no key here",
    ),
    "revoke a stranger": (("revoke", "AABB", "--ca", "ca"), 2, "issued no certificate with serial AABB"),
    "revoke nothing": (("revoke", "missing.pem", "--ca", "ca"), 1, "missing.pem: does not exist"),
    "bad reason": (("revoke", "AABB", "--ca", "ca", "--reason", "why"), 2, "write one of"),
    "renew a root without its key": (("renew", "ca/ca.pem", "--key", "none.key"), 1, "none.key: does not exist"),
    "renew nothing": (("renew", "missing.pem", "--ca", "ca"), 1, "missing.pem: does not exist"),
    "new key without flag": (("renew", "x.pem", "--ca", "ca", "--encrypt"), 2, "without it the key stays as it is"),
    "bundle of nothing": (("bundle", "--out", "x.p12"), 2, "give one of them: what to read"),
    "legacy pem": (("bundle", "--cert", "x", "--out", "x.pem", "--legacy"), 2, "end it in .p12"),
    "unwritable": (("key", "make", "--out", "/proc/x.key"), 1, "/proc/x.key: "),
    "bad use": (("sign", "x.csr", "--ca", "ca", "--use", "both"), 2, "write server or client"),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_each_mistake_is_one_line_with_what_would_be_right(ca: str, case: str) -> None:
    arguments, code, what = WRONG[case]
    ran = Ran(*arguments)
    assert ran.code == code, ran.said
    assert what in ran.said
    assert "\n" not in ran.said
    assert not ran.said.endswith(".")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("issue", "--ca", "ca", "--client", "x", "--days", "99999"),
        ("issue", "--ca", "narrow", "--server", "example.org"),
        ("self-signed", "--server", "localhost", "--days", "0"),
        ("sign", "localhost.csr", "--ca", "ca", "--days", "99999"),
        ("sign", "localhost.csr", "--ca", "narrow"),
    ],
    ids=" ".join,
)
def test_what_is_refused_leaves_no_folder_behind(ca: str, words: tuple[str, ...]) -> None:
    good("ca", "--out", "narrow", "--permit", "example.com")
    good("request", "--server", "localhost")
    before = (Path("narrow/index.txt").read_text(), Path("ca/index.txt").read_text())
    assert Ran(*words, "--out", "new/folder").code == 2
    assert not Path("new").exists()
    assert (Path("narrow/index.txt").read_text(), Path("ca/index.txt").read_text()) == before


@pytest.mark.parametrize("command", ["self-signed", "request"])
def test_what_cannot_be_written_whole_is_not_left_by_halves(command: str, tmp_path: Path) -> None:
    """A disk that takes the key and no more."""
    program = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300));"
        "sys.argv = ['tlstunnel', *sys.argv[1:]]; runpy.run_module('tlstunnel', run_name='__main__')"
    )
    words = ["cert", command, "--server", "localhost", "--out", "new/folder"]
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "cannot be written" in done.stderr or "too large" in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_is_light() -> None:
    program = "import sys, tlstunnel.cli.cert; assert not {'cryptography', 'OpenSSL', 'trio'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
def test_the_whole_command_prints_one_line_and_its_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tlstunnel", "cert", "show", "missing.pem"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "tlstunnel: missing.pem: does not exist; check the path\n"
