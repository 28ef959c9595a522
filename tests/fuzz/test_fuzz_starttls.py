"""Whatever is said before TLS, a negotiation answers: it goes on, refuses, or begins TLS with nothing left over."""

from __future__ import annotations

import pytest
from hypothesis import assume
from hypothesis import strategies as st

from tests.support.dialogues import Run
from tests.support.fuzzing import fuzz
from tlstunnel.connection.starttls import imap, nntp, pop3, sieve, smtp, xmpp
from tlstunnel.connection.starttls.conversation import MAX_PLAINTEXT
from tlstunnel.connection.starttls.modes import CLIENT, SERVER
from tlstunnel.connection.starttls.negotiation import Reason, Verdict
from tlstunnel.connection.starttls.text import Dialect

pytestmark = pytest.mark.slow

DIALECTS: dict[str, Dialect] = {
    "smtp": smtp.SMTP, "lmtp": smtp.LMTP, "imap": imap.IMAP, "pop3": pop3.POP3, "sieve": sieve.SIEVE, "nntp": nntp.NNTP,
}  # fmt: skip
SECRET = b"hunter2"
WORDS: dict[str, tuple[list[bytes], list[bytes]]] = {
    "smtp": (
        [
            b"EHLO me\r\n",
            b"STARTTLS\r\n",
            b"AUTH PLAIN hunter2\r\n",
            b"NOOP\r\n",
            b"MAIL FROM:<hunter2@x>\r\n",
            b"RSET\r\n",
        ],
        [b"220 hi\r\n", b"220-hi\r\n", b"250-x\r\n", b"250 STARTTLS\r\n", b"250 x\r\n", b"421 bye\r\n", b"554 no\r\n"],
    ),
    "imap": (
        [
            b"a CAPABILITY\r\n",
            b"b STARTTLS\r\n",
            b"c LOGIN x hunter2\r\n",
            b"d LOGIN {7+}\r\nhunter2\r\n",
            b"e NOOP\r\n",
        ],
        [
            b"* OK hi\r\n",
            b"* OK [CAPABILITY A STARTTLS] x\r\n",
            b"* CAPABILITY STARTTLS AUTH=X\r\n",
            b"a OK\r\n",
            b"e OK\r\n",
            b"a1 OK\r\n",
            b"a2 OK\r\n",
            b"a2 NO\r\n",
            b"* BYE\r\n",
            b"* PREAUTH x\r\n",
        ],
    ),
    "pop3": (
        [b"CAPA\r\n", b"STLS\r\n", b"USER x\r\nPASS hunter2\r\n", b"QUIT\r\n"],
        [b"+OK\r\n", b"+OK <x>\r\n", b"SASL X\r\n", b"STLS\r\n", b".\r\n", b"-ERR\r\n"],
    ),
    "sieve": (
        [b"CAPABILITY\r\n", b"STARTTLS\r\n", b'AUTHENTICATE "PLAIN" {7+}\r\nhunter2\r\n', b"NOOP\r\n", b"LOGOUT\r\n"],
        [
            b"OK\r\n",
            b'"SASL" "X"\r\n',
            b'"STARTTLS"\r\n',
            b'"X" {3}\r\nOK \r\n',
            b"OK {2}\r\nhi\r\n",
            b"NO\r\n",
            b"BYE\r\n",
        ],
    ),
    "nntp": (
        [b"CAPABILITIES\r\n", b"STARTTLS\r\n", b"AUTHINFO PASS hunter2\r\n", b"MODE READER\r\n", b"GROUP hunter2\r\n"],
        [b"200 hi\r\n", b"101 x\r\n", b"STARTTLS\r\n", b".\r\n", b"382 x\r\n", b"500 x\r\n", b"100 x\r\n"],
    ),
    "postgres": (
        [
            bytes.fromhex("0000000804d2162f"),
            bytes.fromhex("0000000804d21630"),
            bytes.fromhex("0000001100030000") + b"hunter2\0\0",
        ],
        [
            b"S",
            b"N",
            b"R\0\0\0\x08\0\0\0\0",
            b"R\0\0\0\x1c\0\0\0\x0aSCRAM-SHA-256-PLUS\0\0",
            b"E\0\0\0\x05\0",
            b"N\0\0\0\4",
        ],
    ),
}
LDAP_START = bytes.fromhex("301d02010177188016") + b"1.3.6.1.4.1.1466.20037"
LDAP_DONE = bytes.fromhex("300c02010178070a010004000400")
WORDS["ldap"] = (
    [LDAP_START, b"\x30\x13\x02\x01\x02\x60\x0e\x02\x01\x03\x04\x00\x80\x07hunter2", b"\x30\x05\x02\x01\x03\x42\x00"],
    [LDAP_DONE, bytes.fromhex("300c02010178070a013404000400")],
)
MYSQL_GREETING = b"\x32\0\0\0\x0a8.0\0" + bytes(4) + b"saltsalt\0\xff\xff" + bytes(30)
MYSQL_LOGIN = b"\x28\0\0\1\x85\xa2" + bytes(30) + b"hunter2\0"
MYSQL_START = b"\x20\0\0\1\x85\xaa" + bytes(30)
WORDS["mysql"] = (
    [MYSQL_START, MYSQL_LOGIN, b"\x28\0\0\2" + MYSQL_LOGIN[4:], b"\7\0\0\3hunter2"],
    [MYSQL_GREETING, b"\3\0\0\2\xfex\0", b"\3\0\0\2\0\0\0", b"\3\0\0\3\0\0\0", b"\3\0\0\0\xff\1\1"],
)
XMPP_OPEN = (
    b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='x.example' "
    b"version='1.0'>"
)
XMPP_START, XMPP_PROCEED = (
    b"<%s xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>" % word for word in (b"starttls", b"proceed")
)
XMPP_FEATURES = (
    b"<stream:features>" + XMPP_START + b"<mechanisms><mechanism>X</mechanism></mechanisms></stream:features>"
)
WORDS["xmpp"] = (
    [XMPP_OPEN, XMPP_START, b"<auth>hunter2</auth>", b"<?xml version='1.0'?>", b"</stream:stream>", b"<!--x-->", b" "],
    [
        XMPP_OPEN,
        XMPP_FEATURES,
        XMPP_PROCEED,
        b"</stream:stream>",
        b"<stream:error><x/></stream:error>",
        b"<a>",
        b"</a>",
    ],
)
WORDS["lmtp"] = ([b"LHLO me\r\n", *WORDS["smtp"][0]], WORDS["smtp"][1])


