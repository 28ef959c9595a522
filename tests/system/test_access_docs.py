"""The page on access is true: its certificates are made by its commands, and each of its configurations is one."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "access.md"
TEXT = PAGE.read_text()
CONFIGURATIONS = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^\$ (tlstunnel cert .*)$", TEXT, re.MULTILINE)

pytestmark = pytest.mark.slow


def tlstunnel(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tlstunnel", *words], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all of the page's commands were run."""
    path = tmp_path_factory.mktemp("access")
    for command in COMMANDS:
        done = tlstunnel(path, *shlex.split(command)[1:])
        assert done.returncode == 0, (command, done.stderr)
        follows = itertools.takewhile(
            lambda line: not line.startswith(("$ ", "```")), TEXT.partition(f"$ {command}\n")[2].splitlines()
        )
        printed = {line for line in follows if line}
        assert printed <= set((done.stdout + done.stderr).splitlines()), command
    return path


@pytest.mark.parametrize("number", range(len(CONFIGURATIONS)))
def test_each_configuration_is_one_and_is_shown_as_one(folder: Path, number: int) -> None:
    config = folder / f"{number}.toml"
    config.write_text(CONFIGURATIONS[number])
    done = tlstunnel(folder, "check", config.name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("configuration OK\n")

    assert "warning" not in done.stdout
    shown = tlstunnel(folder, "show", config.name)
    (folder / f"shown-{number}.toml").write_text(shown.stdout)
    again = tlstunnel(folder, "check", f"shown-{number}.toml")
    assert again.returncode == 0, again.stderr


def test_there_is_something_to_check() -> None:
    assert len(CONFIGURATIONS) == TEXT.count("```toml") >= 7
    assert len(COMMANDS) >= 5
