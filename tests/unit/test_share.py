"""What is installed below `share` is what the commands and the reference pages say."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from deploy import share
from tests.support.interop import require
from tlstunnel.cli import files
from tlstunnel.cli.app import COMMANDS


def test_the_manual_pages_and_completions_are_what_the_commands_say() -> None:
    made = share.pages() | share.completions()
    if os.environ.get("UPDATE_GOLDEN") == "1":
        share.main()
    kept = {str(path.relative_to(share.FOLDER)): path.read_text() for path in share.FOLDER.rglob("*") if path.is_file()}
    assert kept == made, "run python -m deploy.share and read the difference"


def test_every_command_has_a_page() -> None:
    assert {f"man/man1/tlstunnel-{name}.1" for name in COMMANDS} < set(share.pages())


@pytest.mark.interop
def test_groff_has_nothing_to_complain_of_in_any_page() -> None:
    groff = require("groff")
    for path in sorted((share.FOLDER / "man").rglob("*.[15]")):
        done = subprocess.run(
            [groff, "-man", "-ww", "-z", "-K", "utf8", path], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), path


def test_every_file_that_comes_along_is_listed_and_printed_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    files.files(name=None, path=False)
    names = capfd.readouterr().out.splitlines()
    root = Path(__file__).parents[2]
    there = [path for folder in ("conf", "systemd") for path in (root / folder).rglob("*") if path.is_file()]
    assert names == sorted([*(str(path.relative_to(root)) for path in there), "CHANGELOG.md", "LICENSE"])
    for name in names:
        files.files(name=name, path=False)
        assert capfd.readouterr().out == (root / name).read_text()
    files.files(name="LICENSE", path=True)
    assert Path(capfd.readouterr().out.strip()).read_text() == (root / "LICENSE").read_text()