STARTUP = bytes.fromhex("0000001100030000") + b"hunter2\0\0"
# How each protocol comes to TLS.
SERVER_READY: dict[str, list[tuple[str, bytes]]] = {
    "smtp": [("backend", b"220 x\r\n"), ("client", b"STARTTLS\r\n"), ("backend", b"250 x\r\n")],
    "imap": [("backend", b"* OK\r\n"), ("client", b"a STARTTLS\r\n")],
    "pop3": [("backend", b"+OK\r\n"), ("client", b"STLS\r\n")],
    "sieve": [("backend", b"OK\r\n"), ("client", b"STARTTLS\r\n")],
    "nntp": [("backend", b"200\r\n"), ("client", b"STARTTLS\r\n")],
    "postgres": [("client", bytes.fromhex("0000000804d2162f"))],
}
SERVER_READY["ldap"] = [("client", LDAP_START)]
SERVER_READY["mysql"] = [("backend", MYSQL_GREETING), ("client", MYSQL_START)]
SERVER_READY["xmpp"] = [("client", XMPP_OPEN), ("client", XMPP_START)]
SERVER_READY["lmtp"] = SERVER_READY["smtp"]
CLIENT_READY: dict[str, list[tuple[str, bytes]]] = {
    "smtp": [("backend", line) for line in (b"220 x\r\n", b"250-x\r\n250 STARTTLS\r\n", b"220 x\r\n")],
    "imap": [("backend", line) for line in (b"* OK\r\n", b"* CAPABILITY STARTTLS\r\na1 OK\r\n", b"a2 OK\r\n")],
    "pop3": [("backend", b"+OK\r\n"), ("backend", b"+OK\r\n")],
    "sieve": [("backend", b'"STARTTLS"\r\nOK\r\n'), ("backend", b"OK\r\n")],
    "nntp": [("backend", line) for line in (b"200\r\n", b"101 x\r\nSTARTTLS\r\n.\r\n", b"382 x\r\n")],
    "postgres": [("client", STARTUP), ("backend", b"S")],
}
CLIENT_READY["ldap"] = [("backend", LDAP_DONE)]
CLIENT_READY["mysql"] = [("backend", MYSQL_GREETING), ("client", MYSQL_LOGIN)]
CLIENT_READY["xmpp"] = [("client", XMPP_OPEN), ("backend", XMPP_OPEN + XMPP_FEATURES), ("backend", XMPP_PROCEED)]
CLIENT_READY["lmtp"] = CLIENT_READY["smtp"]


