"""`tlstunnel bench` as it is called: what it refuses and how, and that it writes what it was asked for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tlstunnel.cli.bench import app
from tlstunnel.errors import TunnelError
from tlstunnel.tools.bench import ciphers
from tlstunnel.tools.bench.relay import Limit, Outcome, Sample, Work

CONFIG = """
[services.a]
mode = "server"
listen = "127.0.0.1:0"
target = "127.0.0.1:1"
certificate = "server.pem"
key = "server.key"
[services.b]
mode = "client"
listen = "127.0.0.1:0"
target = "localhost:9"
"""


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ciphers, "QUICK", ciphers.Effort(measuring_s=0.0, slice_s=0.0))


def refusal(*words: str) -> TunnelError:
    result = CliRunner().invoke(app, list(words))
    assert isinstance(result.exception, TunnelError), result.output
    assert "\n" not in str(result.exception)
    return result.exception


@pytest.mark.slow
def test_a_filtered_run_prints_its_rows_and_writes_json_and_figure(tmp_path: Path) -> None:
    words = ["ciphers", "--quick", "--filter", "tls1.3 p256 full x25519 aes_128_gcm"]
    out, figure = tmp_path / "out.json", tmp_path / "out.svg"
    result = CliRunner().invoke(app, [*words, "--json", str(out), "--plot", str(figure)])
    assert result.exit_code == 0, result.exception
    assert "X25519MLKEM768" in result.stdout
    assert "RSA" not in result.stdout.partition("Full handshakes")[2].partition("Recommendation")[0]
    assert result.stderr == ""  # no bar where there is no terminal
    found = json.loads(out.read_text())
    assert (found["benchmark"], found["quick"], found["schema"]) == ("ciphers", True, 1)
    assert {row["suite"] for row in found["handshakes"]} == {"TLS_AES_128_GCM_SHA256"}
    assert figure.exists()


def test_words_in_no_row_are_an_error_that_shows_others() -> None:
    assert '"rot13" is in no row; write words such as' in str(refusal("ciphers", "--filter", "rot13"))


@pytest.mark.parametrize("command", ["ciphers", "relay"])
def test_without_matplotlib_a_figure_is_refused_before_measuring_with_the_extra_named(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    error = refusal(command, "--plot", str(tmp_path / "x.png"))
    assert 'install the extra "plots": pip install "tlstunnel[plots]"' in str(error)
    assert error.exit_code == 1


@pytest.mark.parametrize("command", ["ciphers", "relay"])
def test_what_could_not_be_written_is_refused_before_measuring(command: str, tmp_path: Path) -> None:
    assert "ends with no known format; write FILE.png or FILE.svg" in str(refusal(command, "--plot", "x.pdf"))
    assert "is no folder" in str(refusal(command, "--plot", str(tmp_path / "no" / "x.png")))
    assert "is no folder" in str(refusal(command, "--json", str(tmp_path / "no" / "x.json")))


@pytest.mark.slow
def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    words = ("ciphers", "--quick", "--filter", "bulk 1.3 aes-128-gcm 1024", "--json", str(tmp_path))
    assert "cannot be written (is a directory)" in str(refusal(*words))


def test_relay_options_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    from tests.support import certificates

    pair = certificates.server("localhost")
    (tmp_path / "server.pem").write_bytes(pair.certificate.read_bytes())
    (tmp_path / "server.key").write_bytes(pair.key.read_bytes())
    path = tmp_path / "t.toml"
    path.write_text(CONFIG)
    assert "add --config FILE" in str(refusal("relay", "--service", "a"))
    words = ("relay", "--config", str(path))
    assert str(refusal(*words, "--service", "b")).endswith("in server mode; write one of: a")
    assert "--groups: is the configuration's to say" in str(refusal(*words, "--groups", "X25519"))
    path.write_text(CONFIG + CONFIG.partition("[services.b]")[0].replace(".a]", ".c]"))
    assert "several services in server mode; add --service, one of: a, c" in str(refusal(*words))
    path.write_text("[services.b]" + CONFIG.partition("[services.b]")[2])
    assert "no service in server mode" in str(refusal(*words))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--ciphersuites", "NOPE", '--ciphersuites: "NOPE" is not a list of TLS 1.3 suites'),
        ("--groups", "NOPE", '--groups: OpenSSL does not know every group in "NOPE"'),
        ("--workers", "none", '--workers: "none" is not a whole number'),
        ("--cert", "/no/such.pem", "--cert: /no/such.pem: does not exist"),
    ],
)
def test_relay_settings_are_judged_before_anything_is_started(option: str, value: str, message: str) -> None:
    assert str(refusal("relay", option, value)).startswith(message)


def test_a_service_whose_settings_openssl_refuses_is_named_by_file_and_key(tmp_path: Path) -> None:
    from tests.support import certificates

    pair = certificates.server("localhost")
    text = CONFIG.replace("server.pem", str(pair.certificate)).replace("server.key", str(pair.key))
    path = tmp_path / "t.toml"
    path.write_text(text.replace("[services.b]", 'groups = "NOPE"\n[services.b]'))
    assert str(refusal("relay", "--config", str(path))).startswith(f"{path}: services.a.groups: OpenSSL does not know")


# Who set the pace.


@pytest.mark.parametrize(
    ("tunnel", "load", "limit"),
    [
        (0.97, 0.99, Limit.TUNNEL),
        (0.70, 0.95, Limit.LOAD),
        (0.70, 0.65, Limit.MACHINE),
        (0.20, 0.30, Limit.MACHINE),
    ],
)
def test_a_rate_is_only_the_tunnels_own_when_the_tunnel_was_busy(tunnel: float, load: float, limit: Limit) -> None:
    assert Sample(1.0, 1.0, tunnel, load).limit is limit


def test_the_report_says_when_the_load_was_the_bottleneck() -> None:
    from tlstunnel.tools.bench import machine, relay_report

    def outcome(load_share: float) -> Outcome:
        us = {"p50": 40.0, "p90": 50.0, "p99": 60.0, "p999": 70.0, "max": 80.0}
        tunnel_share = 0.95 if load_share < 0.9 else 0.8
        works = [
            Work(name, name, unit, [Sample(2.0, 0.0004, tunnel_share, load_share, us)] * 3)
            for name, unit in (
                ("download", "GiB/s"),
                ("upload", "GiB/s"),
                ("full", "/s"),
                ("trips", ""),
                ("beside", ""),
            )
        ]
        return Outcome(works, {"version": "TLSv1.3", "suite": "TLS_AES_128_GCM_SHA256", "group": "X25519"}, 1, 1)

    facts = machine.look()
    text = "\n".join(relay_report.as_text(outcome(0.99), facts, subject="service a", key="RSA 2048"))
    assert "The load was the bottleneck of: download, upload, full;" in text.replace("\n", " ")
    assert max(map(len, text.splitlines())) <= 80
    text = "\n".join(relay_report.as_text(outcome(0.5), facts, subject="service a", key="RSA 2048"))
    assert "tlstunnel, not the load, was the bottleneck throughout" in text.replace("\n", " ")
    found = relay_report.as_json(outcome(0.99), facts, quick=False, subject="service a", key="RSA 2048")
    assert [row.get("limited_by") for row in found["results"]] == ["load"] * 3 + [None] * 2


def test_filters_that_the_pages_show_choose_rows() -> None:
    import re

    from tlstunnel.tools.bench.cases import chosen_by, every_case

    docs = Path(__file__).parents[2] / "docs"
    pages = (docs / "reference" / "bench.md").read_text() + (docs / "how-to" / "choose-ciphers.md").read_text()
    shown = re.findall(r'--filter "([^"]+)"|such as `"([^"]+)"`, `"([^"]+)"`, `(\w+)`', pages)
    words = [word for found in shown for word in found if word]
    assert len(words) >= 4
    assert all(0 < len(chosen_by(each)) < len(every_case()) for each in words)
