"""XMPP before TLS, in both modes: streams of RFC 6120, byte for byte."""

from __future__ import annotations

import pytest

from tests.support.dialogues import WHOLE, Dialogue, Run, Turn, backend, check, check_pipelined, client, secured, start
from tlstunnel.connection.starttls import xmpp
from tlstunnel.connection.starttls.modes import ALWAYS_REQUIRED, SERVER
from tlstunnel.connection.starttls.negotiation import TLS_ALERT, Negotiation, Reason, Verdict

NS = b"xmlns:stream='http://etherx.jabber.org/streams'"
TLS = b"xmlns='urn:ietf:params:xml:ns:xmpp-tls'"
OPEN = b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' " + NS + b" %sversion='1.0'>"
TO = OPEN % b"to='example.org' "
FROM = OPEN % b"id='1' from='example.org' "
START, PROCEED = b"<starttls " + TLS + b"/>", b"<proceed " + TLS + b"/>"
FEATURES = b"<stream:features><starttls " + TLS + b"><required/></starttls></stream:features>"
END = b"</stream:stream>"
SASL = b"<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>"
OFFER = b"<stream:features>\n" + SASL + b"<starttls " + TLS + b"/></stream:features>"


def server() -> Negotiation:
    return xmpp.Server("1")


def asking() -> Negotiation:
    return xmpp.Client("1")


def error(reason: Reason, condition: bytes = b"undefined-condition", header: bytes = b"") -> bytes:
    errors = b"xmlns='urn:ietf:params:xml:ns:xmpp-streams'"
    text = b"<text " + errors + b">" + reason.text.encode() + b"</text>"
    return header + b"<stream:error><" + condition + b" " + errors + b"/>" + text + b"</stream:error></stream:stream>"


NOBODY = OPEN % b"id='1' "
GREETED = client(TO, FROM + FEATURES)
ALONE, REFUSED = error(Reason.MALFORMED, header=NOBODY), error(Reason.REFUSED, header=FROM)
NO_ADDRESS = error(Reason.MALFORMED, b"improper-addressing", NOBODY)


def served(name: str, *turns: Turn, verdict: Verdict = Verdict.REFUSED, reason: Reason | None = None) -> Dialogue:
    return Dialogue(f"server: {name}", server, [start(), *turns], verdict, reason)


def asked(name: str, *turns: Turn, verdict: Verdict = Verdict.REFUSED, reason: Reason | None = None) -> Dialogue:
    return Dialogue(f"client: {name}", asking, [start(), client(TO, b"", TO), *turns], verdict, reason)


