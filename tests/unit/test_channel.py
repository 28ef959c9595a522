"""What the supervisor and its workers say: whole messages out of any pieces, and nothing but words from below."""

from __future__ import annotations

import json
import pickle
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlstunnel.daemon.processes import messages
from tlstunnel.daemon.processes.messages import (
    MAX_ORDER,
    MAX_REASON,
    MAX_REPORT,
    ChannelError,
    Drain,
    Drained,
    Failed,
    Ping,
    Pong,
    Ready,
    Renew,
    Renewed,
    Reopen,
    Unframer,
    frame,
    order_bytes,
    parse_order,
    parse_report,
    report_bytes,
)
from tlstunnel.tls.store import Material

ORDERS = [Drain(), Drain(is_now=True), Renew((Material(),)), Ping(), Reopen()]
REPORTS = [Ready(), Pong(), Renewed(), Drained(3), Failed("port in use")]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_an_order_arrives_as_it_was_given(order: messages.Order) -> None:
    (payload,) = Unframer(MAX_ORDER).feed(order_bytes(order))
    assert parse_order(payload) == order


@pytest.mark.parametrize("report", REPORTS, ids=str)
def test_a_report_arrives_as_it_was_given(report: messages.Report) -> None:
    (payload,) = Unframer(MAX_REPORT).feed(report_bytes(report))
    assert parse_report(payload) == report


@given(st.lists(st.binary(max_size=300), max_size=8), st.data())
def test_any_pieces_of_the_stream_give_the_same_messages(messages: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frame(message) for message in messages)
    unframer, found = Unframer(1000), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        piece, stream = stream[:size], stream[size:]
        found += unframer.feed(piece)
    assert found == messages


def test_a_message_that_is_too_long_is_refused_by_its_head_alone() -> None:
    with pytest.raises(ChannelError, match="1001 bytes"):
        Unframer(1000).feed(struct.pack("!I", 1001))
    assert Unframer(1000).feed(struct.pack("!I", 1000)) == []


HOSTILE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"1",
    b'"Ready"',
    b"{}",
    b'{"kind": 1}',
    b'{"kind": ["Ready"]}',
    b'{"kind": "Explode"}',
    b'{"kind": "Drained"}',
    b'{"kind": "Drained", "cut": -1}',
    b'{"kind": "Drained", "cut": true}',
    b'{"kind": "Drained", "cut": 1.5}',
    b'{"kind": "Drained", "cut": "1"}',
    b'{"kind": "Drained", "cut": 99999999999}',
    b'{"kind": "Failed"}',
    b'{"kind": "Failed", "reason": 5}',
    b"\xff\xfe",
    b"[" * 100_000,
    pickle.dumps(Ready()),
]


@pytest.mark.parametrize("payload", HOSTILE, ids=lambda payload: repr(payload[:30]))
def test_what_is_no_report_is_refused(payload: bytes) -> None:
    with pytest.raises(ChannelError):
        parse_report(payload)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_nothing_a_worker_sends_raises_anything_else(payload: bytes | str) -> None:
    data = payload.encode("utf-8", "surrogatepass") if isinstance(payload, str) else payload
    try:
        parse_report(data)
    except ChannelError:
        return


@given(st.text(max_size=3000))
def test_a_workers_last_words_are_one_printable_line(words: str) -> None:
    report = parse_report(json.dumps({"kind": "Failed", "reason": words}).encode())
    assert isinstance(report, Failed)
    assert report.reason.isprintable()
    assert "\n" not in report.reason
    assert len(report.reason) <= MAX_REASON


def test_both_ends_of_a_channel_talk() -> None:
    ours, theirs = messages.pair()
    with ours, theirs:
        ours.sendall(order_bytes(Ping()))
        assert parse_order(Unframer(MAX_ORDER).feed(theirs.recv(4096))[0]) == Ping()
