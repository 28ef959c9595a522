"""Every file under conf/ is one that `tlstunnel check` would accept, and the default one leaves no key out."""

from __future__ import annotations

import re
import shutil
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support import certificates
from tlstunnel.config import effective
from tlstunnel.config.load import load_file
from tlstunnel.config.model import Config, Mode, Service, TargetTLS
from tlstunnel.config.service import keys_of
from tlstunnel.tls.inspection import inspect
from tlstunnel.x509.passphrase import PassphraseSource

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = sorted([*(ROOT / "conf").rglob("*.toml"), *(ROOT / "systemd").rglob("*.toml")])
DEFAULT = ROOT / "conf" / "tlstunnel.toml"
FILE = re.compile(r"[^ ]+\.(pem|key|p12|pass|crl)")
PASSPHRASE = "correct horse"


def strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """The example as an operator would install it: beside the certificates it names, under systemd."""
    example: Path = request.param
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    text = example.read_text().replace('"/etc/tlstunnel/', '"')
    path = tmp_path / example.name
    path.write_text(text)
    ecdsa, rsa = certificates.server("localhost"), certificates.server("localhost", key_type="RSA 2048")
    for name in strings(tomllib.loads(text)):
        if not FILE.fullmatch(name):
            continue
        target = credentials / name.removeprefix("cred:") if name.startswith("cred:") else tmp_path / name
        if name.endswith(".pass"):
            target.write_text(PASSPHRASE + "\n")
        elif name.endswith(".p12"):
            shutil.copy(certificates.p12(ecdsa, PASSPHRASE), target)
        elif name.endswith("ca.pem"):
            shutil.copy(certificates.ca().certificate, target)
        elif name.endswith(".crl"):
            shutil.copy(certificates.crl(), target)
        else:
            pair = rsa if "rsa" in name else ecdsa
            shutil.copy(pair.key if name.endswith(".key") else pair.certificate, target)
    return path


def test_there_are_examples_for_what_people_come_for() -> None:
    assert {path.stem for path in (ROOT / "conf" / "examples").glob("*.toml")} >= {
        "postgres",
        "redis",
        "many-services",
        "mutual-tls",
        "client",
        "passthrough",
        "names",
        "proxy-protocol",
        "several-targets",
        "limits",
        "revocation",
    }


# The system's own CAs may be odd, and pyOpenSSL has no other way to name CAs to clients than one it calls deprecated.
@pytest.mark.filterwarnings("ignore:Parsed a serial number", "ignore:.*X509:DeprecationWarning")
@pytest.mark.parametrize("installed", EXAMPLES, ids=lambda path: path.stem, indirect=True)
def test_an_example_is_accepted_with_everything_it_names(installed: Path) -> None:
    config = load_file(installed)
    assert config.services
    inspection = inspect(config, PassphraseSource(), now=datetime.now(UTC))
    assert inspection.problems == ()


@pytest.mark.parametrize("installed", EXAMPLES, ids=lambda path: path.stem, indirect=True)
def test_what_show_prints_of_an_example_is_read_back_as_the_same(installed: Path, tmp_path: Path) -> None:
    config = load_file(installed)
    (tmp_path / "elsewhere").mkdir()
    shown = tmp_path / "elsewhere" / "shown.toml"
    shown.write_text(effective.render_config(config))
    again = load_file(shown)
    assert (again.services, again.process, again.admin, again.log) == (
        config.services,
        config.process,
        config.admin,
        config.log,
    )


LINES = re.findall(r"^#?([a-z_0-9]+) = (.*)$", DEFAULT.read_text(), re.MULTILINE)


def test_the_default_file_names_every_key_there_is() -> None:
    known = {*keys_of(Mode.SERVER), *keys_of(Mode.CLIENT), *keys_of(Mode.PASSTHROUGH)} - {"sni"}
    for section in ("process", "admin", "log"):
        known |= effective.keys_of_section(Config(services=()), section).keys()
    assert {key for key, _ in LINES} - {"names"} == known


def test_the_default_file_shows_the_defaults_as_they_are() -> None:
    client = Service(name="", mode=Mode.CLIENT, listen=(), targets=(), target_tls=TargetTLS())
    defaults = effective.keys_of_service(client)
    defaults |= effective.keys_of_service(Service(name="", mode=Mode.SERVER, listen=(), targets=()))
    for section in ("process", "log"):
        defaults |= {k: v for k, v in effective.keys_of_section(Config(services=()), section).items() if k != "target"}
    for key, text in LINES:
        value = tomllib.loads(f"value = {text}")["value"]
        default = defaults.get(key)
        if default not in (None, []) and key not in ("mode", "format"):
            assert value == default, key
