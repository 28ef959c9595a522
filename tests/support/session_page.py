"""A page that shows a session on several machines: commands, what they print, and terminals of those that go on.

How such a page is written:

- `server# COMMAND` in a ```console block runs on that machine and has ended before the next one; below it stands all
  that it prints, on both streams. A command of which nothing is shown has to succeed silently.
- `server:tunnel# COMMAND` goes on running in a terminal of that name, until `^C`. Below it stands what it prints until
  the next command. A backslash at the end of a line continues the command in the next.
- `[server:tunnel]` is followed by what has been printed there since.
- A line `...` stands for any lines, or none.
- A ```toml block whose first line is `# MACHINE:PATH` is written to that file.
- What differs from run to run (see `VARYING`) is compared by its shape; everything else to the letter.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

PATIENCE_S = 60.0
"""Only a hang reaches it, or an output that is not what the page shows."""

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
    (r"^Created symlink '?(\S+?)'? → '?(\S+?)'?\.$", r"Created symlink \1 → \2."),  # systemd 257 puts quotes
    (r"\bclient_versions=[\d.,]+", "client_versions=<versions>"),  # curl 7 offers 1.1 and 1.0 as well
    (r"(?<=: )(\d+ descriptors per worker, room for \d+ connections over )?\d+ workers?( \(not limited\))?$", "<room>"),
    (r"^.* info +at most \d+ connections can be open at once: .*\n", ""),  # where this machine has little room
    (r"\bup \d+s", "up <seconds>"),
    (r"\bafter \d+ ms", "after <milliseconds>"),
    (r"\b(Couldn't|Could not) connect to server\b", "<curl cannot connect>"),  # curl 7, curl 8
    (r"\b[1-9]\d* B(?= *$)", "<bytes>"),
    (r"(?<=\.pem) +[\d,]+(\.\d)?(?= *$)", " <days>"),
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
        return f"line {self.line}: {self.command or 'what ' + self.terminal + ' says'}"


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
                assert left > 0, difference(place, shown, self._printed)
                assert not self._is_over, difference(place, shown, self._printed)
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
    """The message of a failure."""
    return f"{place}\n--- the page shows\n{shown}--- it printed\n{printed}--- compared as\n{normal(printed)}"
