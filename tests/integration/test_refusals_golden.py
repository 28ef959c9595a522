"""Every way in which the daemon does not set a connection up, done for real: what its client is told, what stands in
both kinds of log, and what is counted, as one golden file each.

`UPDATE_GOLDEN=1 pytest tests/integration/test_refusals_golden.py` writes them anew; read the difference as a tired
operator would before you keep it. `test_refusals_golden_complete.py` sees to it that no way is missing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests.support import backends, certificates, hellos, peers, refusals, tls_servers
from tests.support.refusal_cases import CA, CASES, REVOKED, REVOKED_SERVER
from tests.support.refusals import Stand, compare

pytestmark = [pytest.mark.interop, pytest.mark.slow]

COMMON = """certificate = "$certificate"
key = "$key"
target = "127.0.0.1:$echo"
handshake_timeout = "10s"
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Stand]:
    """Both daemons with all services, and the targets behind them."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(peers.folder())
        (folder / "closed").mkdir(0)
        folder.chmod(0o755)
        both = folder / "both.pem"
        both.write_bytes(CA.read_bytes() + certificates.ca("another CA").certificate.read_bytes())
        pair = certificates.server("localhost")
        values = {
            "certificate": pair.certificate, "key": pair.key, "ca": CA, "both": both, "folder": folder,
            "crl": certificates.crl(REVOKED.leaf, REVOKED_SERVER.leaf),
            "nobody": backends.unused_port(), "nobody2": backends.unused_port(),
            "full": stack.enter_context(full_queue()),
            **{name: stack.enter_context(target) for name, target in targets().items()},
        }  # fmt: skip
        # Root may connect to any unix socket, so we are nobody then.
        process = 'user = "nobody"' if os.geteuid() == 0 else ""
        cases = {name: case.lines for name, case in CASES.items()}
        yield stack.enter_context(refusals.stand(folder, cases, COMMON, values, process))


def targets() -> dict[str, contextlib.AbstractContextManager[int]]:
    """What stands behind the services, by the name of its port."""
    yesterday, tomorrow = certificates.NOW - timedelta(1), certificates.NOW + timedelta(1)
    week = timedelta(7)
    demand = ["-Verify", "1", "-CAfile", str(CA), "-verify_return_error"]
    return {
        "echo": served(backends.echo),
        "good": tls_target(certificates.server("localhost")),
        "nameless": tls_target(certificates.issue("localhost")),
        "old": tls_target(certificates.server("localhost", not_before=yesterday - week, not_after=yesterday)),
        "early": tls_target(certificates.server("localhost", not_before=tomorrow, not_after=tomorrow + week)),
        "revoked": tls_target(REVOKED_SERVER),
        "purpose": tls_target(certificates.issue("localhost", dns=("localhost",), purpose="client")),
        "small": tls_target(certificates.server("localhost", key_type="RSA 1024"), "@SECLEVEL=0"),
        "orphan": tls_servers.openssl(pair=certificates.server("localhost", authority="another CA")),
        "old_version": tls_servers.openssl("-tls1_2"),
        "alpn": tls_servers.openssl("-alpn", "h2"),
        "demanding": tls_servers.openssl("-tls1_3", *demand),
        "demanding_12": tls_servers.openssl("-tls1_2", *demand),
        "version_11": served(answer(hellos.record(SERVER_HELLO_11))),
        "greeting": served(answer(b"220 mail.example ready\r\n", at_once=True)),
        "closing": served(lambda sock: sock.recv(1 << 16)),  # type: ignore[arg-type, return-value]
        "resetting": served(reset_when_spoken_to),
        "mute": served(backends.read_all),  # type: ignore[arg-type]
        "nonsense": served(answer(hellos.record(hellos.message(b"nonsense", kind=2)))),
    }


SERVER_HELLO_11 = hellos.message(b"\x03\x02" + bytes(32) + b"\x00" + b"\xc0\x09" + b"\x00", kind=2)


@contextlib.contextmanager
def served(handler: backends.Handler, context: ssl.SSLContext | None = None) -> Iterator[int]:
    with backends.serve(handler, context=context) as backend:
        yield backend.port


def reset_when_spoken_to(sock: socket.socket) -> None:
    sock.recv(1 << 16)
    backends.reset(sock)


def answer(data: bytes, *, at_once: bool = False) -> backends.Handler:
    """A target that says this, whatever it was told, and then waits for the end."""

    def handler(sock: Any) -> None:
        if not at_once:
            sock.recv(1 << 16)
        sock.sendall(data)
        backends.read_all(sock)

    return handler


def tls_target(pair: certificates.Pair, ciphers: str = "") -> contextlib.AbstractContextManager[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if ciphers:
        context.set_ciphers(f"ALL:{ciphers}")
    context.load_cert_chain(pair.certificate, pair.key)
    return served(backends.echo, context)


@contextlib.contextmanager
def full_queue() -> Iterator[int]:
    """A listener whose queue is full, so that who connects waits."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.parametrize("name", CASES)
def test_what_everybody_hears_of_a_refusal_is_what_the_golden_file_says(running: Stand, name: str) -> None:
    case = CASES[name]
    compare(name, running.page(name, case.title, case.act, is_rejected=case.is_rejected))
