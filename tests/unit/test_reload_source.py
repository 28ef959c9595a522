"""What a reload reads again: the file that was given, or nothing where the command line was all there was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlstunnel.config.load import from_options, load_file
from tlstunnel.config.model import COMMAND_LINE, Mode
from tlstunnel.daemon.processes.reload_source import load_config
from tlstunnel.errors import ConfigError

OPTIONS = {("service", "listen"): ["127.0.0.1:0"], ("service", "target"): ["localhost:1"]}


def test_what_the_command_line_said_holds_until_the_end() -> None:
    config = from_options(Mode.CLIENT, OPTIONS, {})
    assert config.source == COMMAND_LINE
    assert load_config(config) is config


def test_a_file_is_read_again_and_refused_again(tmp_path: Path) -> None:
    path = tmp_path / "tunnel.toml"
    text = '[services.a]\nmode = "client"\nlisten = "127.0.0.1:0"\ntarget = "localhost:1"\n'
    path.write_text(text)
    before = load_file(path)
    path.write_text(text.replace("localhost:1", "localhost:2"))
    assert [str(target) for target in load_config(before).services[0].targets] == ["localhost:2"]
    path.write_text("services = 1\n")
    with pytest.raises(ConfigError):
        load_config(before)
