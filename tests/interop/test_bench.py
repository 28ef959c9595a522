"""`tlstunnel bench relay` on the real daemon, with keys that openssl made, at sizes that cost little."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.interop import require
from tests.unit.test_bench_ciphers import documented, keys_of
from tlstunnel.cli.bench import app
from tlstunnel.errors import StartupError
from tlstunnel.tools.bench import process, relay

pytestmark = [pytest.mark.slow, pytest.mark.interop]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "QUICK", relay.Effort(rounds=1, bulk_bytes=1 << 20, handshakes=16, trips=20))


def make(folder: Path, *kind: str) -> None:
    """A certificate by openssl(1)."""
    require("openssl")
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    command = ["openssl", "req", "-x509", "-newkey", *kind, "-keyout", folder / "own.key", "-out", folder / "own.pem"]
    subprocess.run([*command, *name], check=True, capture_output=True)


def run(*words: str, is_joined: bool = True) -> str:
    result = CliRunner().invoke(app, ["relay", "--quick", *words])
    assert result.exit_code == 0, result.exception
    assert process.tree(os.getpid()) == [os.getpid()]  # nothing is left running
    return result.stdout.replace("\n", " ") if is_joined else result.stdout


def test_a_certificate_and_a_cipher_of_ones_own_are_what_is_measured(tmp_path: Path) -> None:
    make(tmp_path, "rsa:2048", "-nodes")
    out = tmp_path / "out.json"
    given = ("--cert", f"{tmp_path}/own.pem", "--key", f"{tmp_path}/own.key", "--json", str(out))
    text = run(
        *given, "--max-version", "1.2", "--ciphers", "ECDHE-RSA-AES256-GCM-SHA384", "--groups", "P-384", is_joined=False
    )
    assert "TLSv1.2, ECDHE-RSA-AES256-GCM-SHA384, P-384, RSA 2048" in text.replace("\n", " ")
    assert max(map(len, text.splitlines())) <= 80
    found = json.loads(out.read_text())
    assert keys_of(found) == documented("JSON of `bench relay`")
    rows = {row["name"]: row for row in found["results"]}
    assert list(rows) == ["download", "upload", "full", "resumed", "trips", "beside"]
    for name in ("download", "upload"):
        assert rows[name]["cpu_s_per_gib"]["median"] > 0
        assert rows[name]["gib_per_s"]["median"] > 0
    # An RSA signature is what a resumed handshake is spared.
    assert rows["resumed"]["cpu_us"]["median"] < rows["full"]["cpu_us"]["median"]
    for name in ("trips", "beside"):
        us = rows[name]["latency_us"]
        assert 0 < us["p50"]["median"] <= us["p99"]["median"] <= us["max"]


def test_a_service_of_a_configuration_is_measured_without_its_rules(tmp_path: Path) -> None:
    make(tmp_path, "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes")
    path = tmp_path / "t.toml"
    path.write_text(
        '[services.orders]\nmode = "server"\nlisten = ":1"\ntarget = "127.0.0.1:2"\ncertificate = "own.pem"\n'
        'key = "own.key"\nmin_version = "1.3"\nciphersuites = "TLS_CHACHA20_POLY1305_SHA256"\nmax_connections = 1\n'
        'client_auth = "required"\nclient_ca = "own.pem"\nallow = [{ cn = "nobody" }]\n'
    )
    text = run("--config", str(path), "--service", "orders", "--workers", "2")
    assert "service orders: TLSv1.3, TLS_CHACHA20_POLY1305_SHA256, X25519MLKEM768, ECDSA P-384; 2 workers" in text


def test_an_encrypted_key_is_opened_by_the_passphrase_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-passout", "pass:open sesame")
    given = ("--cert", f"{tmp_path}/own.pem", "--key", f"{tmp_path}/own.key")
    monkeypatch.setenv("TLSTUNNEL_KEY_PASSPHRASE", "open sesame")
    assert "ECDSA P-256" in run(*given)


def test_a_figure_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run("--plot", str(tmp_path / "out.png"))
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_a_daemon_that_does_not_start_is_quoted_and_nothing_is_left() -> None:
    from tlstunnel.config.model import TLSSettings

    words = ["sh", "-c", "echo tlstunnel: --cert: is missing >&2; exit 2"]
    with pytest.raises(StartupError, match=r"^--cert: is missing$"):
        relay.run(lambda port: words, TLSSettings(), relay.QUICK, workers=1)
    assert process.tree(os.getpid()) == [os.getpid()]


def test_a_load_that_fails_says_so_instead_of_being_fast() -> None:
    # A daemon that says it is ready where nobody listens.
    from tlstunnel.config.model import TLSSettings

    words = ["sh", "-c", "echo 'ready: x listening on 127.0.0.1:1 -> 127.0.0.1:2' >&2; cat"]
    with pytest.raises(StartupError, match=r"the load: .*refused"):
        relay.run(lambda port: words, TLSSettings(), relay.QUICK, workers=1)