DIALOGUES = [
    served(
        "a stream, starttls", GREETED, client(START, PROCEED), secured(), client(TO, b"", TO),
        verdict=Verdict.RELAY,
    ),
    served(
        "the same in other words",
        client(
            b'<s:stream\n to = "example.org" xmlns="jabber:client" version="1.0" xml:lang="de>" '
            b'xmlns:s="http://etherx.jabber.org/streams" >\n',
            FROM + FEATURES,
        ),
        client(b'\n<t:starttls xmlns:t="urn:ietf:params:xml:ns:xmpp-tls"></t:starttls>', PROCEED),
        secured(),
        verdict=Verdict.RELAY,
    ),
    served(
        "between servers, to nobody in particular",
        client((OPEN % b"").replace(b":client", b":server"), NOBODY.replace(b":client", b":server") + FEATURES),
        client(START, PROCEED), secured(), verdict=Verdict.RELAY,
    ),
    served("the end", GREETED, client(END, END), reason=Reason.PLAINTEXT),
    served(
        "a password in plaintext", client(TO, FROM + FEATURES),
        client(b"<auth mechanism='PLAIN'>", error(Reason.PLAINTEXT, b"policy-violation")), reason=Reason.PLAINTEXT,
    ),
    served(
        "a starttls of another namespace", client(TO, FROM + FEATURES),
        client(b"<starttls/>", error(Reason.PLAINTEXT, b"policy-violation")), reason=Reason.PLAINTEXT,
    ),
    served(
        "something within starttls", client(TO, FROM + FEATURES),
        client(START[:-2] + b"><x/>", error(Reason.PLAINTEXT, b"policy-violation")), reason=Reason.PLAINTEXT,
    ),
    served(
        "an old stream", client(TO.replace(b" version='1.0'>", b">"),
        error(Reason.MALFORMED, b"unsupported-version", FROM)), reason=Reason.MALFORMED,
    ),
    served(
        "another language", client(b"<html>", error(Reason.MALFORMED, b"invalid-namespace", NOBODY)),
        reason=Reason.MALFORMED,
    ),
    served(
        "an address that is none", client(OPEN % b"to='a&lt;b' ", NO_ADDRESS),
        reason=Reason.MALFORMED,
    ),
    served("no XML", client(b"GET /", ALONE), reason=Reason.MALFORMED),
    served("a NUL", client(b"\0", ALONE), reason=Reason.MALFORMED),
    served("entities", client(b"<!", ALONE), reason=Reason.MALFORMED),
    served("a comment", GREETED, client(b"<!", error(Reason.MALFORMED)), reason=Reason.MALFORMED),
    served("an instruction", GREETED, client(b"<?", error(Reason.MALFORMED)), reason=Reason.MALFORMED),
    served("text", GREETED, client(b"x", error(Reason.MALFORMED)), reason=Reason.MALFORMED),
    served("half a tag", client(TO[:-1]), verdict=Verdict.GO_ON),
    served("TLS at once", client(b"\x16", TLS_ALERT), reason=Reason.TLS_AT_ONCE),
    asked(
        "asked for", backend(FROM), backend(OFFER, b"", START), client(b"<auth/>"), backend(PROCEED),
        secured(b"", TO + b"<auth/>"), backend(FROM, FROM), verdict=Verdict.RELAY,
    ),
    asked(
        "asked for in other words", backend(FROM + b"\n" + OFFER, b"", START),
        backend(b"<proceed " + TLS + b"></proceed>"), secured(b"", TO), verdict=Verdict.RELAY,
    ),
    asked(
        "not offered", backend(FROM), backend(b"<stream:features/>", REFUSED),
        reason=Reason.REFUSED,
    ),
    asked(
        "offered in another namespace", backend(FROM),
        backend(b"<stream:features><starttls/></stream:features>", REFUSED),
        reason=Reason.REFUSED,
    ),
    asked(
        "offered where it does not count", backend(FROM),
        backend(b"<stream:features><x>" + START + b"</x></stream:features>", REFUSED),
        reason=Reason.REFUSED,
    ),
    asked(
        "a failure", backend(FROM), backend(OFFER, b"", START),
        backend(b"<failure " + TLS + b"/>", REFUSED), reason=Reason.REFUSED,
    ),
    asked("an error", backend(FROM), backend(b"<stream:error>", REFUSED), reason=Reason.REFUSED),
    asked("the end", backend(FROM), backend(END, REFUSED), reason=Reason.REFUSED),
    asked("an end without a beginning", backend(b"</x>", REFUSED), reason=Reason.REFUSED),
    asked(
        "tags that cross", backend(FROM), backend(b"<stream:features><a></b>", REFUSED), reason=Reason.REFUSED
    ),
    asked("no XML", backend(b"2", REFUSED), reason=Reason.REFUSED),
]  # fmt: skip


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=str)
@pytest.mark.parametrize("size", [WHOLE, 1], ids=["whole", "byte by byte"])
def test_every_turn_is_answered_as_the_protocol_says(dialogue: Dialogue, size: int) -> None:
    check(dialogue, size)


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=str)
def test_a_client_that_does_not_wait_gets_the_same_answers(dialogue: Dialogue) -> None:
    check_pipelined(dialogue)


@pytest.mark.parametrize("evil", [b" ", b"\n", b"<auth/>", TO])
@pytest.mark.parametrize("is_cut", [False, True])
def test_nothing_behind_starttls_comes_into_the_session(evil: bytes, is_cut: bool) -> None:
    run = Run(server())
    run.feed("client", TO)
    for piece in [START, evil] if is_cut else [START + evil]:
        run.feed("client", piece)
    assert run.steps[-1].reason is Reason.INJECTED
    assert run.to_backend == b""


@pytest.mark.parametrize("evil", [b" ", b"<stream:features/>"])
def test_nothing_behind_proceed_comes_into_the_session(evil: bytes) -> None:
    run = Run(asking())
    run.feed("client", TO)
    run.feed("backend", FROM + OFFER)
    run.feed("backend", PROCEED + evil)
    assert run.steps[-1].reason is Reason.INJECTED
    assert run.to_client == error(Reason.INJECTED, header=FROM)


def test_the_address_of_a_client_is_not_told_before_tls() -> None:
    run = Run(asking())
    run.feed("client", OPEN % b"from='juliet@example.org' to='example.org' ")
    assert run.to_backend == TO


def test_a_tag_without_end_is_refused() -> None:
    run = Run(server())
    run.feed("client", b"<stream:stream a='" + b"x" * 5000, size=100)
    assert [step.reason for step in run.steps if step.reason] == [Reason.TOO_LONG]


def test_a_farewell_is_well_formed_whatever_it_says() -> None:
    from xml.etree import ElementTree

    said = ElementTree.fromstring(server().farewell("a <b> & 'c' \0 \x1b Müller"))  # noqa: S314
    assert said[0][1].text == "a ?b? ? 'c' \\x00 \\x1b M?ller"


def test_xmpp_has_nothing_that_could_go_on_without_tls() -> None:
    assert "xmpp" in ALWAYS_REQUIRED
    run = Run(SERVER["xmpp"](False))
    run.feed("client", TO + b"<auth/>")
    assert run.steps[-1].reason is Reason.PLAINTEXT


def test_streams_have_names_that_nobody_guesses() -> None:
    names = set()
    for _ in range(10):
        run = Run(SERVER["xmpp"](True))
        run.feed("client", TO)
        names.add(run.to_client)
    assert len(names) == 10
