"""What the real daemon tells about itself is true: totals, live bytes, records, health, lists, exit codes.

An independent counter stands on each side: the client counts what it sends and receives, the backend what reaches it.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_status_and_top import in_terminal
from tests.support import backends, certificates, clients, tunnel
from tests.support.interop import require
from tests.support.ports import free_port
from tests.support.site import Site, kill_and_wait, reload
from tests.support.wire_peers import client_context
from tlstunnel.outcome import CloseReason, Stage

pytestmark = pytest.mark.slow

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference"
FRIENDS = {"client_auth": '"required"', "client_ca": '"ca.pem"'}
EVIL = 'a"\n{"event":"forged"}\r\x1b[2J\u202ez'
"""A common name (64 characters at most) that would end a line, begin another and clear the screen."""
SLY = 'x" id=0 fault=us {"event":"forged"}'
"""A name that prints, and would end its value."""


class Counter:
    """A backend that answers every byte twice, and counts both ways."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.received = self.sent = 0

    def __call__(self, sock: Any) -> None:
        while data := sock.recv(65536):
            with self._lock:
                self.received += len(data)
                self.sent += 2 * len(data)
            sock.sendall(data * 2)
        backends.half_close(sock)


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def backend(counter: Counter) -> Iterator[backends.Backend]:
    with backends.serve(counter) as backend:
        yield backend


def talk(port: int, size: int, context: Any) -> None:
    """One connection to its good end."""
    with clients.connect(port, context=context) as client:
        client.send(bytes(size))
        assert client.read(2 * size) == bytes(2 * size)
        client.close_notify(fin=True)
        client.read_all()


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tlstunnel", *words], capture_output=True, text=True, check=False, timeout=60
    )


def test_totals_equal_what_both_sides_counted_after_a_killed_worker_and_reloads(
    tmp_path: Path, backend: backends.Backend, counter: Counter
) -> None:
    site = Site(tmp_path, backend.port, listen=f'"127.0.0.1:{free_port()}"')
    ended = 0
    with site.run(is_clean=False) as daemon:
        context = client_context()

        def some() -> None:
            nonlocal ended
            for size in range(1, 8):
                talk(daemon.port, size * 1000, context)
            with clients.raw(daemon.port) as sock:
                sock.sendall(b"not TLS at all\r\n\r\n")
                clients.read_to_end(sock)
            ended += 7
            site.until(lambda m: m['tlstunnel_connections_total{result="finished",service="web"}'] == ended, "the end")

        some()
        with clients.connect(daemon.port) as victim:
            victim.send(bytes(5000))
            assert victim.read(10000) == bytes(10000)
            owner = next(each["pid"] for each in site.status()["workers"] if each["connections"])
            kill_and_wait(daemon, owner)
        some()
        site.install(certificates.server("localhost", "127.0.0.1", key_type="RSA 2048"))
        assert reload(daemon).startswith("reloaded certificates")
        some()
        site.write(idle_timeout='"2h"')
        assert reload(daemon).endswith("generation 2")
        some()
        metrics = site.until(lambda m: m["tlstunnel_draining_generations"] == 0, "one generation")

    assert backend.count == ended + 1
    assert metrics['tlstunnel_bytes_total{direction="forward",service="web"}'] == counter.received == 4 * 28000 + 5000
    assert metrics['tlstunnel_bytes_total{direction="reverse",service="web"}'] == counter.sent == 4 * 56000 + 10000
    assert metrics["tlstunnel_handshakes_total"] == ended + 1
    assert metrics['tlstunnel_handshake_failures_total{reason="not_tls",service="web"}'] == 4
    assert metrics["tlstunnel_connections_total"] == ended + 4, "all but the one whose end nobody lived to see"
    assert metrics['tlstunnel_connections_active{service="web"}'] == 0
    assert metrics["tlstunnel_worker_restarts_total"] == 1
    assert metrics['tlstunnel_config_reloads_total{result="success"}'] == 2


def test_known_series_are_at_0_from_the_start(tmp_path: Path, backend: backends.Backend) -> None:
    site = Site(tmp_path, backend.port)
    counter_of = {
        Stage.ADMIT: "connections_rejected",
        Stage.HANDSHAKE: "handshake_failures",
        Stage.DIAL: "backend_connect_failures",
    }
    with site.run():
        metrics = site.metrics()
    expected = [f'connections_total{{result="{reason.label}",service="web"}}' for reason in CloseReason]
    expected += [
        f'{counter_of[reason.stage]}_total{{reason="{reason.label}",service="web"}}'
        for reason in CloseReason
        if reason.stage in counter_of
    ]
    expected += [f'bytes_total{{direction="{way}",service="web"}}' for way in ("forward", "reverse")]
    expected += [f'config_reloads_total{{result="{result}"}}' for result in ("success", "failure")]
    expected += ['connections_active{service="web"}', "worker_restarts_total", "draining"]
    assert {name: metrics.get(f"tlstunnel_{name}") for name in expected} == dict.fromkeys(expected, 0.0)
    handshakes = [name for name in metrics if name.startswith("tlstunnel_handshakes_total{")]
    assert len(handshakes) > 3
    assert not metrics["tlstunnel_handshakes_total"]


