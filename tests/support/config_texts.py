"""Configurations as text, loaded as from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tlstunnel.config.load import load_file
from tlstunnel.config.model import (
    Config,
    Service,
)

Load = Callable[[str], Config]


SERVER = 'listen = ":8443"\ntarget = "127.0.0.1:8080"\ncertificate = "server.pem"\n'


CLIENT = 'mode = "client"\nlisten = "127.0.0.1:5432"\ntarget = "db.example.org:5433"\n'


def loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads a text as a file beside which the files of these tests exist."""
    for name in ("orders", "clients-ca", "api", "server", "rsa", "ca"):
        (tmp_path / f"{name}.pem").touch()
        (tmp_path / f"{name}.key").touch()
    for name in ("bundle.p12", "pass.txt", "a.crl", "b.crl"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)

    def load_text(text: str) -> Config:
        path = tmp_path / "tunnel.toml"
        path.write_text(text)
        return load_file(path)

    return load_text


def service(config: Config) -> Service:
    assert len(config.services) == 1
    return config.services[0]
