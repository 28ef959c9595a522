"""The admin endpoint over real sockets, with a rig of worker processes behind it."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.admin_rig import Rig, running
from tlstunnel.observe.admin.page import page
from tlstunnel.observe.admin.routes import PATHS, is_host_plausible, listing_request
from tlstunnel.observe.words import amount, duration


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with running() as rig:
        yield rig


def ask(rig: Rig, path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", int(rig.address), timeout=30)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def document(rig: Rig, path: str) -> Any:
    status, headers, body = ask(rig, path)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    return json.loads(body)


def raw(rig: Rig, data: bytes) -> bytes:
    """Everything that is answered until the endpoint closes."""
    with socket.create_connection(("127.0.0.1", int(rig.address)), timeout=30) as client:
        client.sendall(data)
        answer = b""
        while part := client.recv(65536):
            answer += part
        return answer


# What each path answers.


def test_metrics_health_and_status_are_served(rig: Rig) -> None:
    for path in PATHS:
        status, _, body = ask(rig, path)
        assert status == 200, path
        assert body, path


def test_liveness_stays_and_readiness_goes_while_draining() -> None:
    with running(workers=1) as rig:
        assert ask(rig, "/readyz")[0::2] == (200, b"ready\n")
        rig.tell(do="phase", phase="draining")
        assert ask(rig, "/readyz")[0::2] == (503, b"draining\n")
        assert ask(rig, "/livez")[0] == 200
        assert document(rig, "/status")["ready"] is False
        assert b"tlstunnel_draining 1.0\n" in ask(rig, "/metrics")[2]


def test_counts_are_exact_after_a_worker_was_killed_and_replaced() -> None:
    with running(workers=2) as rig:
        rig.tell(do="connections", row=1, count=300)
        rig.tell(do="open", row=1, count=20)
        rig.tell(do="connections", row=2, count=200)
        before = rig.tell(do="open", row=2, count=5)
        after = rig.tell(do="kill", row=1)
        assert before[1] != after[1]
        rig.tell(do="connections", row=1, count=50)
        orders = document(rig, "/status")["services"][0]
        assert orders["connections"] == {"active": 5, "ended": 550, "limit": 1000, "rejected": 0}
        assert orders["bytes"] == {"forward": 55_000, "reverse": 550_000}
        page = ask(rig, "/metrics")[2].decode()
        assert 'tlstunnel_connections_total{result="finished",service="orders"} 550.0\n' in page
        assert 'tlstunnel_connections_active{service="orders"} 5.0\n' in page
        assert "tlstunnel_worker_restarts_total 1.0\n" in page
        assert [each["row"] for each in document(rig, "/status")["workers"]] == [1, 2]


def test_a_failed_reload_is_shown_with_its_errors() -> None:
    with running(workers=1) as rig:
        assert document(rig, "/status")["last_reload"] is None
        rig.tell(do="reload", ok=False)
        status = document(rig, "/status")
        assert status["last_reload"]["ok"] is False
        assert status["last_reload"]["errors"] == ["tunnel.toml: services.orders.key: does not match the certificate"]
        assert status["reloads"] == {"success": 0, "failure": 1}
        assert b"does not match the certificate" in ask(rig, "/")[2]


# Lists of open connections.


def test_pages_of_connections_hold_each_exactly_once() -> None:
    with running(workers=2) as rig:
        for row in (1, 2):
            rig.tell(do="open", row=row, count=25)
        seen: list[str] = []
        after: str | None = "0"
        while after is not None:
            listing = document(rig, f"/connections?limit=7&after={after}")
            assert listing["open"] == 50
            assert len(listing["connections"]) <= 7
            seen += [each["id"] for each in listing["connections"]]
            after = listing["next"]
        assert seen == sorted(seen)
        assert len(set(seen)) == len(seen) == 50


def test_connections_can_be_sorted_and_filtered_and_show_live_bytes() -> None:
    with running(workers=2) as rig:
        for row in (1, 2):
            rig.tell(do="open", row=row, count=10)
        top = document(rig, "/connections?sort=bytes&limit=4")["connections"]
        assert [(each["bytes_forward"], each["bytes_reverse"]) for each in top] == [(9, 90), (9, 90), (8, 80), (8, 80)]
        assert {each["worker"] for each in top} == {1, 2}
        oldest = document(rig, "/connections?sort=age&limit=20")["connections"]
        ages = [each["age_s"] for each in oldest]
        assert ages == sorted(ages, reverse=True)
        assert document(rig, "/connections?service=mail")["open"] == 0
        assert document(rig, "/connections?service=orders")["open"] == 20


def test_a_worker_that_does_not_answer_is_named_and_the_others_are_listed() -> None:
    with running(workers=2) as rig:
        for row in (1, 2):
            rig.tell(do="open", row=row, count=3)
        rig.tell(do="stop_worker", row=1)
        listing = document(rig, "/connections")
        assert listing["unanswered"] == [1]
        assert [each["worker"] for each in listing["connections"]] == [2, 2, 2]


def test_a_replaced_worker_answers_on_the_same_channel() -> None:
    with running(workers=1) as rig:
        rig.tell(do="open", row=1, count=3)
        rig.tell(do="kill", row=1)
        rig.tell(do="open", row=1, count=2)
        listing = document(rig, "/connections")
        assert (listing["open"], listing["unanswered"]) == (2, [])


def test_ten_thousand_open_connections_are_paged_within_bounds() -> None:
    with running(workers=1) as rig:
        rig.tell(do="open", row=1, count=10_000)
        listing = document(rig, "/connections?limit=200&sort=bytes")
        assert listing["open"] == 10_000
        assert 0 < len(listing["connections"]) <= 200
        assert listing["connections"][0]["bytes_reverse"] == 99_990
        assert ask(rig, "/metrics")[0] == 200


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("limit=0", "limit is not a number from 1 to 200"),
        ("limit=1000", "limit is not a number from 1 to 200"),
        ("limit=%D9%A1", "limit is not a number from 1 to 200"),
        ("after=xyz", 'after is not an id; take it from "next" of the previous page'),
        ("after=", 'after is not an id; take it from "next" of the previous page'),
        ("sort=name", "sort is none of id, bytes, age"),
        ("order=1", "unknown parameter; there are limit, after, service and sort (1 too many)"),
    ],
)
def test_a_query_that_means_nothing_is_refused_with_what_would_be_right(query: str, said: str, rig: Rig) -> None:
    assert ask(rig, f"/connections?{query}")[0::2] == (400, said.encode() + b"\n")


# HTTP.


def test_only_get_and_head_are_allowed(rig: Rig) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
        status, headers, _ = ask(rig, "/metrics", method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_head_has_the_headers_of_get_and_no_body(rig: Rig) -> None:
    for path in ("/readyz", "/"):
        status, headers, body = ask(rig, path, "HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["Content-Length"]) > 0


def test_a_connection_serves_many_requests(rig: Rig) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(rig.address), timeout=30)
    connection.connect()
    first = connection.sock
    for path in ("/livez", "/metrics", "/nothing", "/status") * 3:
        connection.request("GET", path)
        connection.getresponse().read()
        assert connection.sock is first
    connection.close()


def test_pipelined_requests_are_answered_in_order(rig: Rig) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = raw(rig, request * 3 + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert answer.endswith(b"ready\n")


def test_http_1_0_is_answered_and_closed(rig: Rig) -> None:
    assert raw(rig, b"GET /livez HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 OK")


def test_gzip_and_openmetrics_are_given_to_those_who_ask(rig: Rig) -> None:
    _, plain_headers, plain = ask(rig, "/metrics")
    _, headers, packed = ask(rig, "/metrics", Accept_Encoding="gzip;q=1.0")
    assert (plain_headers["Content-Encoding"], headers["Content-Encoding"]) == (None, "gzip")
    assert gzip.decompress(packed).count(b"\n") == plain.count(b"\n")
    assert len(packed) * 5 < len(plain)
    assert ask(rig, "/metrics", Accept_Encoding="gzip;q=0, br")[1]["Content-Encoding"] is None
    _, headers, body = ask(rig, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", 413),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000, 431),
        (b"GET /" + b"x" * 100_000, 431),
    ],
    ids=lambda value: value[:30].decode("latin-1") if isinstance(value, bytes) else str(value),
)
def test_malformed_and_oversized_requests_are_told_so_and_cut_off(data: bytes, status: int, rig: Rig) -> None:
    answer = raw(rig, data)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in answer.lower()
    assert ask(rig, "/livez")[0] == 200


def test_names_of_others_are_refused_on_loopback_against_dns_rebinding(rig: Rig) -> None:
    assert ask(rig, "/status", Host="attacker.example:9464")[0] == 421
    for host in ("localhost:9464", "127.0.0.1", "[::1]:9464", "tunnel.localhost"):
        assert ask(rig, "/status", Host=host)[0] == 200


def test_a_plausible_host_is_judged_by_the_socket_it_came_to() -> None:
    assert is_host_plausible("tunnel.example.org", ("192.0.2.1", 9464))
    assert is_host_plausible("anything", "/run/tlstunnel/admin.sock")
    assert is_host_plausible(None, ("127.0.0.1", 9464))
    assert not is_host_plausible("tunnel.example.org", ("::1", 9464, 0, 0))
    assert not is_host_plausible("[2001:db8::1]:80", ("127.0.0.1", 9464))


def test_a_unix_socket_serves_too(tmp_path: Path) -> None:
    path = str(tmp_path / "admin.sock")
    with running(workers=1, address=path), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(path)
        client.sendall(b"GET /readyz HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := client.recv(65536):
            answer += part
    assert answer.endswith(b"ready\n")


def test_names_from_peers_are_escaped_in_the_page_and_nothing_is_loaded_from_elsewhere(rig: Rig) -> None:
    _, headers, body = ask(rig, "/")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert b"<script" not in body
    assert b"http://" not in body
    assert b"https://" not in body


def test_the_page_escapes_whatever_the_status_holds(rig: Rig) -> None:
    evil = '<img src=x onerror=alert(1)>&"'
    status = document(rig, "/status")
    status["source"] = status["version"] = evil
    for each in status["services"]:
        each["name"], each["trouble"], each["listeners"] = evil, {evil: 1}, [evil]
        each["targets"] = [{"address": evil, "resting_workers": 1}]
    for each in status["certificates"]:
        each["subject"] = each["file"] = each["service"] = evil
    status["last_reload"] = {"at": evil, "ok": False, "errors": [evil]}
    assert "<img" not in page(status)


def test_amounts_and_durations_are_for_people() -> None:
    assert [amount(each) for each in (0, 1023, 1024, 5 << 20, 3 << 30, 7 << 40)] == [
        "0 B", "1023 B", "1.0 KiB", "5.0 MiB", "3.0 GiB", "7.0 TiB",
    ]  # fmt: skip
    assert [duration(each) for each in (0, 59.9, 61, 3 * 86400 + 4 * 3600 + 5)] == ["0s", "59s", "1m 1s", "3d 4h"]


def test_what_a_listing_request_becomes() -> None:
    request = listing_request({"limit": "5", "after": "ff", "service": "a", "sort": "id"})
    assert (request.limit, request.after, request.service) == (5, 255, "a")


# Its life as a process.


def test_it_ends_on_sigterm_and_outlives_sigint() -> None:
    with running(workers=1) as rig:
        assert ask(rig, "/livez")[0] == 200
        os.kill(rig.admin_pid, signal.SIGINT)
        os.kill(rig.admin_pid, signal.SIGHUP)
        assert ask(rig, "/livez")[0] == 200


def test_it_ends_when_the_supervisor_is_killed() -> None:
    with running(workers=1) as rig:
        watched = os.pidfd_open(rig.admin_pid)
        worker = rig.tell(do="connections", row=1, count=1)[1]
        os.kill(rig.pid, signal.SIGKILL)
        assert select.select([watched], [], [], 30)[0]
        os.close(watched)
        os.kill(worker, signal.SIGKILL)
        rig.process.wait()