def test_an_open_connection_is_listed_with_identity_and_its_bytes_while_they_move(
    tmp_path: Path, backend: backends.Backend
) -> None:
    site = Site(tmp_path, backend.port, **FRIENDS, allow="{ cn = 'friend' }")
    site.put("ca.pem", certificates.ca().certificate.read_bytes())
    context = client_context(pair=certificates.client("friend"))
    with site.run() as daemon:
        with clients.connect(daemon.port, context=context) as client:
            for count in (1, 2, 3):
                client.send(bytes(1000))
                client.read(2000)
                # Bytes are counted once the kernel has them, so a client may have read them a moment before.
                moved = {"forward": 1000 * count, "reverse": 2000 * count}
                counts = {f'tlstunnel_bytes_total{{direction="{way}",service="web"}}': n for way, n in moved.items()}
                metrics = site.until(
                    lambda found, counts=counts: all(found[name] == n for name, n in counts.items()),
                    f"the bytes moved: {moved}",
                )
                assert metrics['tlstunnel_connections_active{service="web"}'] == 1
                found = json.loads(site.ask("/connections")[1])
                assert (found["open"], found["unanswered"]) == (1, [])
                (listed,) = found["connections"]
                assert (listed["bytes_forward"], listed["bytes_reverse"]) == (1000 * count, 2000 * count)
            client.close_notify(fin=True)
            client.read_all()
        record = daemon.record()
    assert "friend" in listed["identity"]
    shared = (listed.keys() & record.keys()) - {"bytes_forward", "bytes_reverse"}
    assert {name: listed[name] for name in shared} == {name: record[name] for name in shared}
    assert {"id", "client", "target", "version", "cipher", "group", "identity", "rule"} <= shared


def test_every_connection_has_one_record_with_the_documented_keys_and_no_other(
    tmp_path: Path, backend: backends.Backend
) -> None:
    part = (REFERENCE / "log.md").read_text().split("## One record per connection")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)
    site = Site(tmp_path, backend.port)
    with site.run() as daemon:
        for size in (1, 20, 300):
            talk(daemon.port, size, client_context())
        with clients.raw(daemon.port) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            clients.read_to_end(sock)
        records = [daemon.record() for _ in range(4)]
    assert daemon.records == records, "and none came after them"
    assert len({record["id"] for record in records}) == 4
    assert [list(record) for record in records] == [documented] * 4
    assert sorted(record["bytes_reverse"] for record in records) == [0, 2, 40, 600]


def test_a_log_file_is_opened_again_at_sigusr1_by_every_process(tmp_path: Path, backend: backends.Backend) -> None:
    path, rotated = tmp_path / "tunnel.log", tmp_path / "tunnel.log.1"
    site = Site(tmp_path, backend.port, log_target=f'"file:{path}"')

    def ids(file: Path) -> set[str]:
        return {each["client"] for line in file.read_text().splitlines() if (each := json.loads(line)).get("client")}

    with site.run() as daemon:
        talk(daemon.port, 10, client_context())
        site.until(lambda _: ids(path), "the first record in the file")
        said = [json.loads(line).get("message", "") for line in path.read_text().splitlines()]
        assert f"ready: web listening on 127.0.0.1:{daemon.port} -> 127.0.0.1:{backend.port}" in said
        path.rename(rotated)
        daemon.process.send_signal(signal.SIGUSR1)
        site.until(lambda _: path.exists(), "a new file")
        before = ids(rotated)
        # Each worker opens it for itself: go on until both have written into the new one and none into the old one.
        sizes = set()
        while len({each["id"][:6] for each in map(json.loads, path.read_text().splitlines()) if "id" in each}) < 2:
            talk(daemon.port, 10, client_context())
            sizes.add(len(ids(rotated)))
            assert len(sizes) < 1000
        kept = ids(rotated)
    assert before <= kept
    assert not ids(path) & kept
    reading = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    assert "stop" in reading, "the supervisor writes into the new one too"


