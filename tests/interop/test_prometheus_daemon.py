"""A real Prometheus scrapes a real tunnel under load: the page is clean, and every panel of the dashboard has data."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.test_promtool import CONF, EXPRESSIONS, VARIABLES, Prometheus, promtool
from tests.support import backends, clients
from tests.support.interop import require
from tests.support.load import Load, transfers, visitors
from tests.support.ports import free_port
from tests.support.site import Site
from tests.support.tunnel import PATIENCE_S

pytestmark = [pytest.mark.interop, pytest.mark.slow]

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The metrics' URL of a tunnel with two services: one works, the other's backend is down; both meet strangers."""
    with backends.serve(backends.echo) as echo:
        admin, dead = free_port(), backends.unused_port()
        site = Site(tmp_path_factory.mktemp("site"), echo.port, admin_listen=f'"127.0.0.1:{admin}"')
        site.write({"web": {"max_connections": "1000"}, "mail": {"target": f'"127.0.0.1:{dead}"'}})
        with site.run() as daemon:
            ports = {each.service: each.port for each in daemon.listens}

            def strangers(load: Load) -> None:
                for port in ports.values():
                    with clients.raw(port) as sock:
                        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                        clients.read_to_end(sock)
                with clients.connect(ports["mail"]) as client:
                    client.read_all()

            rude = Load(lambda: 0, 1, lambda load, _: strangers(load))
            with visitors(ports["web"], count=2) as crowd, transfers(ports["web"], count=1):
                crowd.wait_for(5)
                try:
                    yield f"http://127.0.0.1:{admin}/metrics"
                finally:
                    rude.stop()
                assert not rude.flaws


@pytest.fixture(scope="module")
def prometheus(page: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    program = require("prometheus")
    home = tmp_path_factory.mktemp("prometheus")
    config = (CONF / "prometheus" / "prometheus.yml").read_text()
    config = config.replace("127.0.0.1:9464", page.split("/")[2]).replace("15s", "1s")
    for name in ("rules.yml", "alerts.yml"):
        config = config.replace(f"- {name}", f"- {CONF / 'prometheus' / name}")
    (home / "prometheus.yml").write_text(config)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        program,
        f"--config.file={home / 'prometheus.yml'}",
        f"--storage.tsdb.path={home / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    log: Path = home / "log"
    with log.open("wb") as errors, subprocess.Popen(command, stderr=errors, stdout=subprocess.DEVNULL) as process:
        try:
            found = Prometheus(f"http://127.0.0.1:{port}")
            wait_for_scrapes(found, process, log)
            yield found
        finally:
            process.terminate()
            process.wait()


def wait_for_scrapes(prometheus: Prometheus, process: subprocess.Popen[bytes], log: Path) -> None:
    """Rates need a few scrapes: the series itself says when there are five."""
    while True:
        assert process.poll() is None, log.read_text()
        try:
            if prometheus.query("count_over_time(tlstunnel_workers[1m]) >= 5"):
                return
        except OSError:
            assert process.poll() is None, log.read_text()  # it does not listen yet
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)


def test_the_page_of_a_tunnel_under_load_is_clean_for_promtool(page: str) -> None:
    with urllib.request.urlopen(page, timeout=PATIENCE_S) as answer:  # noqa: S310 - a loopback URL of our own making
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read()
    done = promtool("check", "metrics", page=text)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_openmetrics_page_is_one_and_says_the_same(page: str) -> None:
    request = urllib.request.Request(page, headers={"Accept": OPENMETRICS})  # noqa: S310
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        text: bytes = answer.read()
    assert text.endswith(b"\n# EOF\n")
    # promtool reads the older format only; it differs in the families' names of counters, and in the last line.
    older = []
    counters = {
        line.split()[2]
        for line in text.decode().splitlines()
        if line.startswith("# TYPE ") and line.endswith(" counter")
    }
    for line in text.decode().removesuffix("# EOF\n").splitlines():
        words = line.split(" ", 3)
        if line.startswith("# ") and words[2] in counters:
            words[2] += "_total"
        older.append(" ".join(words))
    done = promtool("check", "metrics", page=("\n".join(older) + "\n").encode())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_prometheus_takes_every_scrape(prometheus: Prometheus) -> None:
    assert prometheus.query("up")[0]["value"][1] == "1"
    assert float(prometheus.query("min_over_time(up[1m])")[0]["value"][1]) == 1
    assert float(prometheus.query("scrape_samples_scraped")[0]["value"][1]) > 100


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_panel_has_data_from_a_real_tunnel(expression: str, prometheus: Prometheus) -> None:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    found = prometheus.query(expression)
    assert found, expression
    assert any(each["value"][1] != "NaN" for each in found), expression
