"""STARTTLS, from the client's side: each protocol's words, its refusals, and nothing trusted that came before TLS."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import strategies as st

from tests.support.fuzzing import fuzz
from tlstunnel.connection.starttls import ldap, mysql, postgres
from tlstunnel.connection.starttls.conversation import MAX_PLAINTEXT, StartTLSError
from tlstunnel.connection.starttls.modes import ASK

GREETING = bytes([10]) + b"8.0.36\0" + bytes(4) + b"saltsalt" + b"\0" + (0xFFFF).to_bytes(2, "little") + bytes(30)
LDAP_SUCCESS = bytes.fromhex("300c02010178070a010004000400")
# What the server says, in turns, and what the client must have said by then.
GOOD: dict[str, list[tuple[bytes, bytes]]] = {
    "smtp": [
        (b"220 mail.example.org ESMTP\r\n", b"EHLO localhost\r\n"),
        (b"250-mail.example.org\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 8BITMIME\r\n", b"STARTTLS\r\n"),
        (b"220 2.0.0 go ahead\r\n", b""),
    ],
    "imap": [
        (b"* OK ready\r\n", b"a1 CAPABILITY\r\n"),
        (b"* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\na1 OK done\r\n", b"a2 STARTTLS\r\n"),
        (b"a2 OK begin TLS\r\n", b""),
    ],
    "pop3": [(b"+OK ready\r\n", b"STLS\r\n"), (b"+OK begin\r\n", b"")],
    "lmtp": [
        (b"220 mail.example.org LMTP\r\n", b"LHLO localhost\r\n"),
        (b"250-mail.example.org\r\n250-PIPELINING\r\n250 STARTTLS\r\n", b"STARTTLS\r\n"),
        (b"220 2.0.0 go ahead\r\n", b""),
    ],
    "sieve": [
        (b'"IMPLEMENTATION" {13}\r\nOK\r\nexample 1\r\n"SASL" ""\r\n"STARTTLS"\r\nOK "ready"\r\n', b"STARTTLS\r\n"),
        (b'OK "begin"\r\n', b""),
    ],
    "nntp": [
        (b"201 news.example.org ready\r\n", b"CAPABILITIES\r\n"),
        (b"101 list follows\r\nVERSION 2\r\nREADER\r\nSTARTTLS\r\n.\r\n", b"STARTTLS\r\n"),
        (b"382 go ahead\r\n", b""),
    ],
    "postgres": [(b"", postgres.SSL_REQUEST), (b"S", b"")],
    "ldap": [(b"", ldap.request()), (LDAP_SUCCESS, b"")],
    "mysql": [(len(GREETING).to_bytes(3, "little") + b"\0" + GREETING, mysql.ssl_request(1))],
}


def talk(protocol: str, turns: list[bytes], *, chunk: int = 1 << 20) -> tuple[list[bytes], bool]:
    """What the client says after each of the server's turns, and whether it is ready for TLS."""
    conversation = ASK[protocol]()
    said: list[bytes] = []
    outgoing, is_ready = next(conversation), False

    def speak() -> bytes:
        nonlocal outgoing, is_ready
        words = b""
        while outgoing and not is_ready:
            words += outgoing
            try:
                outgoing = conversation.send(b"")
            except StopIteration:
                is_ready = True
        return words

    for turn in turns:
        if not turn:
            said.append(speak())
            continue
        for start in range(0, len(turn), chunk):
            speak()
            try:
                outgoing = conversation.send(turn[start : start + chunk])
            except StopIteration:
                is_ready = True
        said.append(speak())
    return said, is_ready


@pytest.mark.parametrize("protocol", GOOD)
@pytest.mark.parametrize("chunk", [1 << 20, 1], ids=["at once", "byte by byte"])
def test_each_protocol_reaches_tls_however_the_bytes_are_cut(protocol: str, chunk: int) -> None:
    said, is_ready = talk(protocol, [turn for turn, _ in GOOD[protocol]], chunk=chunk)
    assert is_ready
    assert said == [words for _, words in GOOD[protocol]]


@pytest.mark.parametrize("protocol", GOOD)
def test_plaintext_behind_the_go_ahead_is_refused(protocol: str) -> None:
    turns = [turn for turn, _ in GOOD[protocol]]
    with pytest.raises(StartTLSError, match="plaintext behind its go-ahead"):
        talk(protocol, [*turns[:-1], turns[-1] + b"* 1 EXISTS\r\n"])


