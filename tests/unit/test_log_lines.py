"""Lines of the log: golden texts, stable keys, and names from strangers that cannot break out of their value."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlstunnel.errors import printable
from tlstunnel.observe.lines import LEVEL_OF, LEVELS, Clock, JSONLines, TextLines, Value, quoted
from tlstunnel.observe.record import ConnectionRecord
from tlstunnel.observe.sinks import MAX_WRITE
from tlstunnel.outcome import CloseReason, Fault

GOLDEN = Path(__file__).parent.parent / "golden" / "log"
WHEN = 1_795_000_000.042
HOSTILE = 'CN=a"b\\c\n2026-11-20T00:00:00Z info    forged  \x1b[2J\u202e\x00 key=value'
PEER_FIELDS = ("server_name", "alpn", "identity", "claimed", "rule", "real_client", "detail")


def record(reason: CloseReason, *, full: bool = True) -> ConnectionRecord:
    made = ConnectionRecord(0x0A1B2C0000000007, 0, "orders", "192.0.2.7:51514")
    made.reason = reason
    made.total_s = 1.2034567
    if full:
        made.version, made.cipher, made.group = "TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519MLKEM768"
        made.resumed = True
        made.server_name, made.alpn, made.identity, made.rule = (
            "api.example.org",
            "h2",
            "CN=billing,O=Example",
            "allow[0]",
        )
        made.real_client, made.target = "198.51.100.9:4711", "127.0.0.1:8080"
        made.bytes_forward, made.bytes_reverse = 1234, 5_678_901
        made.handshake_s, made.connect_s = 0.00123456, 0.000321
    return made


def samples() -> list[ConnectionRecord]:
    hostile = record(CloseReason.DENIED)
    for name in PEER_FIELDS:
        setattr(hostile, name, HOSTILE)
    hostile.target = None
    refused = record(CloseReason.BACKEND_REFUSED)
    refused.detail = "connect to 127.0.0.1:8080: Connection refused"
    silent = record(CloseReason.HANDSHAKE_TIMEOUT, full=False)
    silent.client = "[2001:db8::7]:51514"
    return [
        record(CloseReason.FINISHED),
        record(CloseReason.CLIENT_RESET),
        record(CloseReason.NOT_TLS, full=False),
        silent,
        refused,
        hostile,
        record(CloseReason.INTERNAL_ERROR, full=False),
    ]


def compare(name: str, lines: list[str]) -> None:
    path = GOLDEN / name
    text = "".join(line + "\n" for line in lines)
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text)
    assert text == path.read_text()


def test_text_reads_as_the_golden_file_says() -> None:
    lines = TextLines(stamps=True, colour=False)
    compare("connections.txt", [lines.connection(LEVEL_OF[each.reason], WHEN, each) for each in samples()])  # type: ignore[index]


def test_json_reads_as_the_golden_file_says() -> None:
    lines = JSONLines()
    compare("connections.jsonl", [lines.connection(LEVEL_OF[each.reason], WHEN, each) for each in samples()])  # type: ignore[index]


def test_every_reason_has_the_level_that_the_golden_file_says() -> None:
    compare("levels.txt", sorted(f"{LEVEL_OF[reason]} {reason.label}" for reason in CloseReason))


def test_endings_that_are_nobodys_fault_are_never_warnings() -> None:
    for reason in CloseReason:
        if reason.fault is Fault.NOBODY:
            assert LEVEL_OF[reason] == "info"


@pytest.mark.parametrize("form", ["text", "json"])
def test_messages_keep_to_one_line_but_for_a_traceback(form: str) -> None:
    lines = JSONLines() if form == "json" else TextLines(stamps=True, colour=False)
    fields: dict[str, Value] = {"service": "orders", "count": 3, "traceback": 'File "x"\n  raise \x1b[2J'}
    said = lines.message("error", WHEN, "internal_error", "an error of ours:\nsecond line", fields)
    compare(f"message.{form}", said.split("\n"))
    assert "\x1b" not in said


def test_json_always_has_the_same_keys() -> None:
    lines = JSONLines()
    keys = [list(json.loads(lines.connection("info", WHEN, each))) for each in samples()]
    assert all(each == keys[0] for each in keys)


@given(st.text())
@settings(max_examples=300)
def test_no_name_breaks_out_of_its_value_in_text(name: str) -> None:
    made = record(CloseReason.FINISHED)
    plain = TextLines(stamps=True, colour=False).connection("info", WHEN, made)
    made.identity = name
    line = TextLines(stamps=True, colour=False).connection("info", WHEN, made)
    before, after = plain.split("identity=")[0], plain.split(" rule=")[1]
    assert line.startswith(before + "identity=")
    assert line.endswith(" rule=" + after)
    value = line[len(before + "identity=") : -len(" rule=" + after)]
    assert line.isprintable()
    if not value.startswith('"'):
        assert value.isascii()
        assert not set(value) & set(' "=\\')
    else:
        assert value.endswith('"')
        inside = value[1:-1].replace("\\\\", "").replace('\\"', "")
        assert '"' not in inside


@given(st.text())
@settings(max_examples=200)
def test_json_holds_any_name_on_one_ascii_line(name: str) -> None:
    made = record(CloseReason.FINISHED)
    made.identity = name
    line = JSONLines().connection("info", WHEN, made)
    assert line.isascii()
    assert line.isprintable()
    shown = json.loads(line)["identity"]
    assert shown == name or (shown.endswith("...") and name.startswith(shown.rstrip(".")))


@pytest.mark.parametrize("character", ["\x00", "\U0001f600", "\u202e", "\ud800", '"'])
def test_the_longest_values_of_the_worst_characters_still_fit_into_one_write(character: str) -> None:
    made = record(CloseReason.INTERNAL_ERROR)
    for name in PEER_FIELDS:
        setattr(made, name, character * 10_000)
    for lines in (JSONLines(), TextLines(stamps=True, colour=True)):
        line = lines.connection("error", WHEN, made)
        if isinstance(lines, JSONLines):
            assert json.loads(line)
        assert len(line.encode("utf-8", "backslashreplace")) < MAX_WRITE


def test_a_long_traceback_keeps_its_end_and_stays_valid_json() -> None:
    line = JSONLines().message("error", WHEN, "crash", "m" * 9999, {"traceback": "\x1b" * 9999 + "ValueError: the end"})
    assert len(line) < MAX_WRITE
    assert json.loads(line)["traceback"].endswith("ValueError: the end")


def test_plain_values_are_not_quoted_and_others_are() -> None:
    assert quoted("api.example.org") == "api.example.org"
    assert quoted("a b") == '"a b"'
    assert quoted("") == '""'
    assert quoted('a"b') == '"a\\"b"'
    assert printable("tab\there") == "tab\\there"
    assert quoted("müller") == '"müller"'


def test_the_clock_is_utc_with_milliseconds() -> None:
    clock = Clock()
    assert clock(0.0) == "1970-01-01T00:00:00.000Z"
    assert clock(0.9999) == "1970-01-01T00:00:00.999Z"
    assert clock(1_795_000_000.042).endswith(".042Z")
    assert clock(0.5) == "1970-01-01T00:00:00.500Z"


def test_colour_is_only_around_the_level() -> None:
    made = record(CloseReason.FINISHED)
    plain = TextLines(stamps=False, colour=False).connection("info", WHEN, made)
    coloured = TextLines(stamps=False, colour=True).connection("info", WHEN, made)
    assert coloured.replace("\x1b[32m", "").replace("\x1b[0m", "") == plain
    assert set(LEVELS) == {"debug", "info", "warning", "error"}
