"""What OpenSSL asks us back - protocol, client certificate, revocation list, staple - where memory that is writable is
never executable: by prctl(2), as systemd 256 forbids it, and in the unit on a real systemd 252, which filters calls.

Each with a control: pyOpenSSL's own callbacks must fail there, or the test would prove nothing.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import backends, certificates, openssl_ca, reachable, services
from tests.support.openssl_ca import Authority, Pair
from tests.support.services import GREETING, Said
from tests.support.systemd_machine import booted, why_not
from tests.support.tunnel import Tunnel
from tlstunnel.cli.systemd_units import system_units

pytestmark = [pytest.mark.slow, pytest.mark.interop]

PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
HANDSHAKE_FAILURE, REVOKED, NO_APPLICATION_PROTOCOL = 40, 44, 120
CONTROL = (
    "from OpenSSL import SSL\n"
    "try:\n    SSL.Context(SSL.TLS_METHOD).set_alpn_select_callback(lambda *_: b'')\n"
    "except MemoryError:\n    print('refused')"
)
LONG_AGO = ("-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200102000000Z")


class Site:
    """Certificates of openssl(1) for everything there is a callback for."""

    def __init__(self, folder: Path) -> None:
        self.authority: Authority = openssl_ca.make(folder)
        self.server = self.authority.issue("localhost", "subjectAltName=DNS:localhost", with_issuer=True)
        self.good, self.stranger, self.revoked = (
            self.authority.issue(name, subject=f"/CN={name}") for name in ("billing", "stranger", "revoked")
        )
        self.authority.revoke(self.revoked)
        self.crl = self.authority.crl(*LONG_AGO)
        self.staple = self.authority.answer(self.server, "-ndays", "7")

    def settings(self, place: Callable[[Path], str]) -> str:
        """The keys of the service, for files that are in that place."""
        return (
            'alpn = ["postgresql", "x"]\nalpn_required = true\nclient_auth = "required"\n'
            'allow = [{ cn = "billing" }, { cn = "revoked" }]\ncrl_expired = "warning"\n'
            f'certificate = "{place(self.server.certificate)}"\nkey = "{place(self.server.key)}"\n'
            f'client_ca = "{place(self.authority.certificate)}"\ncrl = "{place(self.crl)}"\n'
            f'ocsp_response = "{place(self.staple)}"\n'
        )

    def files(self) -> list[Path]:
        """Every file."""
        pairs = (self.server, self.good, self.stranger, self.revoked)
        return [
            self.authority.certificate,
            self.crl,
            self.staple,
            *(p for pair in pairs for p in (pair.certificate, pair.key)),
        ]

    def try_all(self, ask: Callable[..., Said]) -> None:
        """Every callback says yes and no, in both versions."""
        for version in ("-tls1_2", "-tls1_3"):
            said = ask(version, "-alpn", "y,x", "-status", pair=self.good)
            assert GREETING in said.text, said.text
            assert said.field("^ALPN protocol: (.*)") == "x"
            assert "Cert Status: good" in said.text
            assert ask(version, "-alpn", "y", pair=self.good).alert == NO_APPLICATION_PROTOCOL
            assert ask(version, "-alpn", "x", pair=self.stranger).alert == HANDSHAKE_FAILURE
            assert ask(version, "-alpn", "x", pair=self.revoked).alert == REVOKED


def under_mdwe(*command: str) -> list[str]:
    """The words that run a command with writable memory that is never executable; children inherit it."""
    program = (
        "import ctypes, os, sys\n"
        f"assert ctypes.CDLL(None).prctl({PR_SET_MDWE}, {REFUSE_EXEC_GAIN}, 0, 0, 0) == 0\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", program, *command]


def require_mdwe() -> None:
    """Linux has it from 6.3 on."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_MDWE + 1, 0, 0, 0, 0) >= 0:
        return
    message = "this kernel has no PR_SET_MDWE, which came with Linux 6.3"
    if os.environ.get("TLSTUNNEL_REQUIRE_INTEROP") == "1":
        pytest.fail(message)
    pytest.skip(message)


def test_under_prctl(tmp_path: Path) -> None:
    require_mdwe()
    control = subprocess.run(under_mdwe(sys.executable, "-c", CONTROL), capture_output=True, text=True, check=True)
    assert control.stdout == "refused\n"
    site = Site(tmp_path)
    config = tmp_path / "tunnel.toml"
    with backends.serve(services.greet) as backend:
        services.write(config, backend.port, {"web": site.settings(str)}, "")
        config.write_text(config.read_text().replace("workers = 1", "workers = 2"))
        daemon = Tunnel(under_mdwe(sys.executable, "-m", "tlstunnel", "run", str(config)))
        try:
            daemon.wait_ready()

            def ask(*options: str, pair: Pair) -> Said:
                return services.ask(daemon.port, site.authority.certificate, *options, pair=pair)

            site.try_all(ask)
            # The contexts of a reload are made in every worker: what they share must not be written to any more.
            site.authority.crl(*LONG_AGO)
            daemon.process.send_signal(signal.SIGHUP)
            daemon.message("reload", "reloaded")
            site.try_all(ask)
            daemon.stop()
        finally:
            daemon.kill()


