"""Prometheus itself judges the metrics page, the rules, the alerts and the dashboard's queries."""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.admin_rig import Rig, running
from tests.support.interop import require
from tlstunnel.observe.metrics import FAMILIES

ROOT = Path(__file__).parent.parent.parent
CONF = ROOT / "conf"
DASHBOARD = json.loads((CONF / "grafana" / "tlstunnel.json").read_text())
VARIABLES = {"$job": ".*", "$instance": ".*", "$service": ".*", "$__rate_interval": "5s"}
EXPRESSIONS = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]

pytestmark = pytest.mark.interop


def promtool(*arguments: str | Path, page: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([require("promtool"), *arguments], input=page, capture_output=True, check=False)


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - a loopback URL of our own making
        body: bytes = answer.read()
        return body


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with running(workers=2) as rig:
        for row in (1, 2):
            rig.tell(do="traffic", row=row)
        yield rig


class Prometheus:
    """A real Prometheus that scrapes the rig."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[Any]:
        arguments = urllib.parse.urlencode({"query": expression})
        document = json.loads(get(f"{self.url}/api/v1/query?{arguments}"))
        assert document["status"] == "success", document
        found: list[Any] = document["data"]["result"]
        return found


@pytest.fixture(scope="module")
def prometheus(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    program = require("prometheus")
    home = tmp_path_factory.mktemp("prometheus")
    config = (CONF / "prometheus" / "prometheus.yml").read_text()
    config = config.replace("127.0.0.1:9464", f"127.0.0.1:{rig.address}").replace("15s", "1s")
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
        "--log.level=info",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if b"Server is ready to receive web requests" in line:
                    break
            found = Prometheus(f"http://127.0.0.1:{port}")
            # Rates need a few scrapes: wait for the series itself to say that there are five.
            while not found.query("count_over_time(tlstunnel_workers[1m]) >= 5"):
                select.select([process.stderr], [], [], 0.2)
            yield found
        finally:
            process.terminate()
            process.stderr.read()
            process.wait()


def test_the_metrics_page_is_clean_for_promtool(rig: Rig) -> None:
    done = promtool("check", "metrics", page=get(f"http://127.0.0.1:{rig.address}/metrics"))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_rules_alerts_and_the_example_configuration_are_valid() -> None:
    for kind, name in (("rules", "rules.yml"), ("rules", "alerts.yml"), ("config", "prometheus.yml")):
        done = promtool("check", kind, CONF / "prometheus" / name)
        assert done.returncode == 0, done.stdout + done.stderr
        assert b"SUCCESS" in done.stdout


def test_every_alert_fires_when_it_should_and_is_silent_when_it_should() -> None:
    done = promtool("test", "rules", Path(__file__).parent / "prometheus_rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_both_ways() -> None:
    alerts = re.findall(r"alert: (\w+)", (CONF / "prometheus" / "alerts.yml").read_text())
    tested = re.findall(r"alertname: (\w+)", (Path(__file__).parent / "prometheus_rules.yml").read_text())
    assert len(alerts) > 10
    assert {alert: tested.count(alert) for alert in alerts} == dict.fromkeys(alerts, 2)


def test_rules_and_dashboard_name_only_metrics_that_exist() -> None:
    texts = [(CONF / "prometheus" / name).read_text() for name in ("rules.yml", "alerts.yml")]
    texts += [json.dumps(DASHBOARD)]
    known = {family.name for family in FAMILIES}
    for text in texts:
        for name in re.findall(r"(?<![\w:])((?:tlstunnel|process)_\w+)(?=[{\[ )])", text):
            base = re.sub(r"_(total|bucket|sum|count)$", "", name)
            assert base in known or name in known, name


def test_prometheus_scrapes_the_endpoint_without_complaint(prometheus: Prometheus) -> None:
    assert prometheus.query("up")[0]["value"][1] == "1"
    assert prometheus.query("scrape_samples_scraped")[0]["value"][1] != "0"


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_panel_of_the_dashboard_has_data(expression: str, prometheus: Prometheus) -> None:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert prometheus.query(expression), expression


def test_panels_do_not_overlap_and_have_unique_ids() -> None:
    seen: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & seen, panel["title"]
        seen |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
