"""The tutorial is true: its two machines are booted and joined by a cable, each of its commands runs, and what it shows is
what is printed.

How the page is written, which is all that this file knows of it:

- `server# COMMAND` in a ```console block runs on that machine and has ended before the next one; below it stands all
  that it prints, on both streams. A command of which nothing is shown has to succeed silently.
- `server:tunnel# COMMAND` goes on running in a terminal of that name, until ``^C``. Below it stands what it prints until
  the next command. A backslash at the end of a line continues the command in the next.
- `[server:tunnel]` is followed by what has been printed there since.
- A line `...` stands for any lines, or none.
- A ```toml block whose first line is `# MACHINE:PATH` is written to that file.
- What differs from run to run (see `VARYING`) is compared by its shape; everything else to the letter.

Two things are ours: `scp` copies between the machines without a daemon, and a capture is known to run, and to be
complete, by packets of our own at its begin and end, on addresses that the page does not use.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import reachable
from tests.support.interop import require
from tests.support.systemd_machine import Machine, booted, why_not

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
HOME = "/srv/tutorial"
ADDRESSES = {"server": "192.0.2.1", "client": "192.0.2.2"}
PATIENCE_S = 60.0
"""Only a hang reaches it."""

VARYING = [
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?", "<time>"),
    (r"\d\d/[A-Z][a-z]{2}/\d{4} \d\d:\d\d:\d\d", "<time>"),
    (r"\d{4}-\d\d-\d\d", "<date>"),
    (r"(192\.0\.2\.[12]|127\.0\.0\.1):[1-9]\d{4}\b *", r"\1:<port> "),
    (r"\bid=[0-9a-f]{16}\b", "id=<id>"),
    (r"\b(\w+_s)=[0-9.]+", r"\1=<seconds>"),
    (r"\bbytes_(\w+)=[1-9]\d*", r"bytes_\1=<bytes>"),  # they depend on the versions of curl and Python
    (r"\bresumed=(yes|no)\b", "resumed=<either>"),  # a worker resumes its own sessions only
    (r"\bja4=\w+", "ja4=<fingerprint>"),
    (r"\d+ descriptors per worker, room for \d+ connections over \d+ workers?", "<room>"),
    (r"\bup \d+s", "up <seconds>"),
    (r"\bafter \d+ ms", "after <milliseconds>"),
    (r"\b[1-9]\d* B(?= *$)", "<bytes>"),
    (r"\b\d+\.\d(?= *$)", "<days>"),
    (r"^workers: .*", "workers: <workers>"),
    (r"\b\d+ days left\b", "<days> days left"),
    (r"(?<= )[0-9A-F]{40}\b", "<serial>"),
    (r"\b([0-9A-F]{2}:){19,31}[0-9A-F]{2}\b", "<fingerprint>"),
    (r"sha256:[A-Za-z0-9+/]{43}=", "<pin>"),
    (r"/\S+/bin/tlstunnel\b", "<tlstunnel>"),
    (r"\btlstunnel \d+\.\d+[\w.]*", "tlstunnel <version>"),
    (r"\bOpenSSL/[\w.]+", "OpenSSL/<version>"),
]


@dataclass(frozen=True)
class Step:
    """One thing to do or to look at."""

    line: int
    machine: str
    terminal: str
    command: str | None
    shown: str

    @property
    def place(self) -> str:
        """For messages."""
        return f"{PAGE.name}:{self.line}: {self.command or 'what ' + self.terminal + ' says'}"


@dataclass(frozen=True)
class Written:
    """A file that the page shows."""

    machine: str
    path: str
    text: str


def steps(page: str) -> Iterator[Step | Written]:
    """What the page tells its reader to do, in order."""
    for block in re.finditer(r"^```(console|toml)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        kind, text = block.groups()
        first = page.count("\n", 0, block.start()) + 2
        if kind == "toml":
            head = re.match(r"# (\w+):(\S+)\n", text)
            assert head, f"line {first}: a file needs a first line '# MACHINE:PATH'"
            yield Written(head[1], head[2], text)
            continue
        start = re.compile(r"(?P<machine>\w+)(:(?P<terminal>\w+))?# (?P<command>.+)|\[(?P<again>\w+:\w+)\]")
        found: list[tuple[int, re.Match[str], list[str]]] = []
        joined = re.sub(r"\\\n *", "", text)  # a command may go on in the next line
        for number, line in enumerate(joined.splitlines(), first):
            if match := start.fullmatch(line):
                found.append((number, match, []))
            else:
                assert found, f"line {number}: output of no command"
                found[-1][2].append(line + "\n")
        for number, match, shown in found:
            machine, _, terminal = (match["again"] or f"{match['machine']}:{match['terminal'] or ''}").partition(":")
            yield Step(number, machine, terminal, match["command"], "".join(shown))


def normal(text: str) -> str:
    """Without what varies."""
    for pattern, name in VARYING:
        text = re.sub(pattern, name, text, flags=re.MULTILINE)
    return "".join(line.rstrip() + "\n" for line in text.splitlines())


def agree(shown: str, printed: str) -> bool:
    """Whether the page shows what was printed."""
    parts = [re.escape(line) if line != "...\n" else "(.*\n)*?" for line in normal(shown).splitlines(keepends=True)]
    return re.fullmatch("".join(parts), normal(printed)) is not None


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


class Terminal:
    """A program that goes on running."""

    def __init__(self, words: list[str], environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=environ, start_new_session=True,
        )  # fmt: skip
        self._printed = ""
        self._is_over = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def until(self, shown: str, place: str) -> None:
        """Wait until it has printed what is shown, since the last time."""
        deadline = time.monotonic() + PATIENCE_S
        with self._changed:
            while not agree(shown, self._printed):
                left = deadline - time.monotonic()
                assert left > 0 and not self._is_over, difference(place, shown, self._printed)
                self._changed.wait(left)
            self._printed = ""

    def has(self, text: str, wait_s: float) -> bool:
        """Whether it has printed this since, or does within some time."""
        with self._changed:
            return self._changed.wait_for(lambda: text in self._printed or self._is_over, wait_s)

    def interrupt(self) -> str:
        """Ctrl-C; what it printed since, to its end."""
        os.killpg(self._process.pid, signal.SIGINT)
        self._reader.join(PATIENCE_S)
        assert self._is_over, f"does not end by Ctrl-C; it said:\n{self._printed}"
        self._process.wait(PATIENCE_S)
        return self._printed

    def close(self) -> None:
        """End it by force, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(PATIENCE_S)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._printed += line
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


def difference(place: str, shown: str, printed: str) -> str:
    return f"{place}\n--- the page shows\n{shown}--- it printed\n{printed}--- compared as\n{normal(printed)}"


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
    is_over = step.shown.endswith("^C\n") or "^C\n" in step.shown
    if not is_over:
        terminal.until(step.shown, step.place)
        return
    before, after = step.shown.split("^C\n")
    if "tshark" in before or step.terminal == "capture":
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
