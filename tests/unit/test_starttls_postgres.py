"""PostgreSQL before TLS, in both modes: its documentation's messages, byte for byte."""

from __future__ import annotations

import pytest

from tests.support.dialogues import WHOLE, Dialogue, Run, backend, check, check_pipelined, client, secured, start
from tlstunnel.connection.starttls import postgres
from tlstunnel.connection.starttls.negotiation import TLS_ALERT, Reason, Verdict

SSL, GSS = bytes.fromhex("0000000804d2162f"), bytes.fromhex("0000000804d21630")
CANCEL = bytes.fromhex("0000001004d2162e") + b"pid!key!"
LONG_CANCEL = bytes.fromhex("0000002c04d2162e") + b"pid!" + bytes(32)
STARTUP = bytes.fromhex("0000001600030000") + b"user\0tester\0\0" + b"\0"
HELLO = b"\x16\x03\x01\x00\x05hello"


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (4 + len(body)).to_bytes(4) + body


NEEDS_TLS = message(
    b"E",
    b"SFATAL\0VFATAL\0C28000\0Mthis server takes encrypted connections only\0"
    b"HConnect with sslmode=require, or a stricter one.\0\0",
)
SASL_BOTH = message(b"R", b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
SASL_PLAIN = message(b"R", b"\0\0\0\x0aSCRAM-SHA-256\0\0")
SASL_PLUS = message(b"R", b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0\0")
OK = message(b"R", bytes(4))
NOTICE = message(b"N", b"Mhello\0\0")
VERSION = message(b"v", b"\0\3\0\0\0\0\0\0")


def lax() -> postgres.Server:
    return postgres.Server(required=False)


def refused(reason: Reason) -> bytes:
    return postgres.farewell(reason.text)


SERVER = [
    Dialogue("request", postgres.Server, [start(), client(SSL, b"S"), secured()], Verdict.RELAY),
    Dialogue(
        "GSSAPI first", postgres.Server, [start(), client(GSS, b"N"), client(SSL, b"S"), secured()], Verdict.RELAY
    ),
    Dialogue("TLS from the first byte", postgres.Server, [start(), client(HELLO)], Verdict.START_TLS, tls=HELLO),
    Dialogue("cancel", postgres.Server, [start(), client(CANCEL, b"", CANCEL)], Verdict.PLAINTEXT),
    Dialogue(
        "cancel with a long key, after a request that was answered N",
        postgres.Server,
        [start(), client(GSS, b"N"), client(LONG_CANCEL, b"", LONG_CANCEL)],
        Verdict.PLAINTEXT,
    ),
    Dialogue(
        "plaintext", postgres.Server, [start(), client(STARTUP, NEEDS_TLS)], Verdict.REFUSED, Reason.PLAINTEXT
    ),
    Dialogue(
        "plaintext after a request for GSSAPI", postgres.Server,
        [start(), client(GSS, b"N"), client(STARTUP, NEEDS_TLS)], Verdict.REFUSED, Reason.PLAINTEXT,
    ),
    Dialogue("plaintext that may be", lax, [start(), client(STARTUP, b"", STARTUP)], Verdict.PLAINTEXT),
    Dialogue("request that need not be", lax, [start(), client(SSL, b"S"), secured()], Verdict.RELAY),
    Dialogue(
        "the same twice", postgres.Server, [start(), client(GSS, b"N"), client(GSS)], Verdict.REFUSED, Reason.MALFORMED
    ),
    Dialogue("HTTP", postgres.Server, [start(), client(b"GET / HTTP/1.1\r\n")], Verdict.REFUSED, Reason.MALFORMED),
    Dialogue("zeros", postgres.Server, [start(), client(bytes(9))], Verdict.REFUSED, Reason.MALFORMED),
    Dialogue(
        "a cancel request that is too long", postgres.Server,
        [start(), client(bytes.fromhex("0000010d04d2162e"))], Verdict.REFUSED, Reason.MALFORMED,
    ),
    Dialogue("half a request", postgres.Server, [start(), client(SSL[:7])], Verdict.GO_ON),
    Dialogue(
        "a backend that speaks first", postgres.Server,
        [start(), backend(b"2", refused(Reason.BACKEND))], Verdict.REFUSED, Reason.BACKEND,
    ),
]  # fmt: skip
CLIENT = [
    Dialogue(
        "a client that knows no TLS", postgres.Client,
        [start(b"", SSL), backend(b"S"), client(STARTUP), secured(b"", STARTUP), backend(OK, OK)], Verdict.RELAY,
    ),
    Dialogue(
        "a client that asks first", postgres.Client,
        [start(b"", SSL), client(GSS, b"N"), client(SSL, b"N"), client(STARTUP), backend(b"S"), secured(b"", STARTUP),
         backend(OK, OK)], Verdict.RELAY,
    ),
    Dialogue(
        "cancel goes through TLS", postgres.Client,
        [start(b"", SSL), backend(b"S"), client(CANCEL), secured(b"", CANCEL)], Verdict.RELAY,
    ),
    Dialogue(
        "channel binding is taken out", postgres.Client,
        [start(b"", SSL), client(STARTUP), backend(b"S"), secured(b"", STARTUP), backend(SASL_BOTH, SASL_PLAIN),
         client(b"p\0", b"", b"p\0"), backend(b"R", b"R")], Verdict.RELAY,
    ),
    Dialogue(
        "notices come before it", postgres.Client,
        [start(b"", SSL), client(STARTUP), backend(b"S"), secured(b"", STARTUP),
         backend(NOTICE + VERSION + SASL_BOTH + OK, NOTICE + VERSION + SASL_PLAIN + OK)], Verdict.RELAY,
    ),
    Dialogue(
        "channel binding alone", postgres.Client,
        [start(b"", SSL), client(STARTUP), backend(b"S"), secured(b"", STARTUP),
         backend(SASL_PLUS, refused(Reason.BACKEND))], Verdict.REFUSED, Reason.BACKEND,
    ),
    Dialogue(
        "no TLS there", postgres.Client,
        [start(b"", SSL), backend(b"N", refused(Reason.REFUSED))], Verdict.REFUSED, Reason.REFUSED,
    ),
    Dialogue(
        "an error in place of an answer", postgres.Client,
        [start(b"", SSL), backend(b"E", refused(Reason.REFUSED))], Verdict.REFUSED, Reason.REFUSED,
    ),
    Dialogue(
        "a server that speaks TLS at once", postgres.Client,
        [start(b"", SSL), backend(b"\x15", refused(Reason.REFUSED))], Verdict.REFUSED, Reason.REFUSED,
    ),
    Dialogue(
        "a client that speaks TLS", postgres.Client,
        [start(b"", SSL), client(b"\x16", TLS_ALERT)], Verdict.REFUSED, Reason.TLS_AT_ONCE,
    ),
    Dialogue(
        "something behind S", postgres.Client,
        [start(b"", SSL), client(STARTUP), backend(b"SR", refused(Reason.INJECTED))], Verdict.REFUSED, Reason.INJECTED,
    ),
    Dialogue(
        "something behind S, while the client is silent", postgres.Client,
        [start(b"", SSL), backend(b"SR", refused(Reason.INJECTED))], Verdict.REFUSED, Reason.INJECTED,
    ),
    Dialogue(
        "no message of PostgreSQL within TLS", postgres.Client,
        [start(b"", SSL), client(STARTUP), backend(b"S"), secured(b"", STARTUP),
         backend(b"220 mail", refused(Reason.BACKEND))], Verdict.REFUSED, Reason.BACKEND,
    ),
]  # fmt: skip
ALL = SERVER + CLIENT


@pytest.mark.parametrize("dialogue", ALL, ids=str)
@pytest.mark.parametrize("size", [WHOLE, 1], ids=["whole", "byte by byte"])
def test_every_turn_is_answered_as_the_protocol_says(dialogue: Dialogue, size: int) -> None:
    check(dialogue, size)


@pytest.mark.parametrize("dialogue", ALL, ids=str)
def test_a_client_that_does_not_wait_gets_the_same_answers(dialogue: Dialogue) -> None:
    check_pipelined(dialogue)


def test_plaintext_behind_the_request_never_comes_into_the_session() -> None:
    run = Run(postgres.Server())
    run.feed("client", SSL + STARTUP)
    assert run.steps[-1].reason is Reason.INJECTED
    assert run.to_backend == b""
    assert run.to_client != b"S"


def test_plaintext_behind_the_answer_never_comes_into_the_session() -> None:
    run = Run(postgres.Server())
    run.feed("client", SSL)
    run.feed("client", STARTUP)
    assert run.steps[-1].reason is Reason.INJECTED
    assert (run.to_client, run.to_backend) == (b"S", b"")
