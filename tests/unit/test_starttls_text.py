"""SMTP, LMTP, IMAP, POP3, ManageSieve and NNTP before TLS, in both modes: dialogues, byte for byte."""

from __future__ import annotations

import re

import pytest

from tests.support.dialogues import WHOLE, Dialogue, Run, backend, check, check_pipelined, client, secured, start
from tlstunnel.connection.starttls import conversation
from tlstunnel.connection.starttls.conversation import MAX_PLAINTEXT
from tlstunnel.connection.starttls.modes import CLIENT, SERVER
from tlstunnel.connection.starttls.negotiation import TLS_ALERT, Reason, Verdict
from tlstunnel.connection.starttls.text import MAX_LINE

TEXT = ["smtp", "lmtp", "imap", "pop3", "sieve", "nntp"]


def server(name: str, *turns: object, verdict: Verdict = Verdict.RELAY, lax: bool = False, **more: object) -> Dialogue:
    protocol = name.partition(":")[0]
    return Dialogue(name, lambda: SERVER[protocol](not lax), [start(), *turns], verdict, **more)  # type: ignore[arg-type,list-item]


def asking(name: str, *turns: object, verdict: Verdict = Verdict.RELAY, **more: object) -> Dialogue:
    return Dialogue(name, CLIENT[name.partition(":")[0]], list(turns), verdict, **more)  # type: ignore[arg-type]


SMTP_GREETING = b"220 mail.example.org ESMTP\r\n"
SMTP_GO = b"220 2.0.0 Ready to start TLS\r\n"
SMTP_WAIT = b"530 5.7.0 Must issue a STARTTLS command first\r\n"
IMAP_GREETING = b"* OK ready\r\n"
IMAP_GO = b"a2 OK Begin TLS negotiation now\r\n"
POP3_GREETING = b"+OK <1.2@mail.example.org>\r\n"
POP3_GO = b"+OK Begin TLS negotiation\r\n"
SIEVE_GO = b'OK "Begin TLS negotiation now"\r\n'
NNTP_GO = b"382 Continue with TLS negotiation\r\n"

