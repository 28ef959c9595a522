"""Refusals that need a daemon of their own: after a reload, without descriptors; and wordings
of which there are many of a kind: malformed beginnings, alerts from either side, the commands' own.

Golden files as in `test_refusals_golden.py`.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support import backends, certificates, clients, hellos, peers, refusals, services, tls_servers
from tests.support.refusals import Stand, compare, heard, openssl
from tests.support.services import Services
from tlstunnel.cli.options import read
from tlstunnel.config.model import Mode
from tlstunnel.proxy_protocol import _V2_SIGNATURE as SIGNATURE
from tlstunnel.tls import inventory, reasons, remedies
from tlstunnel.tools.session import session
from tlstunnel.tools.tls13.names import AlertDescription
from tlstunnel.x509.passphrase import PassphraseSource

pytestmark = [pytest.mark.interop, pytest.mark.slow]

CA = certificates.ca().certificate
HELLO = hellos.recorded("openssl-3.0")
GOOD = certificates.client("billing", ou=("finance",))
COMMON = 'certificate = "$certificate"\nkey = "$key"\ntarget = "127.0.0.1:$echo"\n'
ANY = 'client_auth = "required"\nclient_ca = "$ca"\nallow_any = true\n'


@contextlib.contextmanager
def stand(cases: dict[str, str], **more: Any) -> Iterator[Stand]:
    pair = certificates.server("localhost")
    how = {name: more.pop(name) for name in ("env", "nofile") if name in more}
    with peers.folder() as folder, backends.serve(services.greet) as echo:
        values = {"certificate": pair.certificate, "key": pair.key, "ca": CA, "echo": echo.port, **more}
        with refusals.stand(folder, cases, COMMON, values, **how) as running:
            yield running


def test_what_is_heard_after_a_reload_and_when_a_list_expires_is_what_the_golden_files_say(tmp_path: Path) -> None:
    # Good until both daemons have begun, which takes longer where others want the processors too.
    good_s = 12 * max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))
    soon = certificates.crl(next_update=certificates.datetime.now(certificates.UTC) + timedelta(seconds=good_s))
    cases = {
        "denied_on_resumption": ANY,
        "shutdown": 'drain_timeout = "200ms"\nhandshake_timeout = "10m"',  # longer than the list is good
        "crl_expired": f'{ANY}crl = "$soon"',
    }
    with stand(cases, soon=soon) as running, contextlib.ExitStack() as stack:
        daemons = (running.json, running.text)

        def session_of(port: int) -> str:
            return str(tmp_path / f"{port}.session")

        for daemon in daemons:
            port = daemon.at("denied_on_resumption")
            services.ask(port, CA, "-tls1_3", "-sess_out", session_of(port), pair=GOOD)
        half_open = {port: stack.enter_context(clients.raw(port)) for port in (d.at("shutdown") for d in daemons)}

        def until_refused(port: int) -> str:
            while "alert" not in (told := openssl(ca=CA, pair=GOOD)(port)):
                pass
            return told

        page = running.page(
            "crl_expired", "a client, when the revocation list has expired", until_refused, reason="crl_unusable"
        )
        compare("crl_expired", page)
        for daemon in daemons:
            text = daemon.config.read_text().replace("allow_any = true", 'allow_cn = "shop"')
            # The list would stop the reload: that is another story.
            daemon.config.write_text(text.partition("[services.crl_expired]")[0])
            daemon.daemon.process.send_signal(signal.SIGHUP)
        for daemon in daemons:
            daemon.daemon.until(lambda said=daemon.daemon: "reloaded " in said.text, "a reload")  # type: ignore[misc]
        page = running.page(
            "shutdown",
            "a client whose handshake is under way when a reload's drain_timeout is over",
            lambda port: heard(half_open[port]),
        )
        compare("shutdown", page)
        page = running.page(
            "denied_on_resumption",
            "a client that resumes a session from before the rules were changed",
            lambda port: openssl("-tls1_3", "-sess_in", session_of(port), ca=CA, pair=GOOD)(port),
            reason="denied",
        )
        compare("denied_on_resumption", page)
        for daemon in daemons:  # else they would be stopped with one cut, which is no good end
            daemon.daemon.until(lambda said=daemon.daemon: "drain of generation 1" in said.text, "its end")  # type: ignore[misc]


def test_what_is_heard_when_no_descriptor_is_left_for_the_target_is_what_the_golden_file_says() -> None:
    """A worker accepts no more than it has descriptors for, so somebody must lower its limit while it runs."""
    with stand({"no_descriptors": ""}) as running:

        def act(port: int) -> str:
            daemon = next(each.daemon for each in (running.json, running.text) if each.at("no_descriptors") == port)
            worker = daemon.children()[-1]  # before it comes the admin process, if there is one
            before = os.listdir(f"/proc/{worker}/fd")
            with clients.raw(port) as sock:
                while len(names := os.listdir(f"/proc/{worker}/fd")) <= len(before):  # until it is accepted
                    os.sched_yield()
                free = min(set(range(len(names) + 1)) - set(map(int, names)))
                resource.prlimit(worker, resource.RLIMIT_NOFILE, (free, free))
                client = clients.Client(sock, clients.client_context()).handshake()
                assert client.read_all() == b""
                assert client.has_close_notify
            return "a handshake, then a proper end (close_notify)"

        title = "a client that was let in when no descriptor is left for the target"
        compare("no_descriptors", running.page("no_descriptors", title, act, reason="no_descriptors"))


# Many of a kind.


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    pair = certificates.server("localhost")
    common = f'certificate = "{pair.certificate}"\nkey = "{pair.key}"'
    cases = {
        "names": '[[sni]]\nnames = ["a.example"]',
        "proxy1": "accept_proxy_protocol = true",
        "proxy2": "accept_proxy_protocol = true",
        "alerts": "",
        "required": f'client_auth = "required"\nclient_ca = "{CA}"\nallow_any = true',
    }
    with (
        backends.serve(backends.echo) as echo,
        services.run(tmp_path_factory.mktemp("batch"), echo.port, cases, common) as running,
    ):
        yield running


def said_of(running: Services, service: str, beginnings: dict[str, bytes]) -> str:
    """The reason and the detail of connections that begin so."""
    lines = []
    for name, data in beginnings.items():
        with clients.raw(running.at(service)) as sock:
            sock.sendall(data)
            clients.read_to_end(sock)
        record = running.record()
        lines.append(f"{name}: {record['reason']}: {record['detail']}\n")
    return "".join(lines)


def body(*extensions: bytes) -> bytes:
    return hellos.hello(*extensions)


def vector(size: int) -> bytes:
    return hellos.vector(bytes(size), 2)


RANDOM = b"\x03\x03" + bytes(32)
MALFORMED_HELLOS = {
    "too short": hellos.record(hellos.message(b"\x03\x03")),
    "session id": hellos.record(hellos.message(RANDOM + b"\x21" + bytes(40))),
    "suites": hellos.record(hellos.message(RANDOM + b"\0" + b"\0\1" + bytes(5))),
    "compression": hellos.record(hellos.message(RANDOM + b"\0" + b"\0\2\x13\1" + b"\xff" + bytes(3))),
    "extensions": hellos.record(hellos.message(RANDOM + b"\0" + b"\0\2\x13\1" + b"\1\0" + b"\0\x09" + bytes(3))),
    "twice": hellos.hello(hellos.extension(23, b""), hellos.extension(23, b"")),
    "cut extension": hellos.hello(b"\0\x17\0\x05"),
    "name": hellos.hello(hellos.extension(0, b"\0")),
    "two names": hellos.hello(hellos.extension(0, hellos.vector(b"\1" + hellos.vector(b"a.example", 2), 2))),
    "alpn": hellos.hello(hellos.extension(16, b"\0")),
    "another record": hellos.record(b"\1\0\1\0" + bytes(9)) + hellos.record(b"\1", kind=20),
    "empty records": hellos.record(b"") * 33,
    "long record": b"\x16\x03\x01\x40\x01" + hellos.message(bytes(0x4001 - 4)),
    "many records": hellos.fragmented(hellos.hello(hellos.extension(1, bytes(600))), 2),
    "too long": hellos.record(b"\1\1\0\1" + bytes(16_000)),
    "no hello": hellos.record(hellos.message(b"\x03\x03", kind=2)),
    "an alert first": hellos.record(b"\2\x28", kind=21),
}


def test_each_malformed_client_hello_is_named(batch: Services) -> None:
    compare("malformed_hellos", said_of(batch, "names", MALFORMED_HELLOS))


ADDRESSES = bytes((192, 0, 2, 7, 192, 0, 2, 8, 0, 7, 0, 8))


def header(content: bytes, kind: int = 0x11, command: int = 0x21) -> bytes:
    """Version 2, of any content."""
    return SIGNATURE + bytes((command, kind)) + hellos.vector(content, 2)


def tlv(kind: int, content: bytes) -> bytes:
    return bytes((kind,)) + hellos.vector(content, 2)


MALFORMED_HEADERS = {
    "no end": b"PROXY UNKNOWN " + b"x" * 107,
    "wrong end": b"PROXY UNKNOWN\n",
    "no addresses": b"PROXY TCP4 192.0.2.7\r\n",
    "family of the line": b"PROXY TCP4 2001:db8::7 192.0.2.8 7 8\r\n",
    "port": b"PROXY TCP4 192.0.2.7 192.0.2.8 70000 8\r\n",
    "command": header(ADDRESSES, command=0x22),
    "family": header(ADDRESSES, kind=0x41),
    "too long": SIGNATURE + b"\x21\x11\xff\xff",
    "too short": header(ADDRESSES[:-1]),
    "same twice": header(ADDRESSES + tlv(2, b"a") + tlv(2, b"b")),
    "unique id": header(ADDRESSES + tlv(5, bytes(129))),
    "ssl": header(ADDRESSES + tlv(0x20, bytes(4))),
    "cut": header(ADDRESSES + b"\1"),
    "longer than its header": header(ADDRESSES + b"\1\0\1"),
    "checksum's size": header(ADDRESSES + tlv(3, bytes(3))),
    "checksum": header(ADDRESSES + tlv(3, bytes(4))),
    "text": header(ADDRESSES + tlv(2, b"\xff")),
}


def test_each_malformed_proxy_header_is_named(batch: Services) -> None:
    # Of connections refused before TLS the log tells ten in ten seconds, for each service.
    text = ""
    for number, names in ((1, list(MALFORMED_HEADERS)[:10]), (2, list(MALFORMED_HEADERS)[10:])):
        text += said_of(batch, f"proxy{number}", {name: MALFORMED_HEADERS[name] for name in names})
    compare("malformed_proxy_headers", text)


def alert(name: str) -> bytes:
    return hellos.record(bytes((2, AlertDescription[name.upper()].value)), kind=21, version=0x0303)


def test_each_alert_of_a_client_is_explained(batch: Services) -> None:
    lines = []
    for name in remedies.ALERTS_OF_CLIENTS:
        with clients.raw(batch.at("alerts")) as sock:
            sock.sendall(HELLO)
            assert sock.recv(1, socket.MSG_PEEK)
            sock.sendall(alert(name))
            sock.shutdown(socket.SHUT_WR)  # in TLS 1.3 user_canceled is no end by itself
            clients.read_to_end(sock)
        record = batch.record()
        lines.append(f"{record['reason']}: {record['detail']}\n")
    compare("alerts_of_clients", "".join(lines))


def dialled(port: int, **options: Any) -> str:
    """What our own client says of a server that refuses it."""
    address = f"localhost:{port}"
    config = read(Mode.CLIENT, {"listen": ["127.0.0.1:0"], "target": [address], "ca": str(CA), **options})
    material = inventory.take(config, PassphraseSource.of_this_process())
    with pytest.raises(session.SessionError) as caught:
        trio.run(session.open_session, config.services[0], material.contexts[0])
    return f"{str(caught.value).replace(address, 'SERVER')}\n"


def test_each_alert_of_a_server_is_explained_by_our_client() -> None:
    names = list(remedies.ALERTS_OF_SERVERS)
    numbers = iter(names)
    lock = threading.Lock()

    def refuse(sock: socket.socket) -> None:
        with lock:
            name = next(numbers)
        sock.recv(65536)
        sock.sendall(alert(name))
        backends.read_all(sock)

    with backends.serve(refuse) as server:
        compare("alerts_of_servers", "".join(dialled(server.port) for _ in names))


def greets(sock: socket.socket) -> None:
    sock.sendall(b"220 mail.example ready\r\n")
    backends.read_all(sock)


def connected(port: int | str, *options: str) -> str:
    """What the command says, as its user sees it."""
    address = f"localhost:{port}" if isinstance(port, int) else port
    command = [sys.executable, "-m", "tlstunnel", "connect", address, "--ca", str(CA), *options]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    return done.stderr.replace(address, "SERVER")


def test_what_the_connect_command_says_of_a_failure_is_what_the_golden_file_says(batch: Services) -> None:
    orphan = certificates.client("orphan", authority="another CA")
    other = str(certificates.ca("another CA").certificate)
    with contextlib.ExitStack() as stack:

        def serve(handler: Callable[[socket.socket], object]) -> int:
            return stack.enter_context(backends.serve(handler)).port  # type: ignore[arg-type]

        required, web = batch.at("required"), batch.at("alerts")
        old = stack.enter_context(tls_servers.openssl(pair=certificates.expired("localhost")))
        texts = {
            "no certificate": connected(required),
            "a certificate of another CA": connected(
                required, "--cert", str(orphan.certificate), "--key", str(orphan.key)
            ),
            "a server of another CA": connected(web, "--ca", other).replace(other, "CA"),
            "a server with another name": connected(web, "--server-name", "db.example"),
            "a server with an expired certificate": connected(old),
            "a server without TLS": connected(serve(greets)),
            "a server that closes": connected(serve(lambda sock: sock.recv(65536))),
            "a server that resets": connected(serve(lambda sock: (sock.recv(65536), backends.reset(sock)))),
            "a server that is silent": dialled(serve(backends.read_all), handshake_timeout="200ms"),
            "nobody there": connected(backends.unused_port()),
            "no such name": connected("nobody.invalid:8443"),
        }
    compare("connect", "".join(f"{name}: {text}" for name, text in texts.items()))


def test_what_is_said_of_each_verdict_of_openssl_is_what_the_golden_file_says() -> None:
    page = "verdicts on certificates\n\n"
    for code in reasons.VERDICT_WORDS:
        reason, detail = reasons.classify(["certificate verify failed"], code)
        page += f"{code}: {reason.label}: {detail or reason.text}\n"
    compare("verdicts", page)
