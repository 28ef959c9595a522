"""The tutorial is true: its two machines are booted and joined by a cable, each of its commands is run, and what the
page shows is what is printed. tests/support/session_page.py says how the page is written.

Two things are ours: `scp` copies between the machines without a daemon, and a capture is known to run, and to be
complete, by packets of our own at its begin and end, on addresses that the page does not use.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import reachable
from tests.support.interop import require
from tests.support.session_page import PATIENCE_S, Step, Terminal, Written, agree, difference, steps
from tests.support.systemd_machine import Machine, booted, why_not

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
HOME = "/srv/tutorial"
ADDRESSES = {"server": "192.0.2.1", "client": "192.0.2.2"}


class Place:
    """One of the machines, as the reader sees it."""

    def __init__(self, machine: Machine) -> None:
        self.pid = machine._pid
        self.machine = machine
        self.terminals: dict[str, Terminal] = {}
        root = f"/proc/{self.pid}/root"
        self._enter = ["nsenter", f"--target={self.pid}", "--all", f"--root={root}", f"--wd={root}{HOME}"]
        tunnel = Path(reachable.tunnel()).parent
        self._environ = {
            "PATH": f"{tunnel}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": HOME,
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "PYTHONUNBUFFERED": "1",  # as on a terminal
        }

    def path(self, name: str) -> Path:
        """A file of the machine, from outside."""
        return Path(f"/proc/{self.pid}/root", HOME.lstrip("/"), name)

    def words(self, command: str) -> list[str]:
        """How a command is run there."""
        return [*self._enter, "bash", "-c", command]

    def run(self, command: str) -> tuple[str, int]:
        """Run to the end; what it printed, and its exit status."""
        done = subprocess.run(
            self.words(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env=self._environ, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
        return done.stdout, done.returncode

    def open(self, name: str, command: str) -> Terminal:
        """Start in a terminal."""
        terminal = self.terminals[name] = Terminal(self.words(f"exec {command}"), self._environ)
        return terminal

    def knock(self, address: str) -> None:
        """A packet to a port where nobody listens."""
        self.run(f"exec 3<>/dev/tcp/{address}/8080")


@contextlib.contextmanager
def two_machines(folder: Path) -> Iterator[dict[str, Place]]:
    """Both, joined by a cable."""
    with contextlib.ExitStack() as stack:
        places: dict[str, Place] = {}
        for name in ADDRESSES:
            (folder / name).mkdir()
            place = places[name] = Place(stack.enter_context(booted(folder / name)))
            place.path("").mkdir(parents=True)
        ends = [["eth0", "netns", str(place.pid)] for place in places.values()]
        subprocess.run(["ip", "link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1]], check=True)
        for name, place in places.items():
            place.machine.run("ip", "address", "add", f"{ADDRESSES[name]}/24", "dev", "eth0")
            place.machine.run("ip", "link", "set", "eth0", "up")
        try:
            yield places
        finally:
            for place in places.values():
                for terminal in place.terminals.values():
                    terminal.close()


def follow(page: str, places: dict[str, Place]) -> Iterator[str]:
    """Do what the page says; fail where it does not say what happens. Yields each command that was run."""
    for step in steps(page):
        place = places[step.machine]
        if isinstance(step, Written):
            place.machine.write(step.path, step.text)
        elif step.command is None:
            look(place.terminals[step.terminal], step, place)
        elif step.terminal:
            terminal = place.open(step.terminal, step.command)
            if step.command.startswith("tshark "):
                mark(place, terminal, "127.0.0.9")
            terminal.until(step.shown, step.place)
            yield step.command
        elif step.command.startswith("scp "):
            copy(step.command, place, places)
            yield step.command
        else:
            printed, code = place.run(step.command)
            assert agree(step.shown, printed), difference(step.place, step.shown, printed)
            assert step.shown or code == 0, f"{step.place}: exit status {code}"
            yield step.command


def look(terminal: Terminal, step: Step, place: Place) -> None:
    """Compare what a terminal says; end its program where the page does."""
    if "^C\n" not in step.shown:
        terminal.until(step.shown, step.place)
        return
    before, after = step.shown.split("^C\n")
    if step.terminal == "capture":
        mark(place, terminal, "127.0.0.10")
    terminal.until(before, step.place)
    printed = terminal.interrupt()
    assert agree(after, printed), difference(step.place, after, printed)


def mark(place: Place, terminal: Terminal, address: str) -> None:
    """Send packets until the capture reports one."""
    deadline = time.monotonic() + PATIENCE_S
    while not terminal.has(f" {address} ", 0.1):
        assert time.monotonic() < deadline, "the capture never reports a packet"
        place.knock(address)


def copy(command: str, here: Place, places: dict[str, Place]) -> None:
    """What scp would do."""
    *sources, target = (place.path(name) for place, name in located(shlex.split(command)[1:], here, places))
    for source in sources:
        (target / source.name if target.is_dir() else target).write_bytes(source.read_bytes())


def located(words: list[str], here: Place, places: dict[str, Place]) -> Iterator[tuple[Place, str]]:
    for word in words:
        name, colon, path = word.partition(":")
        yield (places[name], path) if colon else (here, word)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.interop
def test_every_command_of_the_tutorial_prints_what_the_page_shows(tmp_path: Path) -> None:
    for program in ("tshark", "curl", "ip"):
        require(program)
    missing = why_not()
    if missing and os.environ.get("TLSTUNNEL_REQUIRE_INTEROP") == "1":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    with two_machines(tmp_path) as places:
        done = list(follow(PAGE.read_text(), places))
    assert len(done) > 25


@pytest.mark.parametrize(
    ("shown", "printed", "is_true"),
    [
        ("alert unknown_ca\n", "alert unknown_ca\n", True),
        ("alert unknown_ca\n", "alert bad_certificate\n", False),
        ("one\n", "one\ntwo\n", False),
        ("one\ntwo\n", "one\n", False),
        ("one\n...\n", "one\ntwo\nthree\n", True),
        ("...\nthree\n", "one\ntwo\n", False),
        ("total_s=0.1 bytes_reverse=217\n", "total_s=12.75 bytes_reverse=9\n", True),
        ("bytes_reverse=217\n", "bytes_reverse=0\n", False),
        ("192.0.2.2:50706 -> -\n", "192.0.2.2:40000 -> -\n", True),
        ("192.0.2.2:50706 -> -\n", "192.0.2.1:50706 -> -\n", False),
        ("192.0.2.2:50706 -> -\n", "192.0.2.2:50706 -> 127.0.0.1:8080\n", False),
    ],
)
def test_only_what_must_vary_may_differ_from_the_page(shown: str, printed: str, is_true: bool) -> None:
    assert agree(shown, printed) is is_true


def test_each_example_of_the_page_is_one_that_is_run() -> None:
    page = PAGE.read_text()
    fences = [line for line in page.splitlines() if line.startswith("```") and line != "```"]
    assert set(fences) == {"```console", "```toml"}
    commands = [step for step in steps(page) if isinstance(step, Step) and step.command]
    assert len(commands) == sum(line.startswith(("server", "client")) and "# " in line for line in page.splitlines())
