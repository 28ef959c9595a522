"""The protocols that ask before TLS: which there are, and what all of them hold to."""

from __future__ import annotations

import pytest

from tests.support.dialogues import Run
from tlstunnel.cli.probe import Protocol
from tlstunnel.connection.starttls.conversation import MAX_PLAINTEXT
from tlstunnel.connection.starttls.modes import ALWAYS_REQUIRED, ASK, CLIENT, SERVER
from tlstunnel.connection.starttls.negotiation import Reason, Verdict

ALL = {"postgres", "smtp", "lmtp", "imap", "pop3", "sieve", "nntp", "ldap", "mysql", "xmpp"}


def test_every_protocol_has_both_modes() -> None:
    assert set(SERVER) == set(CLIENT) == ALL
    assert set(ASK) <= ALL
    assert ALWAYS_REQUIRED <= ALL


def test_the_probe_takes_every_protocol_that_can_be_asked() -> None:
    assert {protocol.value for protocol in Protocol} == set(ASK)


@pytest.mark.parametrize("protocol", sorted(ALL))
def test_tls_is_with_the_client_in_server_mode_and_with_the_backend_in_client_mode(protocol: str) -> None:
    assert SERVER[protocol](True).tls_with_client
    assert not CLIENT[protocol]().tls_with_client


@pytest.mark.parametrize("protocol", sorted(ALL))
@pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])
def test_tls_does_not_stand_before_it_was_begun(protocol: str, is_server: bool) -> None:
    run = Run(SERVER[protocol](True) if is_server else CLIENT[protocol]())
    run.step(run.negotiation.start())
    run.step(run.negotiation.secured())
    assert run.verdict is Verdict.GO_ON
    assert not run.negotiation.is_secured


@pytest.mark.parametrize("protocol", sorted(ALL))
@pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])
def test_whoever_was_refused_is_not_heard_again(protocol: str, is_server: bool) -> None:
    run = Run(SERVER[protocol](True) if is_server else CLIENT[protocol]())
    run.feed("client", b"\x16\x03\x01")
    assert [step.reason for step in run.steps] == (
        [None] if protocol == "postgres" and is_server else [Reason.TLS_AT_ONCE]
    )
    if run.verdict is Verdict.REFUSED:
        before = (run.to_client, run.to_backend)
        run.feed("client", b"x" * (MAX_PLAINTEXT + 1))
        run.feed("backend", b"220 x\r\n")
        run.step(run.negotiation.secured())
        assert (run.to_client, run.to_backend) == before


@pytest.mark.parametrize("protocol", sorted(ALL))
def test_a_farewell_is_short_and_has_words(protocol: str) -> None:
    for negotiation in (SERVER[protocol](True), CLIENT[protocol]()):
        said = negotiation.farewell("no answer in time")
        assert b"no answer in time" in said
        assert len(said) < 600


def test_reasons_have_labels_that_metrics_take() -> None:
    labels = [reason.label for reason in Reason]
    assert len(set(labels)) == len(labels)
    assert all(label.startswith("starttls_") and label.replace("_", "").isalpha() for label in labels)
