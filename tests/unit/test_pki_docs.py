"""The pages about certificates say what happens."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tlstunnel.cli.cert import app
from tlstunnel.tools.pki import authority, issue, revoke

DOCS = Path(__file__).parents[2] / "docs"
HOW_TO = DOCS / "how-to" / "certificates.md"


@pytest.mark.slow
def test_each_command_of_the_how_to_prints_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```console\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    commands = [step for block in blocks for step in re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)]
    assert len(commands) > 15
    for command, shown in commands:
        if not command.startswith("tlstunnel "):
            subprocess.run(["/bin/sh", "-c", command], check=True)
            continue
        program, group, *arguments = shlex.split(command)
        assert (program, group) == ("tlstunnel", "cert")
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{command}: {result.exception}"
        if shown:
            assert result.stdout == shown, command


def test_the_ca_folder_holds_what_its_page_says(tmp_path: Path) -> None:
    root = authority.create(tmp_path / "root", name="Root")
    sub = authority.create(tmp_path / "sub", name="Sub", parent=root)
    made = issue.server(sub, ["localhost"], tmp_path)
    revoke.revoke(sub, made.parsed.serial_number)
    page = (DOCS / "reference" / "ca-folder.md").read_text()
    named = set(re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE))
    found = {path.name for path in (tmp_path / "sub").iterdir() if path.is_file()}
    assert named == found | {"issued/SERIAL.pem", "unfinished"}
    assert [path.suffix for path in (tmp_path / "sub" / "issued").iterdir()] == [".pem"]