SERVERS = [
    server(
        "smtp: EHLO, STARTTLS",
        backend(SMTP_GREETING, SMTP_GREETING),
        client(b"EHLO me\r\n", b"", b"EHLO me\r\n"),
        backend(
            b"250-mail.example.org\r\n250-PIPELINING\r\n250-AUTH PLAIN\r\n250-AUTH=PLAIN\r\n250 8BITMIME\r\n",
            b"250-mail.example.org\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 STARTTLS\r\n",
        ),
        client(b"starttls\r\n", b"", b"EHLO localhost\r\n"),
        backend(b"250-mail.example.org\r\n250 8BITMIME\r\n", SMTP_GO),
        secured(),
        client(b"EHLO me\r\n", b"", b"EHLO me\r\n"),
    ),
    server(
        "smtp: one line, and lines that end in any way",
        backend(b"220-mail\n220 ready\n", b"220-mail\r\n220 ready\r\n"),
        client(b"ehlo me\n", b"", b"ehlo me\r\n"),
        backend(b"250 mail\r\n", b"250-mail\r\n250 STARTTLS\r\n"),
        client(b"STARTTLS \r\n", b"", b"EHLO localhost\r\n"),
        backend(b"250 mail\r\n", SMTP_GO),
        secured(),
    ),
    server(
        "smtp: what has to wait is refused",
        backend(SMTP_GREETING, SMTP_GREETING),
        client(b"HELO me\r\n", SMTP_WAIT),
        client(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", SMTP_WAIT + SMTP_WAIT),
        client(b"AUTH PLAIN AGEAYg==\r\n", SMTP_WAIT),
        client(b"STARTTLS now\r\n", b"501 5.5.4 Syntax error (no parameters allowed)\r\n"),
        client(b"\r\n", b"501 5.5.4 Syntax error (no parameters allowed)\r\n"),
        client(b"NOOP\r\n", b"", b"NOOP\r\n"),
        backend(b"250 ok\r\n", b"250 ok\r\n"),
        client(b"QUIT\r\n", b"", b"QUIT\r\n"),
        backend(b"221 bye\r\n", b"221 bye\r\n"),
        verdict=Verdict.REFUSED,
        reason=Reason.PLAINTEXT,
    ),
    server(
        "smtp: TLS that is not required",
        backend(SMTP_GREETING, SMTP_GREETING),
        client(b"EHLO me\r\n", b"", b"EHLO me\r\n"),
        backend(b"250-mail\r\n250 AUTH PLAIN\r\n", b"250-mail\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n"),
        client(b"MAIL FROM:<a@b>\r\n", b"", b"MAIL FROM:<a@b>\r\n"),
        client(b"STARTTLS\r\n", b"", b"STARTTLS\r\n"),
        backend(b"250 ok\r\n502 what\r\n", b"250 ok\r\n502 what\r\n"),
        lax=True,
        verdict=Verdict.PLAINTEXT,
    ),
    server(
        "smtp: the backend turns it away",
        backend(b"554-no\r\n554 go away\r\n", b"554-no\r\n554 go away\r\n"),
        verdict=Verdict.REFUSED,
        reason=Reason.BACKEND,
    ),
    server(
        "smtp: the backend is another one",
        backend(b"SSH-2.0-OpenSSH\r\n", b"421 4.7.0 the service behind this one cannot be used\r\n"),
        verdict=Verdict.REFUSED,
        reason=Reason.BACKEND,
    ),
    server(
        "smtp: a client that speaks TLS",
        client(b"\x16\x03\x01", TLS_ALERT),
        verdict=Verdict.REFUSED,
        reason=Reason.TLS_AT_ONCE,
    ),
    server(
        "smtp: a NUL",
        backend(SMTP_GREETING, SMTP_GREETING),
        client(b"EHLO a\0b\r\n", b"421 4.7.0 this is not the protocol that is spoken here\r\n"),
        verdict=Verdict.REFUSED,
        reason=Reason.MALFORMED,
    ),
    server(
        "smtp: a carriage return within a line",
        backend(SMTP_GREETING, SMTP_GREETING),
        client(b"EHLO a\rSTARTTLS\r\n", b"421 4.7.0 this is not the protocol that is spoken here\r\n"),
        verdict=Verdict.REFUSED,
        reason=Reason.MALFORMED,
    ),
    server(
        "lmtp: LHLO, STARTTLS",
        backend(b"220 mail LMTP\r\n", b"220 mail LMTP\r\n"),
        client(b"LHLO me\r\n", b"", b"LHLO me\r\n"),
        backend(b"250-mail\r\n250 STARTTLS\r\n", b"250-mail\r\n250 STARTTLS\r\n"),
        client(b"EHLO me\r\n", SMTP_WAIT),
        client(b"STARTTLS\r\n", b"", b"LHLO localhost\r\n"),
        backend(b"250 mail\r\n", SMTP_GO),
        secured(),
    ),
    server(
        "imap: CAPABILITY, STARTTLS",
        backend(
            b"* OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL+ AUTH=PLAIN] ready\r\n",
            b"* OK [CAPABILITY IMAP4rev1 LITERAL+ STARTTLS LOGINDISABLED] ready\r\n",
        ),
        client(b"a1 capability\r\n", b"", b"a1 capability\r\n"),
        backend(
            b"* CAPABILITY IMAP4rev1 AUTH=PLAIN IDLE\r\na1 OK done\r\n",
            b"* CAPABILITY IMAP4rev1 IDLE STARTTLS LOGINDISABLED\r\na1 OK done\r\n",
        ),
        client(b"a2 STARTTLS\r\n", IMAP_GO),
        secured(),
    ),
    server(
        "imap: what has to wait is refused",
        backend(IMAP_GREETING, IMAP_GREETING),
        client(b"a1 LOGIN me {5}\r\n", b"a1 NO [PRIVACYREQUIRED] TLS is required first; use STARTTLS\r\n"),
        client(b"a2 CAPABILITY {5}\r\n", b"a2 BAD this is not understood here\r\n"),
        client(b"* CAPABILITY\r\n", b"* BAD this is not understood here\r\n"),
        client(b"a{3\r\n", b"* BAD this is not understood here\r\n"),
        client(b"a4 LOGOUT\r\n", b"", b"a4 LOGOUT\r\n"),
        backend(b"* BYE\r\na4 OK\r\n", b"* BYE\r\na4 OK\r\n"),
        verdict=Verdict.REFUSED,
        reason=Reason.PLAINTEXT,
    ),
    server(
        "imap: a literal that does not wait",
        backend(IMAP_GREETING, IMAP_GREETING),
        client(
            b"a1 LOGIN me {12+}\r\na STARTTLS\r\n",
            b"a1 NO [PRIVACYREQUIRED] TLS is required first; use STARTTLS\r\n* BYE TLS is required here\r\n",
        ),
        verdict=Verdict.REFUSED,
        reason=Reason.PLAINTEXT,
    ),
    server(
        "imap: TLS that is not required",
        backend(IMAP_GREETING, IMAP_GREETING),
        client(b"a1 CAPABILITY\r\n", b"", b"a1 CAPABILITY\r\n"),
        backend(
            b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\na1 OK\r\n",
            b"* CAPABILITY IMAP4rev1 AUTH=PLAIN STARTTLS\r\na1 OK\r\n",
        ),
        client(b"a2 LOGIN me {3+}\r\nyou\r\n", b"", b"a2 LOGIN me {3+}\r\nyou\r\n"),
        lax=True,
        verdict=Verdict.PLAINTEXT,
    ),
    server(
        "imap: a backend that knows the client",
        backend(b"* PREAUTH hello\r\n", b"* BYE the service behind this one cannot be used\r\n"),
        verdict=Verdict.REFUSED,
        reason=Reason.BACKEND,
    ),
    server(
        "imap: a backend that knows the client, and TLS that is not required",
        backend(b"* PREAUTH hello\r\n", b"* PREAUTH hello\r\n"),
        lax=True,
        verdict=Verdict.PLAINTEXT,
    ),
    server(
        "pop3: CAPA, STLS",
        backend(POP3_GREETING, POP3_GREETING),
        client(b"CAPA\r\n", b"", b"CAPA\r\n"),
        backend(b"+OK\r\nUSER\r\nSASL PLAIN\r\nTOP\r\n.\r\n", b"+OK\r\nTOP\r\nSTLS\r\n.\r\n"),
        client(b"USER me\r\n", b"-ERR TLS is required first; use STLS\r\n"),
        client(b"STLS\r\n", POP3_GO),
        secured(),
    ),
    server(
        "pop3: a backend that knows no CAPA",
        backend(POP3_GREETING, POP3_GREETING),
        client(b"CAPA\r\n", b"", b"CAPA\r\n"),
        backend(b"-ERR what\r\n", b"+OK\r\nSTLS\r\n.\r\n"),
        client(b"CAPA x\r\n", b"-ERR this is not understood here\r\n"),
        client(b"QUIT\r\n", b"", b"QUIT\r\n"),
        backend(b"+OK\r\n", b"+OK\r\n"),
        verdict=Verdict.REFUSED,
        reason=Reason.PLAINTEXT,
    ),
    server(
        "pop3: TLS that is not required",
        backend(POP3_GREETING, POP3_GREETING),
        client(b"CAPA\r\n", b"", b"CAPA\r\n"),
        backend(b"+OK\r\nUSER\r\n.\r\n", b"+OK\r\nUSER\r\nSTLS\r\n.\r\n"),
        client(b"USER me\r\nPASS you\r\n", b"", b"USER me\r\nPASS you\r\n"),
        lax=True,
        verdict=Verdict.PLAINTEXT,
    ),
    server(
        "sieve: STARTTLS, and the list once more",
        backend(
            b'"IMPLEMENTATION" {9}\r\nOK server\r\n"SASL" "PLAIN"\r\n"SIEVE" "fileinto"\r\nOK "ready"\r\n',
            b'"IMPLEMENTATION" {9}\r\nOK server\r\n"SASL" ""\r\n"SIEVE" "fileinto"\r\n"STARTTLS"\r\nOK "ready"\r\n',
        ),
        client(b'NOOP "x"\r\n', b'NO "this is not understood here"\r\n'),
        client(b'PUTSCRIPT "x" ""\r\n', b'NO (ENCRYPT-NEEDED) "TLS is required first; use STARTTLS"\r\n'),
        client(b"CAPABILITY\r\n", b"", b"CAPABILITY\r\n"),
        backend(b'"SASL" "PLAIN"\r\n"STARTTLS"\r\nOK {2}\r\nme\r\n', b'"SASL" ""\r\n"STARTTLS"\r\nOK {2}\r\nme\r\n'),
        client(b"NOOP\r\n", b"", b"NOOP\r\n"),
        backend(b"OK\r\n", b"OK\r\n"),
        client(b"STARTTLS\r\n", SIEVE_GO),
        secured(b"", b"CAPABILITY\r\n"),
        backend(b'"SASL" "PLAIN"\r\nOK\r\n', b'"SASL" "PLAIN"\r\nOK\r\n'),
    ),
    server(
        "sieve: a password that does not wait",
        backend(b'"SASL" "PLAIN"\r\nOK\r\n', b'"SASL" ""\r\n"STARTTLS"\r\nOK\r\n'),
        client(
            b'AUTHENTICATE "PLAIN" {8+}\r\nAGEAYg==\r\n',
            b'NO (ENCRYPT-NEEDED) "TLS is required first; use STARTTLS"\r\nBYE "TLS is required here"\r\n',
        ),
        verdict=Verdict.REFUSED,
        reason=Reason.PLAINTEXT,
    ),
    server(
        "sieve: TLS that is not required",
        backend(b'"SASL" "PLAIN"\r\nOK\r\n', b'"SASL" "PLAIN"\r\n"STARTTLS"\r\nOK\r\n'),
        client(b'AUTHENTICATE "PLAIN"\r\n', b"", b'AUTHENTICATE "PLAIN"\r\n'),
        lax=True,
        verdict=Verdict.PLAINTEXT,
    ),
    server(
        "nntp: CAPABILITIES, STARTTLS",
        backend(b"201 news\r\n", b"201 news\r\n"),
        client(b"MODE READER\r\n", b"", b"MODE READER\r\n"),
        backend(b"200 reader\r\n", b"200 reader\r\n"),
        client(b"CAPABILITIES\r\n", b"", b"CAPABILITIES\r\n"),
        backend(
            b"101 list\r\nVERSION 2\r\nAUTHINFO USER SASL\r\nSASL PLAIN\r\nREADER\r\n.\r\n",
            b"101 list\r\nVERSION 2\r\nREADER\r\nSTARTTLS\r\n.\r\n",
        ),
        client(b"MODE STREAM\r\n", b"483 TLS is required first; use STARTTLS\r\n"),
        client(b"HELP\r\n", b"", b"HELP\r\n"),
        backend(b"100 help\r\nnone\r\n.\r\n", b"100 help\r\nnone\r\n.\r\n"),
        client(b"STARTTLS\r\n", NNTP_GO),
        secured(),
    ),
    server(
        "nntp: a backend that knows no CAPABILITIES",
        backend(b"200 news\r\n", b"200 news\r\n"),
        client(b"CAPABILITIES\r\n", b"", b"CAPABILITIES\r\n"),
        backend(b"500 what\r\n", b"101 Capability list follows\r\nVERSION 2\r\nSTARTTLS\r\n.\r\n"),
        client(b"STARTTLS x\r\n", b"501 this is not understood here\r\n"),
        verdict=Verdict.GO_ON,
    ),
    server(
        "nntp: TLS that is not required",
        backend(b"200 news\r\n", b"200 news\r\n"),
        client(b"GROUP local.test\r\n", b"", b"GROUP local.test\r\n"),
        lax=True,
        verdict=Verdict.PLAINTEXT,
    ),
]
IN_THIS_ORDER = [
    server(
        "smtp: the backend says goodbye, then TLS is asked for",
        backend(SMTP_GREETING, SMTP_GREETING),
        backend(b"421 too slow\r\n", b"421 too slow\r\n"),
        client(b"STARTTLS\r\n", b"", b"EHLO localhost\r\n"),
        verdict=Verdict.GO_ON,
    ),
    server(
        "smtp: a client that speaks TLS when it was greeted",
        backend(SMTP_GREETING, SMTP_GREETING),
        client(b"\x16\x03\x01"),
        verdict=Verdict.REFUSED,
        reason=Reason.TLS_AT_ONCE,
    ),
]
CLIENTS = [
    asking(
        "smtp: asked for",
        start(),
        backend(b"220-mail\r\n220 ready\r\n", b"", b"EHLO localhost\r\n"),
        backend(b"250-mail\r\n250 STARTTLS\r\n", b"", b"STARTTLS\r\n"),
        client(b"EHLO me\r\n"),
        backend(b"220 go\r\n"),
        secured(b"220-mail\r\n220 ready\r\n", b"EHLO me\r\n"),
        backend(b"250-mail\r\n250 AUTH PLAIN\r\n", b"250-mail\r\n250 AUTH PLAIN\r\n"),
    ),
    asking(
        "smtp: not offered",
        start(),
        backend(SMTP_GREETING, b"", b"EHLO localhost\r\n"),
        backend(b"250 mail\r\n", b"421 4.7.0 the server does not go on to TLS\r\n"),
        verdict=Verdict.REFUSED,
        reason=Reason.REFUSED,
    ),
    asking(
        "smtp: injected behind the go-ahead",
        start(),
        backend(SMTP_GREETING, b"", b"EHLO localhost\r\n"),
        backend(b"250-mail\r\n250 STARTTLS\r\n", b"", b"STARTTLS\r\n"),
        backend(b"220 go\r\n250 evil\r\n", b"421 4.7.0 plaintext came where TLS had to begin\r\n"),
        verdict=Verdict.REFUSED,
        reason=Reason.INJECTED,
    ),
    asking(
        "smtp: a server that speaks TLS at once",
        start(),
        backend(b"\x15\x03\x01", b"421 4.7.0 the server does not go on to TLS\r\n"),
        verdict=Verdict.REFUSED,
        reason=Reason.REFUSED,
    ),
    asking(
        "lmtp: asked for",
        start(),
        backend(SMTP_GREETING, b"", b"LHLO localhost\r\n"),
        backend(b"250-mail\r\n250 STARTTLS\r\n", b"", b"STARTTLS\r\n"),
        backend(b"220 go\r\n"),
        secured(SMTP_GREETING),
    ),
    asking(
        "imap: asked for, and the list of before is forgotten",
        start(),
        backend(b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] hi\r\n", b"", b"a1 CAPABILITY\r\n"),
        backend(b"* CAPABILITY IMAP4rev1 STARTTLS\r\na1 OK\r\n", b"", b"a2 STARTTLS\r\n"),
        backend(b"a2 OK\r\n"),
        secured(b"* OK hi\r\n"),
    ),
    asking(
        "imap: PREAUTH",
        start(),
        backend(b"* PREAUTH hi\r\n", b"* BYE the server does not go on to TLS\r\n"),
        verdict=Verdict.REFUSED,
        reason=Reason.REFUSED,
    ),
    asking(
        "pop3: asked for",
        start(),
        backend(POP3_GREETING, b"", b"STLS\r\n"),
        backend(b"+OK\r\n"),
        secured(POP3_GREETING),
    ),
    asking(
        "pop3: injected behind the go-ahead",
        start(),
        backend(POP3_GREETING, b"", b"STLS\r\n"),
        backend(b"+OK\r\n+OK 2 mails\r\n", b"-ERR plaintext came where TLS had to begin\r\n"),
        verdict=Verdict.REFUSED,
        reason=Reason.INJECTED,
    ),
    asking(
        "sieve: asked for",
        start(),
        backend(b'"STARTTLS"\r\nOK\r\n', b"", b"STARTTLS\r\n"),
        backend(b"OK\r\n"),
        secured(),
        backend(b'"SASL" "PLAIN"\r\nOK\r\n', b'"SASL" "PLAIN"\r\nOK\r\n'),
    ),
    asking(
        "nntp: asked for",
        start(),
        backend(b"200 news\r\n", b"", b"CAPABILITIES\r\n"),
        backend(b"101 list\r\nSTARTTLS\r\n.\r\n", b"", b"STARTTLS\r\n"),
        backend(b"382 go\r\n"),
        secured(b"200 news\r\n"),
    ),
    asking(
        "nntp: a client that speaks TLS", start(), client(b"\x16", TLS_ALERT), verdict=Verdict.REFUSED,
        reason=Reason.TLS_AT_ONCE,
    ),
]  # fmt: skip
ALL = SERVERS + CLIENTS
GREETINGS = {
    "smtp": SMTP_GREETING, "lmtp": SMTP_GREETING, "imap": IMAP_GREETING, "pop3": POP3_GREETING,
    "sieve": b"OK\r\n", "nntp": b"200 news\r\n",
}  # fmt: skip
ASK = {"imap": b"a2 STARTTLS\r\n", "pop3": b"STLS\r\n"}


@pytest.mark.parametrize("dialogue", ALL + IN_THIS_ORDER, ids=str)
@pytest.mark.parametrize("size", [WHOLE, 1], ids=["whole", "byte by byte"])
def test_every_turn_is_answered_as_the_protocol_says(dialogue: Dialogue, size: int) -> None:
    check(dialogue, size)


@pytest.mark.parametrize("dialogue", ALL, ids=str)
def test_a_client_that_does_not_wait_gets_the_same_answers(dialogue: Dialogue) -> None:
    check_pipelined(dialogue)


def test_every_protocol_in_lines_is_tried_in_both_modes() -> None:
    assert {dialogue.name.partition(":")[0] for dialogue in SERVERS} == set(TEXT)
    assert {dialogue.name.partition(":")[0] for dialogue in CLIENTS} == set(TEXT)


@pytest.mark.parametrize("protocol", TEXT)
@pytest.mark.parametrize("how", ["in one piece", "while the backend forgets", "behind the go-ahead"])
def test_nothing_behind_the_request_comes_into_the_session(protocol: str, how: str) -> None:
    run = Run(SERVER[protocol](True))
    run.feed("backend", GREETINGS[protocol])
    ask, evil = ASK.get(protocol, b"STARTTLS\r\n"), b"EVIL\r\n"
    if how == "in one piece":
        run.feed("client", ask + evil)
    elif how == "while the backend forgets":
        run.feed("client", ask)
        run.feed("client", evil)
        run.feed("backend", b"250 ok\r\n")
    else:
        run.feed("client", ask)
        run.feed("backend", b"250 ok\r\n")
        run.feed("client", evil)
    run.step(run.negotiation.secured())
    assert run.verdict is Verdict.REFUSED
    assert Reason.INJECTED in {step.reason for step in run.steps}
    assert b"EVIL" not in run.to_backend + run.to_client


@pytest.mark.parametrize("protocol", TEXT)
@pytest.mark.parametrize("lax", [False, True])
def test_a_line_without_end_is_refused_in_the_words_of_the_protocol(protocol: str, lax: bool) -> None:
    run = Run(SERVER[protocol](not lax))
    run.feed("backend", GREETINGS[protocol])
    run.to_client = b""
    run.feed("client", b"x" * (MAX_LINE + 1), size=100)
    assert run.steps[-1].reason is Reason.TOO_LONG
    assert run.to_client == run.negotiation.farewell(Reason.TOO_LONG.text)
    assert b"too much was said before TLS" in run.to_client


@pytest.mark.parametrize("protocol", TEXT)
def test_a_client_that_never_asks_for_tls_is_left(protocol: str) -> None:
    run = Run(SERVER[protocol](True))
    run.feed("backend", GREETINGS[protocol])
    run.feed("client", b"x y\r\n" * (MAX_PLAINTEXT // 5 + 1), size=1000)
    assert run.steps[-1].reason is Reason.TOO_LONG
    assert run.to_backend == b""


@pytest.mark.parametrize("protocol", TEXT)
def test_a_client_that_speaks_and_leaves_without_tls_is_no_silent_one(protocol: str) -> None:
    run = Run(SERVER[protocol](True))
    run.feed("backend", GREETINGS[protocol])
    assert run.negotiation.why_left == ""
    run.feed("client", b"a NOOP\r\n")
    assert run.negotiation.why_left.startswith("it left without asking for TLS; switch STARTTLS on in it")


@pytest.mark.parametrize("protocol", TEXT)
def test_a_backend_that_talks_without_end_is_left(protocol: str) -> None:
    for negotiation in (SERVER[protocol](True), CLIENT[protocol]()):
        run = Run(negotiation)
        run.step(negotiation.start())
        run.feed("backend", b'"220-more"\r\n' * (MAX_PLAINTEXT // 12 + 1), size=1000)
        assert run.verdict is Verdict.REFUSED


@pytest.mark.parametrize("protocol", TEXT)
def test_a_farewell_is_one_line_of_ascii_whatever_it_says(protocol: str) -> None:
    said = SERVER[protocol](True).farewell('a "quoted"\r\nline of \\ Müller \0')
    assert said.endswith(b"\r\n")
    assert said.count(b"\n") == said.count(b"\r") == 1
    assert said.isascii()
    assert said.count(b'"') in {0, 2}


class Counting:
    """A pattern that counts what it is searched in."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern
        self.searched = 0

    def search(self, data: bytes) -> re.Match[bytes] | None:
        self.searched += len(data)
        return self._pattern.search(data)


@pytest.mark.parametrize("size", [WHOLE, 1])
@pytest.mark.parametrize("mode", ["server", "client"])
def test_a_line_of_many_literals_is_looked_through_once(monkeypatch: pytest.MonkeyPatch, mode: str, size: int) -> None:
    """A worker serves nobody else meanwhile, and in client mode anybody on the way can send one."""
    pattern = Counting(conversation.LITERAL)
    monkeypatch.setattr(conversation, "LITERAL", pattern)
    run = Run(SERVER["sieve"](True) if mode == "server" else CLIENT["sieve"]())
    run.step(run.negotiation.start())
    said = b"{0}\r\n" * 1000
    run.feed("backend", said, size)
    assert pattern.searched <= len(said)


@pytest.mark.parametrize("mode", ["server", "client"])
def test_the_end_of_a_literal_is_no_beginning_of_another(mode: str) -> None:
    """What stands in a literal and what stands behind it are two things."""
    run = Run(SERVER["sieve"](True) if mode == "server" else CLIENT["sieve"]())
    run.step(run.negotiation.start())
    run.feed("backend", b'"A" {1}\r\n{99}\r\n"STARTTLS"\r\nOK "ready"\r\n')
    assert run.to_client.endswith(b'OK "ready"\r\n') if mode == "server" else run.to_backend == b"STARTTLS\r\n"
