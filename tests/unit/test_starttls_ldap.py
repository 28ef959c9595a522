"""LDAP before TLS, in both modes: messages of RFC 4511, byte for byte."""

from __future__ import annotations

import pytest

from tests.support.dialogues import WHOLE, Dialogue, Run, backend, check, check_pipelined, client, secured, start
from tlstunnel.connection.starttls import ldap
from tlstunnel.connection.starttls.modes import CLIENT
from tlstunnel.connection.starttls.negotiation import TLS_ALERT, Reason, Verdict

OID = b"1.3.6.1.4.1.1466.20037"
START = bytes.fromhex("301d02010177188016") + OID
START_7 = bytes.fromhex("301e0202070077188016") + OID  # message 1792
GO = bytes.fromhex("302402010178 1f0a010004000400 8a16") + OID
GO_7 = bytes.fromhex("30250202070078 1f0a010004000400 8a16") + OID
BIND = bytes.fromhex("300c020102600702010304008000")
NEEDED = b"\x0a\x01\x0d\x04\x00\x04\x1aStartTLS is required first"
UNBIND = bytes.fromhex("30050201034200")


def answered(number: int, kind: int) -> bytes:
    return bytes([0x30, len(NEEDED) + 5, 2, 1, number, kind, len(NEEDED)]) + NEEDED


def notice(code: int, text: bytes) -> bytes:
    result = bytes([0x0A, 1, code, 4, 0, 4, len(text)]) + text + b"\x8a\x16" + b"1.3.6.1.4.1.1466.20036"
    return bytes([0x30, len(result) + 5, 2, 1, 0, 0x78, len(result)]) + result


def lax() -> ldap.Server:
    return ldap.Server(required=False)


MALFORMED = notice(2, Reason.MALFORMED.text.encode())
TOO_LONG, REFUSED, INJECTED = (
    notice(52, reason.text.encode()) for reason in (Reason.TOO_LONG, Reason.REFUSED, Reason.INJECTED)
)
FAILURE = bytes.fromhex("300c02010178070a010204000400")
SUCCESS = bytes.fromhex("300c02010178070a010004000400")
DIALOGUES = [
    Dialogue("StartTLS", ldap.Server, [start(), client(START, GO), secured(), client(BIND, b"", BIND)], Verdict.RELAY),
    Dialogue("any message number", ldap.Server, [start(), client(START_7, GO_7), secured()], Verdict.RELAY),
    Dialogue(
        "a bind has to wait", ldap.Server, [start(), client(BIND, answered(2, 0x61)), client(START, GO), secured()],
        Verdict.RELAY,
    ),
    Dialogue(
        "a bind with a long length", ldap.Server,
        [start(), client(b"\x30\x84\0\0\0\x0c" + BIND[2:], answered(2, 0x61))], Verdict.GO_ON,
    ),
    Dialogue(
        "a search has to wait", ldap.Server,
        [start(), client(bytes.fromhex("30050201056300"), answered(5, 0x65))], Verdict.GO_ON,
    ),
    Dialogue(
        "a deletion has to wait", ldap.Server,
        [start(), client(bytes.fromhex("30060201054a0178"), answered(5, 0x6B))], Verdict.GO_ON,
    ),
    Dialogue(
        "who am I has to wait", ldap.Server,
        [start(), client(bytes.fromhex("3008020105 7703 8001 31"), answered(5, 0x78))], Verdict.GO_ON,
    ),
    Dialogue("abandon", ldap.Server, [start(), client(bytes.fromhex("3006020103500102"))], Verdict.GO_ON),
    Dialogue("unbind", ldap.Server, [start(), client(UNBIND)], Verdict.REFUSED, Reason.PLAINTEXT),
    Dialogue("TLS that is not required", lax, [start(), client(BIND + START, b"", BIND + START)], Verdict.PLAINTEXT),
    Dialogue("HTTP", ldap.Server, [start(), client(b"GET /", MALFORMED)], Verdict.REFUSED, Reason.MALFORMED),
    Dialogue(
        "message 0 is the server's", ldap.Server, [start(), client(b"\x30\x1d\x02\x01\0" + START[5:], MALFORMED)],
        Verdict.REFUSED, Reason.MALFORMED,
    ),
    Dialogue("no length", ldap.Server, [start(), client(b"\x30\x80", MALFORMED)], Verdict.REFUSED, Reason.MALFORMED),
    Dialogue("no content", ldap.Server, [start(), client(b"\x30\0", MALFORMED)], Verdict.REFUSED, Reason.MALFORMED),
    Dialogue(
        "a length that lies", ldap.Server, [start(), client(b"\x30\5\2\1\1\x77\x7f", MALFORMED)], Verdict.REFUSED,
        Reason.MALFORMED,
    ),
    Dialogue(
        "a long message", ldap.Server, [start(), client(b"\x30\x82\xff\xff", TOO_LONG)],
        Verdict.REFUSED, Reason.TOO_LONG,
    ),
    Dialogue(
        "an answer", ldap.Server, [start(), client(SUCCESS, MALFORMED)],
        Verdict.REFUSED, Reason.MALFORMED,
    ),
    Dialogue(
        "a backend that speaks first", ldap.Server, [start(), backend(b"2", notice(52, Reason.BACKEND.text.encode()))],
        Verdict.REFUSED, Reason.BACKEND,
    ),
    Dialogue("TLS at once", ldap.Server, [start(), client(b"\x16", TLS_ALERT)], Verdict.REFUSED, Reason.TLS_AT_ONCE),
    Dialogue(
        "asked for", CLIENT["ldap"],
        [start(b"", START), client(BIND), backend(GO), secured(b"", BIND), backend(b"x", b"x")], Verdict.RELAY,
    ),
    Dialogue(
        "not to be had", CLIENT["ldap"],
        [start(b"", START), backend(FAILURE, REFUSED)],
        Verdict.REFUSED, Reason.REFUSED,
    ),
    Dialogue(
        "something behind success", CLIENT["ldap"],
        [start(b"", START), backend(SUCCESS + b"0", INJECTED)],
        Verdict.REFUSED, Reason.INJECTED,
    ),
]  # fmt: skip


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=str)
@pytest.mark.parametrize("size", [WHOLE, 1], ids=["whole", "byte by byte"])
def test_every_turn_is_answered_as_the_protocol_says(dialogue: Dialogue, size: int) -> None:
    if size == 1 and dialogue.reason is Reason.INJECTED:
        return  # what comes later is refused as well, see below
    check(dialogue, size)


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=str)
def test_a_client_that_does_not_wait_gets_the_same_answers(dialogue: Dialogue) -> None:
    check_pipelined(dialogue)


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_bind_behind_starttls_never_comes_into_the_session(is_cut: bool) -> None:
    run = Run(ldap.Server())
    for piece in [START, BIND] if is_cut else [START + BIND]:
        run.feed("client", piece)
    assert run.steps[-1].reason is Reason.INJECTED
    assert run.to_backend == b""
    assert run.to_client == (GO if is_cut else INJECTED)
