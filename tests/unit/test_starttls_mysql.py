"""MySQL before TLS, in both modes: packets of its connection phase, byte for byte, and their numbers within TLS."""

from __future__ import annotations

import pytest

from tests.support.dialogues import WHOLE, Dialogue, Run, Turn, backend, check, check_pipelined, client, secured, start
from tlstunnel.connection.starttls import mysql
from tlstunnel.connection.starttls.negotiation import TLS_ALERT, Negotiation, Reason, Verdict

WITH, WITHOUT = 0xA28D | 0x0800, 0xA28D & ~0x0800


def packet(number: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([number]) + body


def greeting(flags: int) -> bytes:
    body = b"\x0a10.11.6-MariaDB\0" + b"\1\0\0\0" + b"saltsalt\0" + flags.to_bytes(2, "little")
    return packet(0, body + b"\x2d\2\0\xff\x81\x15" + bytes(10) + b"saltsaltsalt\0mysql_native_password\0")


def start_of(flags: int) -> bytes:
    return flags.to_bytes(2, "little") + b"\xbf\x20" + b"\0\0\0\1" + b"\x2d" + bytes(23)


def login(number: int, flags: int) -> bytes:
    return packet(number, start_of(flags) + b"tester\0\x14" + b"p" * 20 + b"mysql_native_password\0")


def error(number: int, code: int, text: str) -> bytes:
    return packet(number, b"\xff" + code.to_bytes(2, "little") + b"#HY000" + text.encode())


def lax() -> mysql.Server:
    return mysql.Server(required=False)


REQUEST = packet(1, start_of(WITH))
SWITCH, ANSWER, OK = b"\xfemysql_native_password\0salt\0", b"p" * 20, b"\0\0\0\2\0\0\0"


def early(reason: Reason) -> bytes:
    """An error in place of a greeting has no SQLSTATE."""
    return packet(0, b"\xff\x51\x04" + reason.text.encode())


def dialogue(
    name: str, make: type[Negotiation], *turns: Turn, verdict: Verdict = Verdict.REFUSED, reason: Reason | None = None
) -> Dialogue:
    return Dialogue(name, make, [start(), *turns], verdict, reason)


GREETED = backend(greeting(WITHOUT), greeting(WITH))
OFFERED = backend(greeting(WITH), greeting(WITHOUT))
HELLO = b"\x16\x03\x01"
COM_QUERY = packet(0, b"\3select 1")
DIALOGUES = [
    dialogue(
        "server: the numbers of the login are put right, those of commands are not",
        mysql.Server, GREETED, client(REQUEST), secured(),
        client(login(2, WITH), b"", login(1, WITHOUT)),
        backend(packet(2, SWITCH), packet(3, SWITCH)),
        client(packet(4, ANSWER), b"", packet(3, ANSWER)),
        backend(packet(4, OK), packet(5, OK)),
        client(COM_QUERY, b"", COM_QUERY),
        backend(packet(1, b"\1"), packet(1, b"\1")),
        verdict=Verdict.RELAY,
    ),
    dialogue(
        "server: an empty packet, and a login that fails",
        mysql.Server, GREETED, client(REQUEST), secured(),
        client(login(2, WITH), b"", login(1, WITHOUT)),
        backend(packet(2, SWITCH), packet(3, SWITCH)),
        client(packet(4, b""), b"", packet(3, b"")),
        backend(packet(4, b"\xff\x15\4#28000no"), packet(5, b"\xff\x15\4#28000no")),
        verdict=Verdict.RELAY,
    ),
    dialogue(
        "server: a login without TLS", mysql.Server, GREETED,
        client(login(1, WITHOUT), error(2, 3159, Reason.PLAINTEXT.text)), reason=Reason.PLAINTEXT,
    ),
    dialogue(
        "server: a login without TLS that need not have it", lax, GREETED,  # type: ignore[arg-type]
        client(login(1, WITHOUT), b"", login(1, WITHOUT)), backend(packet(2, OK), packet(2, OK)),
        verdict=Verdict.PLAINTEXT,
    ),
    dialogue(
        "server: the backend greets with an error", mysql.Server,
        backend(packet(0, b"\xff\x69\4no host"), packet(0, b"\xff\x69\4no host")), reason=Reason.BACKEND,
    ),
    dialogue(
        "server: the backend is another one", mysql.Server, backend(packet(0, b"\x09no"), early(Reason.BACKEND)),
        reason=Reason.BACKEND,
    ),
    dialogue(
        "server: an empty greeting", mysql.Server, backend(packet(0, b""), early(Reason.BACKEND)), reason=Reason.BACKEND
    ),
    dialogue(
        "server: a backend in lines", mysql.Server, backend(b"220 mail", early(Reason.BACKEND)), reason=Reason.BACKEND
    ),
    dialogue(
        "server: half a login", mysql.Server, GREETED,
        client(packet(1, b"\x85\xa2"), error(2, 1105, Reason.MALFORMED.text)), reason=Reason.MALFORMED,
    ),
    dialogue(
        "server: a login of MySQL 4.0", mysql.Server, GREETED,
        client(packet(1, bytes(40)), error(2, 1105, Reason.MALFORMED.text)), reason=Reason.MALFORMED,
    ),
    dialogue(
        "server: a login with another number", mysql.Server, GREETED,
        client(login(7, WITH), error(8, 1105, Reason.MALFORMED.text)), reason=Reason.MALFORMED,
    ),
    dialogue(
        "client: the numbers of the login are put right, those of commands are not",
        mysql.Client, OFFERED, client(login(1, WITHOUT), b"", REQUEST), secured(b"", login(2, WITH)),
        backend(packet(3, SWITCH), packet(2, SWITCH)),
        client(packet(3, ANSWER), b"", packet(4, ANSWER)),
        backend(packet(5, OK), packet(4, OK)),
        client(COM_QUERY, b"", COM_QUERY),
        backend(packet(1, b"\1"), packet(1, b"\1")),
        verdict=Verdict.RELAY,
    ),
    dialogue(
        "client: no TLS there", mysql.Client, backend(greeting(WITHOUT), early(Reason.REFUSED)), reason=Reason.REFUSED
    ),
    dialogue(
        "client: a client that asks for TLS", mysql.Client, OFFERED,
        client(REQUEST, error(2, 1105, Reason.MALFORMED.text)), reason=Reason.MALFORMED,
    ),
]  # fmt: skip
IN_THIS_ORDER = [
    dialogue(
        "server: a backend that speaks out of turn", mysql.Server, GREETED,
        backend(b"\1", error(2, 1105, Reason.BACKEND.text)), reason=Reason.BACKEND,
    ),
    dialogue(
        "client: something behind the greeting", mysql.Client, OFFERED,
        backend(b"\1", error(2, 1105, Reason.INJECTED.text)), reason=Reason.INJECTED,
    ),
    dialogue(
        "server: TLS before the greeting", mysql.Server, client(HELLO, TLS_ALERT), reason=Reason.TLS_AT_ONCE
    ),
    dialogue("client: TLS behind the greeting", mysql.Client, OFFERED, client(HELLO), reason=Reason.TLS_AT_ONCE),
]  # fmt: skip


@pytest.mark.parametrize("dialogue", DIALOGUES + IN_THIS_ORDER, ids=str)
@pytest.mark.parametrize("size", [WHOLE, 1], ids=["whole", "byte by byte"])
def test_every_turn_is_answered_as_the_protocol_says(dialogue: Dialogue, size: int) -> None:
    check(dialogue, size)


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=str)
def test_a_client_that_does_not_wait_gets_the_same_answers(dialogue: Dialogue) -> None:
    check_pipelined(dialogue)


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_login_behind_the_request_never_comes_into_the_session(is_cut: bool) -> None:
    run = Run(mysql.Server())
    run.feed("backend", greeting(WITHOUT))
    for piece in [REQUEST, login(2, WITH)] if is_cut else [REQUEST + login(2, WITH)]:
        run.feed("client", piece)
    assert run.steps[-1].reason is Reason.INJECTED
    assert run.to_backend == b""


