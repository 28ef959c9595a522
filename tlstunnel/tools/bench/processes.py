"""The processes of `bench relay` beside this one: the daemon, the backend, the clients; and how they are spoken to."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from tlstunnel.errors import StartupError

_READY = re.compile(r"^ready: \S+ listening on 127\.0\.0\.1:(\d+) -> ")


@contextlib.contextmanager
def program(name: str) -> Iterator[subprocess.Popen[str]]:
    """One of our own modules in a process that ends when its standard input does."""
    words = [sys.executable, "-P", "-m", f"tlstunnel.tools.bench.{name}"]
    # In a process group of its own: a terminal's Ctrl-C is for us, and ends it through its standard input.
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0)
    try:
        yield process
    finally:
        with contextlib.suppress(OSError):
            process.communicate()


@contextlib.contextmanager
def load(hello: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """A process of clients; `hello` says where to and with what."""
    with program("load") as process:
        say(process, hello)
        yield process


@contextlib.contextmanager
def daemon(words: Sequence[str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The tunnel, listening, and its port. It is stopped as an operator stops it."""
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield process, _port_of(process)
    finally:
        process.terminate()
        process.communicate()


def _port_of(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None  # noqa: S101
    said: list[str] = []
    for line in process.stderr:
        if found := _READY.match(line):
            # Nobody reads what it says from here on, and a full pipe must not stop it: at `warning` that is little.
            return int(found[1])
        said.append(line.strip())
    raise StartupError(said[-1].removeprefix("tlstunnel: ") if said else "the tunnel did not start")


def say(process: subprocess.Popen[str], what: dict[str, Any]) -> None:
    """Tell a process to do something."""
    assert process.stdin is not None  # noqa: S101
    process.stdin.write(json.dumps(what) + "\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Its next answer.

    Raises:
        StartupError: it failed.
    """
    answer: dict[str, Any] = json.loads(line(process, "the load"))
    if "failure" in answer:
        raise StartupError(f"the load: {answer['failure']}")
    return answer


def line(process: subprocess.Popen[str], who: str) -> str:
    """Its next line.

    Raises:
        StartupError: there is none.
    """
    assert process.stdout is not None  # noqa: S101
    said = process.stdout.readline()
    if not said:
        raise StartupError(f"{who} ended without an answer")
    return said


def ask(process: subprocess.Popen[str], command: dict[str, Any]) -> dict[str, Any]:
    """Tell it to do something, and wait for the answer."""
    say(process, command)
    return hear(process)


def ask_all(processes: Sequence[subprocess.Popen[str]], command: dict[str, Any]) -> list[dict[str, Any]]:
    """Let all of them do it at the same time."""
    for process in processes:
        say(process, command)
    return [hear(process) for process in processes]
