"""Every wording of a configuration error, as golden files: broken configuration in, exact text and exit code out.

`UPDATE_GOLDEN=1 pytest tests/unit/test_config_golden.py` writes them anew; read the difference before you keep it.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
import typer.main

from tlstunnel.cli import options
from tlstunnel.config.load import load_file
from tlstunnel.config.model import Config, Mode
from tlstunnel.errors import ConfigError

GOLDEN = Path(__file__).parent.parent / "golden" / "config"
FILES = sorted(path.stem for path in GOLDEN.glob("*.toml"))
COMMANDS = sorted(path.stem for path in GOLDEN.glob("*.args"))


@pytest.fixture(autouse=True)
def in_golden_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


def compare(name: str, error: ConfigError) -> None:
    text = f"exit code {error.exit_code}\n{error}\n".replace(str(GOLDEN), "DIR")
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_gets_exactly_these_lines(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_file(Path(f"{name}.toml"))
    compare(name, caught.value)


def parse(words: list[str]) -> Config:
    """What a command line is read as, through the real command's parameters."""
    loaded: list[Config] = []
    app = typer.Typer()
    for mode in (Mode.SERVER, Mode.CLIENT):
        options.add_command(app, mode, "", loaded.append)
    typer.main.get_command(app)(words, standalone_mode=False)
    return loaded[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_broken_command_line_gets_exactly_these_lines(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(shlex.split((GOLDEN / f"{name}.args").read_text()))
    compare(name, caught.value)


@pytest.mark.parametrize("name", FILES + COMMANDS)
def test_each_line_is_one_problem_that_says_where_what_and_the_remedy(name: str) -> None:
    _, *lines = (GOLDEN / f"{name}.txt").read_text().splitlines()
    assert lines
    for line in lines:
        where, colon, what = line.partition(": ")
        assert where.startswith((f"{name}.toml", "--")), line
        assert colon
        assert "; " in what, f"no remedy: {line}"
        assert not line.endswith("."), f"a full stop: {line}"
        assert line.isprintable(), line


def test_no_golden_file_is_left_over() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == sorted(FILES + COMMANDS)