def test_a_client_that_begins_tls_with_its_request_loses_nothing_of_it() -> None:
    run = Run(mysql.Server())
    run.feed("backend", greeting(WITHOUT))
    run.feed("client", REQUEST + HELLO)
    assert (run.verdict, run.tls) == (Verdict.START_TLS, HELLO)
    run.step(run.negotiation.secured())
    assert run.tls == HELLO
    run.feed("client", login(2, WITH))
    assert run.to_backend == login(1, WITHOUT)


def test_a_packet_whose_length_begins_as_tls_does_is_a_packet() -> None:
    for size in (0x0116, 0x0316):
        body = start_of(WITHOUT).ljust(size, b"\0")
        run = Run(mysql.Server(required=False))
        run.feed("backend", greeting(WITHOUT))
        run.feed("client", packet(1, body), size=1)
        assert run.verdict is Verdict.PLAINTEXT
        assert run.to_backend == packet(1, body)


def test_the_number_of_a_packet_goes_round() -> None:
    run = Run(mysql.Server())
    run.feed("backend", greeting(WITHOUT))
    run.feed("client", REQUEST)
    run.step(run.negotiation.secured())
    run.to_client = run.to_backend = b""
    run.feed("backend", packet(255, SWITCH))
    run.feed("client", login(0, WITH))
    assert run.to_client == packet(0, SWITCH)
    assert run.to_backend == login(255, WITHOUT)