def turns(protocol: str) -> st.SearchStrategy[list[tuple[str, bytes]]]:
    """What the two sides say: words of the protocol, parts of them, and anything else."""
    clients, backends = WORDS[protocol]

    def spoken(words: list[bytes]) -> st.SearchStrategy[bytes]:
        whole = st.sampled_from(words)
        part = st.builds(lambda word, size: word[:size], whole, st.integers(1, 8))
        return st.lists(
            st.one_of(whole, whole, whole, part, st.binary(min_size=1, max_size=12)), min_size=1, max_size=3
        ).map(b"".join)

    said = st.one_of(
        st.tuples(st.just("client"), spoken(clients)),
        st.tuples(st.just("backend"), spoken(backends)),
        st.tuples(st.just("secured"), st.just(b"")),
    )
    return st.lists(said, max_size=10)


both = st.sampled_from(sorted(SERVER)).flatmap(lambda name: st.tuples(st.just(name), turns(name)))
sizes = st.sampled_from([1, 2, 3, 7, 1 << 20])


def play(run: Run, said: list[tuple[str, bytes]], size: int) -> None:
    """Feed it all, and hold what must be true of every answer."""
    run.step(run.negotiation.start())
    for who, data in said:
        if who == "secured":
            run.step(run.negotiation.secured())
        else:
            run.feed(who, data, size)
    for before, step in zip(run.steps, run.steps[1:], strict=False):
        if before.verdict is Verdict.REFUSED:
            assert (step.verdict, step.to_client, step.to_backend) == (Verdict.REFUSED, b"", b"")
        if step.reason is not None:
            assert step.verdict is Verdict.REFUSED
            assert step.detail.isprintable()
            assert step.to_backend == b""


@fuzz(both, sizes, st.booleans(), st.booleans(), examples=300)
def test_no_dialogue_breaks_server_mode(
    case: tuple[str, list[tuple[str, bytes]]], size: int, required: bool, is_late: bool
) -> None:
    protocol, said = case
    begun = [*SERVER_READY[protocol], ("secured", b"")] if is_late else []
    play(Run(SERVER[protocol](required)), begun + said, size)


@fuzz(both, sizes, st.booleans(), examples=300)
def test_no_dialogue_breaks_client_mode(case: tuple[str, list[tuple[str, bytes]]], size: int, is_late: bool) -> None:
    protocol, said = case
    begun = [*CLIENT_READY[protocol], ("secured", b"")] if is_late else []
    play(Run(CLIENT[protocol]()), begun + said, size)


@fuzz(
    st.sampled_from(sorted(DIALECTS)).flatmap(lambda name: st.tuples(st.just(name), turns(name))), sizes, examples=300
)
def test_only_harmless_commands_reach_the_backend_before_tls(
    case: tuple[str, list[tuple[str, bytes]]], size: int
) -> None:
    protocol, said = case
    dialect, run = DIALECTS[protocol], Run(SERVER[protocol](True))
    play(run, said, size)
    passed = b"".join(step.to_backend for step in _plaintext(run))
    assert passed == b"" or passed.endswith(b"\r\n")
    for line in passed.split(b"\r\n")[:-1]:
        words = line.decode("ascii", "backslashreplace").upper().split()[1 if dialect.has_tags else 0 :]
        assert words
        assert line + b"\r\n" == dialect.reset or not dialect.before.isdisjoint((words[0], " ".join(words[:2])))


