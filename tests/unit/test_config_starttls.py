"""What is negotiated before TLS, as it is configured: the protocols, and what goes together. Wordings are golden."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
import typer.main

from tests.support.config_texts import CLIENT, SERVER, Load, loader, service
from tests.unit.test_config_golden import parse
from tlstunnel.cli import options
from tlstunnel.config.effective import render_config
from tlstunnel.config.model import Mode, StartTLS
from tlstunnel.connection.starttls import modes
from tlstunnel.connection.starttls.negotiation import Reason
from tlstunnel.errors import ConfigError
from tlstunnel.outcome import CloseReason, Stage

HOW_TO = (Path(__file__).parents[2] / "docs" / "how-to" / "starttls.md").read_text()
WEB, DB = f"[services.web]\n{SERVER}", f"[services.db]\n{CLIENT}"
CLIENTS = 'client_ca = "clients-ca.pem"\nallow_cn = "billing"\n'


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    return loader(tmp_path, monkeypatch)


def test_what_can_be_written_is_what_can_be_negotiated_in_either_mode() -> None:
    assert set(modes.SERVER) == set(modes.CLIENT) == {protocol.value for protocol in StartTLS}


@pytest.mark.parametrize("reason", Reason)
def test_a_refused_negotiation_is_an_ending_of_the_same_label(reason: Reason) -> None:
    ending = CloseReason[f"STARTTLS_{'MISSING' if reason is Reason.PLAINTEXT else reason.name}"]
    assert (ending.label, ending.stage) == (reason.label, Stage.HANDSHAKE)
    assert "; " in ending.text, "what would be right"


@pytest.mark.parametrize("protocol", StartTLS)
def test_each_protocol_may_be_written_in_either_mode(load: Load, protocol: StartTLS) -> None:
    for text in (WEB, DB):
        assert service(load(f'{text}starttls = "{protocol}"\n')).starttls is protocol


def test_left_out_nothing_is_negotiated(load: Load) -> None:
    for text in (WEB, DB):
        config = load(text)
        assert service(config).starttls is None
        assert "starttls" not in render_config(config)


@pytest.mark.parametrize("mode", [Mode.SERVER, Mode.CLIENT])
def test_the_option_is_read_as_the_key_is(mode: Mode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("server.pem").touch()
    more = ["--cert", "server.pem"] if mode is Mode.SERVER else []
    words = [mode.value, "--listen", "127.0.0.1:1", "--target", "127.0.0.1:2", *more, "--starttls", "imap"]
    assert service(parse(words)).starttls is StartTLS.IMAP


@pytest.mark.parametrize("mode", [Mode.SERVER, Mode.CLIENT])
def test_shells_complete_the_protocols(mode: Mode) -> None:
    app = typer.Typer()
    options.add_command(app, mode, "", lambda _: None)
    command = typer.main.get_command(app)
    (option,) = (each for each in command.params if each.name == "starttls")
    found = option.shell_complete(typer.Context(command), "")
    assert [each.value for each in found] == list(StartTLS)


@pytest.mark.parametrize("protocol", StartTLS)
def test_clients_without_tls_get_through_only_where_the_protocol_lets_them(load: Load, protocol: StartTLS) -> None:
    text = f'{WEB}starttls = "{protocol}"\nstarttls_required = false\n'
    if protocol.value not in modes.ALWAYS_REQUIRED:
        assert not service(load(text)).starttls_required
        return
    with pytest.raises(ConfigError, match="starttls_required: cannot be false"):
        load(text)


@pytest.mark.parametrize(
    ("auth", "is_good"),
    [
        ("", True),
        ('client_auth = "optional"\n' + CLIENTS, True),
        ('client_auth = "optional"\nanonymous = "deny"\n' + CLIENTS, False),
        ('client_auth = "required"\n' + CLIENTS, False),
    ],
)
def test_nobody_gets_past_a_demand_for_a_certificate_by_leaving_tls_out(load: Load, auth: str, is_good: bool) -> None:
    text = f'{WEB}{auth}starttls = "imap"\n'
    assert service(load(text)).starttls_required
    if is_good:
        assert not service(load(text + "starttls_required = false\n")).starttls_required
        return
    with pytest.raises(ConfigError, match="starttls_required: lets clients in without TLS"):
        load(text + "starttls_required = false\n")


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("fallback_target", 'fallback_target = "127.0.0.1:1"\nclient_auth = "optional"\n' + CLIENTS),
        ("target_tls", "target_tls = true\n"),
        ("http_hint", "http_hint = false\n"),
        ("sni[0].target", 'sni = [{ names = "a.example.org", target = "127.0.0.1:1" }]\n'),
    ],
)
def test_what_has_to_know_the_client_before_the_target_is_reached_is_refused(load: Load, key: str, more: str) -> None:
    assert load(WEB + more)
    with pytest.raises(ConfigError) as caught:
        load(f'{WEB}{more}starttls = "smtp"\n')
    assert [str(problem.where).partition("services.web.")[2] for problem in caught.value.problems] == [key]


def test_names_may_have_certificates_of_their_own(load: Load) -> None:
    entry = 'sni = [{ names = "a.example.org", certificate = "api.pem", target = "127.0.0.1:8080" }]\n'
    web = service(load(f'{WEB}{entry}target_tls = false\nstarttls = "smtp"\n'))
    assert web.sni[0].targets == web.targets


def test_the_examples_of_the_how_to_are_good(load: Load) -> None:
    examples = re.findall(r"^```toml\n(.*?)^```", HOW_TO, re.MULTILINE | re.DOTALL)
    assert [service(load(text)).mode for text in examples] == [Mode.SERVER, Mode.CLIENT]


def test_the_how_to_tells_of_every_protocol() -> None:
    assert re.findall(r"^\| `(\w+)` \| \d", HOW_TO, re.MULTILINE) == list(StartTLS)