REFUSALS: list[tuple[str, list[bytes], str]] = [
    ("smtp", [b"554 go away\r\n"], 'the SMTP server turns us away with "554 go away"; look at its'),
    ("smtp", [b"220 x\r\n", b"250 8BITMIME\r\n"], "does not offer STARTTLS"),
    ("smtp", [b"220 x\r\n", b"250 STARTTLS\r\n", b"454 no\r\n"], '"454 no"'),
    ("smtp", [b"SSH-2.0\r\n"], '"SSH-2.0", not that of an SMTP server'),
    ("lmtp", [b"554 x\r\n"], 'the LMTP server turns us away with "554 x"'),
    ("imap", [b"* BYE\r\n"], "the IMAP server turns us away"),
    ("imap", [b"* OK\r\n", b"* CAPABILITY IMAP4rev1\r\na1 OK\r\n"], "does not offer STARTTLS"),
    ("imap", [b"* OK\r\n", b"a1 BAD what\r\n"], '"a1 BAD what"'),
    ("imap", [b"* OK\r\n", b"* CAPABILITY STARTTLS\r\na1 OK\r\n", b"a2 NO\r\n"], '"a2 NO"'),
    ("pop3", [b"-ERR\r\n"], "the POP3 server turns us away"),
    ("pop3", [b"+OK\r\n", b"-ERR unknown\r\n"], '"-ERR unknown"'),
    ("lmtp", [b"220 x\r\n", b"500 what\r\n"], 'the LMTP server answers LHLO with "500 what"'),
    ("lmtp", [b"220 x\r\n", b"250 8BITMIME\r\n"], "the LMTP server does not offer STARTTLS"),
    ("sieve", [b"* OK\r\n"], '"* OK", not that of a ManageSieve server'),
    ("sieve", [b'BYE "busy"\r\n'], 'the ManageSieve server turns us away with "BYE "busy""'),
    ("sieve", [b'"SASL" "PLAIN"\r\nOK\r\n'], "does not offer STARTTLS"),
    ("sieve", [b'"STARTTLS"\r\nOK\r\n', b'NO "no"\r\n'], "answers STARTTLS with"),
    ("nntp", [b"400 busy\r\n"], "the news server turns us away"),
    ("nntp", [b"200 x\r\n", b"500 what\r\n"], 'answers CAPABILITIES with "500 what"'),
    ("nntp", [b"200 x\r\n", b"101 x\r\nREADER\r\n.\r\n"], "does not offer STARTTLS"),
    ("nntp", [b"200 x\r\n", b"101 x\r\nSTARTTLS\r\n.\r\n", b"580 no\r\n"], 'STARTTLS with "580 no"'),
    ("postgres", [b"", b"N"], "ssl = off"),
    ("postgres", [b"", b"E"], "not as PostgreSQL does"),
    ("ldap", [b"", b"HTTP/1.1 400 Bad Request\r\n"], "does not answer as LDAP does"),
    ("ldap", [b"", bytes.fromhex("300c02010178070a013404000400")], "refuses StartTLS: unavailable"),
    ("ldap", [b"", bytes.fromhex("300c02010178070a014104000400")], "refuses StartTLS: result 65"),
    ("ldap", [b"", bytes.fromhex("300c02010161070a010004000400")], "does not answer as LDAP does"),
    ("ldap", [b"", bytes.fromhex("3085000000000c")], "does not answer as LDAP does"),
    ("ldap", [b"", bytes.fromhex("3084ffffffff")], "does not answer as LDAP does"),
    ("ldap", [b"", bytes.fromhex("30020201")], "does not answer as LDAP does"),
    ("ldap", [b"", bytes.fromhex("300102")], "does not answer as LDAP does"),
    ("mysql", [b"220 mail.example.org\r\n"], "does not greet as MySQL does"),
    ("mysql", [b"\x05\0\0\0\xff\x10\x04no"], 'refuses: "no"'),
    ("mysql", [b"\x0a\0\0\0\x09" + b"5.0\0" + bytes(5)], "does not greet as MySQL does"),
    ("mysql", [b"\x14\0\0\0\x0a" + b"5.0\0" + bytes(15)], "does not offer TLS"),
]  # fmt: skip


@pytest.mark.parametrize(("protocol", "turns", "why"), REFUSALS, ids=[f"{p}: {w}" for p, _, w in REFUSALS])
def test_a_server_that_does_not_go_on_to_tls_is_told_apart(protocol: str, turns: list[bytes], why: str) -> None:
    with pytest.raises(StartTLSError) as caught:
        talk(protocol, turns)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_stranger_says_cannot_steer_the_terminal() -> None:
    with pytest.raises(StartTLSError) as caught:
        talk("smtp", [b"554 \x1b[31m" + b"x" * 500 + b"\r\n"])
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_server_that_talks_without_end_is_left() -> None:
    with pytest.raises(StartTLSError, match="over 64 KiB before TLS"):
        talk("smtp", [b"220-more\r\n" * (MAX_PLAINTEXT // 10 + 1)])


@fuzz(st.sampled_from(sorted(ASK)), st.lists(st.binary(max_size=60), max_size=6), examples=300)
def test_no_answer_breaks_a_conversation(protocol: str, turns: list[bytes]) -> None:
    with contextlib.suppress(StartTLSError):
        talk(protocol, turns)


def _cut_of(protocol: str) -> Callable[[int], bytes]:
    whole = b"".join(turn for turn, _ in GOOD[protocol])
    return lambda size: whole[:size]


@fuzz(st.sampled_from(sorted(ASK)), st.integers(0, 80), st.binary(max_size=20), examples=300)
def test_no_answer_that_begins_well_breaks_a_conversation(protocol: str, size: int, rest: bytes) -> None:
    with contextlib.suppress(StartTLSError):
        talk(protocol, [_cut_of(protocol)(size) + rest])