@fuzz(both, sizes, examples=300)
def test_no_plaintext_of_a_client_that_has_to_ask_comes_into_its_session(
    case: tuple[str, list[tuple[str, bytes]]], size: int
) -> None:
    protocol, said = case
    run = Run(SERVER[protocol](True))
    play(run, said, size)
    assert not any(SECRET in step.to_backend for step in _plaintext(run))
    for number, step in enumerate(run.steps[1:], 1):
        if step.verdict is Verdict.RELAY and run.steps[number - 1].verdict is Verdict.START_TLS:
            assert step.to_backend == (DIALECTS[protocol].first if protocol in DIALECTS else b"")


@fuzz(both, sizes, examples=300)
def test_no_secret_of_a_client_is_sent_before_tls_stands(case: tuple[str, list[tuple[str, bytes]]], size: int) -> None:
    protocol, said = case
    run = Run(CLIENT[protocol]())
    play(run, said, size)
    assert not any(SECRET in step.to_backend for step in _plaintext(run))


@fuzz(both, st.sampled_from([1, 2, 3, 7]), st.booleans(), examples=300)
def test_no_answer_depends_on_how_the_network_cuts(
    case: tuple[str, list[tuple[str, bytes]]], size: int, is_server: bool
) -> None:
    protocol, said = case
    server = SERVER[protocol] if protocol != "xmpp" else lambda _: xmpp.Server("1")  # else each has another name
    whole, cut = (Run(server(True) if is_server else CLIENT[protocol]()) for _ in range(2))
    play(whole, said, 1 << 20)
    play(cut, said, size)
    assert cut.verdict is whole.verdict
    assert [step.reason for step in cut.steps if step.reason] == [step.reason for step in whole.steps if step.reason]
    if whole.verdict is not Verdict.REFUSED:
        assert (cut.to_client, cut.to_backend, cut.tls) == (whole.to_client, whole.to_backend, whole.tls)


def _plaintext(run: Run) -> list:  # type: ignore[type-arg]
    """The steps before TLS stood."""
    for number, step in enumerate(run.steps[1:], 1):
        if run.steps[number - 1].verdict is Verdict.START_TLS and step.verdict is not Verdict.START_TLS:
            return run.steps[:number]
    return run.steps


@fuzz(st.sampled_from(sorted(SERVER)), st.booleans(), st.booleans(), st.binary(min_size=1, max_size=20))
def test_no_one_can_talk_without_end(protocol: str, is_server: bool, is_client: bool, piece: bytes) -> None:
    run = Run(SERVER[protocol](True) if is_server else CLIENT[protocol]())
    run.step(run.negotiation.start())
    data = piece * (MAX_PLAINTEXT // len(piece) + 1)
    run.feed("client" if is_client else "backend", data, 1 << 12)
    assert run.verdict in {Verdict.REFUSED, Verdict.START_TLS, Verdict.PLAINTEXT}


@fuzz(st.sampled_from(sorted(SERVER)), st.booleans(), st.booleans(), st.binary(min_size=1, max_size=40), sizes)
def test_nothing_that_comes_between_the_go_ahead_and_tls_is_ever_used(
    protocol: str, is_server: bool, is_pipelined: bool, evil: bytes, size: int
) -> None:
    # MySQL's clients begin TLS without an answer: there this one byte is that of TLS.
    assume(protocol != "mysql" or evil[0] != 0x16)
    ready = (SERVER_READY if is_server else CLIENT_READY)[protocol]
    run = Run(SERVER[protocol](True) if is_server else CLIENT[protocol]())
    side = "client" if is_server else "backend"
    if is_pipelined:
        last = max(number for number, (who, _) in enumerate(ready) if who == side)
        ready = [(who, data + evil if number == last else data) for number, (who, data) in enumerate(ready)]
        play(run, ready, 1 << 20)
    else:
        play(run, ready, size)
        assert run.verdict is Verdict.START_TLS
        run.feed(side, evil, size)
    assert run.verdict is Verdict.REFUSED
    assert [step.reason for step in run.steps if step.reason] == [Reason.INJECTED]
    said = (run.to_client, run.to_backend)
    run.step(run.negotiation.secured())
    assert (run.to_client, run.to_backend) == said
