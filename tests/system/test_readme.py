"""The README's commands work as written, one after the other, and no page of the documentation links to nowhere."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import peers
from tests.support.interop import require

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
READY = {"tlstunnel": "^ready: ", "python3": "^Serving HTTP"}


@dataclass(frozen=True)
class Step:
    """A command of a console block, and what the page says that it prints."""

    command: str
    shown: str


def steps(page: Path) -> list[Step]:
    found = []
    for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = step.partition("\n")
            if here := re.search(r"<<'(\w+)'", command):
                document, _, shown = shown.partition(f"\n{here[1]}\n")
                command = f"{command}\n{document}\n{here[1]}\n"
            found.append(Step(command, shown.strip("\n")))
    return found


class Shell:
    """Somebody who pastes commands: in one folder, with the command in the PATH, background jobs until the end.

    The ports of the page are replaced by free ones, always the same for the same.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._ports: dict[str, str] = {}
        kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        self._environment = kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.jobs: list[subprocess.Popen[str]] = []

    def run(self, step: Step) -> None:
        command = re.sub(r"\b8[04][48]\d\b", self._port, step.command)
        if command.endswith(" &"):
            self._start(command.removesuffix(" &"))
            return
        done = subprocess.run(
            ["/bin/bash", "-c", command], cwd=self._folder, env=self._environment, capture_output=True, text=True,
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert done.stdout.strip("\n") == step.shown, command

    def _start(self, command: str) -> None:
        job = subprocess.Popen(
            ["/bin/bash", "-c", f"exec {command}"], cwd=self._folder, env=self._environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._stack.callback(_end, job)
        self.jobs.append(job)
        assert job.stdout is not None
        said = []
        for line in job.stdout:
            said.append(line)
            if re.match(READY[command.split(maxsplit=1)[0]], line):
                return
        raise AssertionError(f"{command} ended:\n{''.join(said)}")

    def _port(self, found: re.Match[str]) -> str:
        return self._ports.setdefault(found[0], str(peers.free_port()))


def _end(job: subprocess.Popen[str]) -> None:
    if job.poll() is None:
        job.kill()
    job.communicate()


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    with ExitStack() as stack:
        yield Shell(tmp_path, stack)


@pytest.mark.slow
def test_the_commands_of_the_readme_work_as_written(shell: Shell) -> None:
    require("curl")
    commands = steps(ROOT / "README.md")
    begin, end = commands[:2], commands[-1]
    assert [step.command.split()[0] for step in begin] == ["export", "cd"]  # what the shell of this test has done
    assert end.command == "kill $(jobs -p)"
    for step in commands[2:-1]:
        shell.run(step)
    assert len(shell.jobs) == 5
    for job in shell.jobs[1:]:
        job.send_signal(signal.SIGTERM)
        rest, _ = job.communicate(timeout=PATIENCE_S)
        assert job.returncode == 0, rest
        assert re.search(r" 127\.0\.0\.1:\d+ .* bytes_reverse=\d", rest), rest  # one line for every connection


def test_make_runs_the_demo_and_the_tests_as_the_readme_says() -> None:
    make = shutil.which("make")
    assert make is not None
    for target in re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        plan = subprocess.run([make, "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert {"demo": "tlstunnel demo", "test": "-m pytest"}[target] in plan


@pytest.mark.slow
def test_the_configurations_of_the_how_to_are_good(shell: Shell) -> None:
    """Its certificates are made and its files checked; what needs the real services is in the tests of those."""
    for step in steps(ROOT / "docs" / "how-to" / "wrap-a-service.md"):
        if step.command.startswith(("tlstunnel cert", "tlstunnel check", "cat >")):
            shell.run(step)


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/how-to/wrap-a-service.md"])
def test_no_link_leads_nowhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text())
    assert links
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    assert not missing


def test_everything_on_the_map_exists() -> None:
    text = (ROOT / "README.md").read_text().partition("## Map of the code")[2]
    for name in re.findall(r"`([\w./]+)`", text):
        places = [ROOT / "tlstunnel" / name, ROOT / name]
        assert any(place.exists() for place in places), name


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md") if path.name != "index.md"]
    assert [str(page) for page in pages if f"({page})" not in index] == []