def test_where_a_key_log_cannot_be_written_the_start_says_so(tmp_path: Path) -> None:
    """It takes a callback of pyOpenSSL's own."""
    require_mdwe()
    pair = certificates.server("localhost")
    config = tmp_path / "tunnel.toml"
    config.write_text(
        '[services.web]\nlisten = "127.0.0.1:0"\ntarget = "127.0.0.1:9"\nunsafe_keylog = true\n'
        f'certificate = "{pair.certificate}"\nkey = "{pair.key}"\n'
    )
    done = subprocess.run(
        under_mdwe(sys.executable, "-m", "tlstunnel", "run", str(config)),
        env={**os.environ, "SSLKEYLOGFILE": str(tmp_path / "keys")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"tlstunnel: {config}: services.web.unsafe_keylog: needs memory that is writable and executable, which "
        "MemoryDenyWriteExecute= forbids; leave the key out, or run without that setting for as long as it takes"
    ]


# A backend that speaks first; told to end by whoever started it.
GREETER = f"""
import socket
backend = socket.create_server(("127.0.0.1", 9))
print("up", flush=True)
while True:
    sock, _ = backend.accept()
    sock.sendall(b"{GREETING}\\n")
    sock.shutdown(socket.SHUT_WR)
    while sock.recv(4096):
        pass
    sock.close()
"""


@pytest.mark.root
def test_in_the_unit_on_a_real_systemd(tmp_path: Path) -> None:
    missing = why_not()
    if missing and os.environ.get("TLSTUNNEL_REQUIRE_INTEROP") == "1":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    (tmp_path / "ca").mkdir()
    site = Site(tmp_path / "ca")
    python = str(Path(reachable.tunnel()).with_name("python"))

    def place(path: Path) -> str:
        return f"cred:keys_{path.name}" if path == site.server.key else f"/etc/tlstunnel/{path.name}"

    with booted(tmp_path) as machine:
        unit = "MemoryDenyWriteExecute=yes"
        control = machine.run("systemd-run", "--pipe", "--wait", "--quiet", f"--property={unit}", python, "-c", CONTROL)
        assert control.stdout == "refused\n"
        for name, text in system_units(reachable.installation()).items():
            assert not name.endswith(".service") or unit in text
            machine.install(name, text)
        target = Path(f"/proc/{machine._pid}/root/etc/tlstunnel")
        for path in site.files():
            (target / "keys").mkdir(parents=True, exist_ok=True)
            (target / path.name).write_bytes(path.read_bytes())
        machine.write(f"/etc/tlstunnel/keys/{site.server.key.name}", site.server.key.read_text(), 0o600)
        service = f'[services.web]\nlisten = "127.0.0.1:8443"\ntarget = "127.0.0.1:9"\n{site.settings(place)}'
        machine.write("/etc/tlstunnel/tlstunnel.toml", service)
        backend = machine.start(python, "-c", GREETER)
        try:
            assert backend.stdout is not None
            assert backend.stdout.readline() == "up\n"
            machine.systemctl("start", "tlstunnel.service")

            def ask(*options: str, pair: Pair) -> Said:
                words = [
                    "openssl", "s_client", "-connect", "127.0.0.1:8443", "-servername", "localhost", "-ign_eof",
                    "-CAfile", place(site.authority.certificate), "-cert", place(pair.certificate),
                    "-key", f"/etc/tlstunnel/{pair.key.name}", *options,
                ]  # fmt: skip
                done = machine.run("sh", "-c", '"$@" < /dev/null 2>&1', "sh", *words, check=False)
                return Said(done.stdout, done.returncode)

            site.try_all(ask)
            site.authority.crl(*LONG_AGO)
            (target / site.crl.name).write_bytes(site.crl.read_bytes())
            machine.systemctl("reload", "tlstunnel.service")
            machine.wait_for("tlstunnel.service", "reloaded")
            site.try_all(ask)
            journal = machine.journal("tlstunnel.service")
            assert re.search("denied", journal)
            assert "ended unexpectedly" not in journal
        finally:
            backend.kill()
            backend.wait()
            for stream in (backend.stdin, backend.stdout):
                assert stream is not None
                stream.close()  # what is in the machine ends with it