@pytest.mark.parametrize("form", ["json", "text"])
def test_names_from_strangers_cannot_forge_a_line(tmp_path: Path, backend: backends.Backend, form: str) -> None:
    site = Site(
        tmp_path, backend.port, **FRIENDS, allow="{ cn = 'friend' }", log_format=f'"{form}"', listen='"127.0.0.1:0"'
    )
    site.put("ca.pem", certificates.ca().certificate.read_bytes())
    cases = {EVIL: "bad_certificate", SLY: "denied", "friend": "finished"}
    with site.run() as daemon:
        s_client = [require("openssl"), "s_client", "-connect", f"127.0.0.1:{daemon.port}", "-servername", EVIL]
        for name in cases:
            pair = certificates.client(name)
            options = ["-cert", str(pair.certificate), "-key", str(pair.key), "-tls1_2"]
            subprocess.run([*s_client, *options], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        daemon.until(lambda: sum("127.0.0.1:" in line for line in daemon.lines) >= 4, "three records")
        listed = site.ask("/status")[1] + site.ask("/metrics")[1] + site.ask("/")[1]
    assert "forged" not in listed, "no name is in a label or a page"
    for line in daemon.lines:
        assert line.isprintable(), line
    written = [line for line in daemon.lines if not line.startswith("ready: ")]
    if form == "json":
        assert {json.loads(line)["event"] for line in written} == {"start", "connection", "stop"}
        by_reason = {record["reason"]: record for record in daemon.records}
        assert list(by_reason) == list(cases.values())
        assert "forged" in by_reason["denied"]["identity"]
        assert by_reason["finished"]["server_name"].startswith(EVIL[:-2])
    else:
        for line in written:
            assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z (info   |warning) ", line), line
        denied, finished = (next(line for line in written if reason in line) for reason in ("denied (", "finished "))
        assert re.findall(r" (?:fault|id)=\S+", re.sub(r'"(?:[^"\\]|\\.)*"', '""', denied))[0] == " fault=client"
        assert "forged" in denied
        assert "forged" in finished
        assert r"\n{" in finished


def test_readiness_goes_first_while_draining_and_liveness_stays(tmp_path: Path, backend: backends.Backend) -> None:
    site = Site(tmp_path, backend.port)
    with site.run() as daemon:
        assert (site.ask("/livez")[0], site.ask("/readyz")[0]) == (200, 200)
        with clients.connect(daemon.port) as client:
            client.send(b"x")
            client.read(2)
            daemon.terminate()
            metrics = site.until(lambda m: m["tlstunnel_draining"] == 1, "draining")
            assert metrics['tlstunnel_connections_active{service="web"}'] == 1
            assert (site.ask("/livez")[0], site.ask("/readyz")[0]) == (200, 503)
            assert site.status()["phase"] == "draining"
            done = command("status", "--admin", f"unix:{tmp_path}/admin.sock", "--warn-days", "1")
            assert (done.returncode, "problem: tlstunnel is draining" in done.stdout) == (1, True)
            client.send(b"still served")
            assert len(client.read(24)) == 24
            client.close_notify(fin=True)
            client.read_all()


def test_the_admin_option_takes_a_unix_socket(tmp_path: Path, backend: backends.Backend) -> None:
    path = tmp_path / "admin.sock"
    ask = ("status", "--admin", f"unix:{path}", "--json")
    with tunnel.server(backend.port, "--admin", f"unix:{path}") as daemon:
        talk(daemon.port, 10, client_context())
        daemon.record()
        done = command(*ask)
    (service,) = json.loads(done.stdout)["services"]
    assert (done.returncode, service["connections"]["ended"], service["bytes"]) == (
        0,
        1,
        {"forward": 10, "reverse": 20},
    )
    assert not path.exists(), "it is removed with the daemon"


def test_top_shows_the_real_daemon_in_80_columns_and_quits(tmp_path: Path, backend: backends.Backend) -> None:
    site = Site(tmp_path, backend.port)
    with site.run() as daemon, clients.connect(daemon.port) as client:
        client.send(bytes(1000))
        client.read(2000)
        with in_terminal("top", "--admin", f"unix:{tmp_path}/admin.sock", "--interval", "0.2") as terminal:
            screen = terminal.read_until(r"(?s)ready .*127\.0\.0\.1:\d+ +web +localhost .*CN=localhost.*q quit")
            terminal.press("q")
            assert terminal.process.wait(60) == 0
        client.close_notify(fin=True)
        client.read_all()
    assert max(map(len, screen.splitlines())) <= 80


def test_status_exits_0_only_when_ready_and_no_certificate_expires_soon(
    tmp_path: Path, backend: backends.Backend
) -> None:
    site = Site(tmp_path, backend.port)
    ends = certificates.NOW + timedelta(days=10)
    begins = ends - timedelta(days=90)
    site.install(certificates.server("localhost", "127.0.0.1", not_before=begins, not_after=ends))
    ask = ("status", "--admin", f"unix:{tmp_path}/admin.sock")
    assert command(*ask).returncode == 1, "nobody answers"
    with site.run():
        good, bad = command(*ask, "--warn-days", "5"), command(*ask)
    assert (good.returncode, good.stderr) == (0, "")
    assert "problem" not in good.stdout
    assert bad.returncode == 1
    assert re.search(r"problem: web: \S+/web.pem: certificate of CN=localhost: \d+ days left", bad.stdout)
