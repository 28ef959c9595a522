"""The protocols in lines: one machine for each mode, and for each protocol a table (`Dialect`).

In client mode we are an ordinary client, up to STARTTLS (`client`). In server mode the backend greets, and answers what
a client may ask before TLS; the rest of the dialogue is ours. Command and answer take turns, however the client
pipelines, so no answer is ever taken for another's.

| state    | the backend says                              | the client says                                          |
|----------|-----------------------------------------------|----------------------------------------------------------|
| GREETING | its greeting, with STARTTLS put in: COMMAND   | (waits)                                                  |
| COMMAND  | a farewell perhaps: passed on                 | STARTTLS: RESET; one of `before`: ANSWER; else refused   |
| ANSWER   | its answer, with STARTTLS put in: COMMAND     | (waits)                                                  |
|          | its answer to the client's goodbye: the end   |                                                          |
| RESET    | its answer, for us alone: the go-ahead, TLS   | (refused: it came behind STARTTLS)                       |

Nothing is passed on but whole lines of commands that leave nothing behind in the backend, or whose traces RESET wipes
out. Where TLS is not required, the first command that would be refused makes the rest of the connection plaintext, so
that no login, mail or state that came in plaintext can ever find itself in a session.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum, auto

from tlstunnel.connection.starttls.conversation import (
    Conversation,
    Incoming,
    StartTLSError,
    heard,
    literal_behind,
    shown,
)
from tlstunnel.connection.starttls.negotiation import Negotiation, Reason, Refused, Verdict
from tlstunnel.errors import printable

MAX_LINE = 8192
"""RFC 7162 section 4 has the longest; SMTP's are a sixteenth of it."""
_OFFER = re.compile(rb"(?:^|[\s\"-])STARTTLS(?:[\s\"]|\Z)", re.IGNORECASE)
_CAPABILITIES = re.compile(rb"\[CAPABILITY ", re.IGNORECASE)
_UNASKED_LITERAL = re.compile(rb"\{\d+\+\}\Z")
_TAG = re.compile(rb"[!#$&',\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class Command:
    """A line of the client. Without a tag it is that of a protocol that has none."""

    line: bytes
    tag: bytes
    verb: str
    rest: str


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one protocol is, for the machines. Our own words are format strings with `{tag}` and `{text}`.

    Args:
        name: what its servers are called, with an article.
        hello: how a client asks what the server offers; None where the greeting says so, empty where it is not asked.
        start: the command that asks for TLS.
        before: the other commands that are allowed before TLS.
        leave: that of them by which a client ends the connection.
        has_words: they may have arguments.
        is_good: whether an answer says yes; to nothing, a greeting.
        turns_away: how the lines begin with which a backend greets whom it does not want.
        is_complete: whether these lines are all of an answer; to nothing, of a greeting.
        offer: an answer with our capability in it, and without those that make no sense before TLS, if TLS is required.
        go_ahead, demand, misuse, goodbye: what we say to STARTTLS, to what has to wait, to nonsense, and at the end.
        reset: what makes the backend forget the client.
        first: what the backend is asked when TLS stands, for the client to hear.
    """

    name: str
    hello: str | None
    start: str
    before: frozenset[str]
    leave: str
    is_good: Callable[[list[bytes], Command | None], bool]
    turns_away: tuple[bytes, ...]
    is_complete: Callable[[list[bytes], Command | None], bool]
    offer: Callable[[list[bytes], Command | None, bool], list[bytes]]
    go_ahead: str
    demand: str
    misuse: str
    goodbye: str
    reset: bytes = b""
    first: bytes = b""
    has_tags: bool = False
    has_words: bool = True
    has_literals: bool = False

    def farewell(self, text: str) -> bytes:
        """The last line."""
        text = printable(text).replace('"', "'").replace("\\", "/")
        return self.goodbye.format(text=text).encode("ascii", "replace") + b"\r\n"


def client(dialect: Dialect) -> Conversation:
    """Ask a server for TLS."""
    incoming, server = Incoming(), dialect.name.partition(" ")[2]
    greeting = yield from _answer(incoming, dialect, None)
    if not dialect.is_good(greeting, None):
        said = _shown(greeting)
        if _is_turned_away(greeting, dialect):
            raise StartTLSError(f"the {server} server turns us away with {said}; look at its log, or try again later")
        raise StartTLSError(f"the greeting is {said}, not that of {dialect.name} server; give the right protocol")
    offered = greeting
    for number, line in enumerate(filter(None, (dialect.hello, dialect.start)), 1):
        if line == dialect.start and dialect.hello != "" and not any(_OFFER.search(each) for each in offered):
            raise StartTLSError(
                f"the {server} server does not offer {line}; it may have no certificate, or another port"
            )
        sent = (f"a{number} {line}" if dialect.has_tags else line).encode("ascii")
        yield sent + b"\r\n"
        command = _parsed(sent, has_tag=dialect.has_tags)
        offered = yield from _answer(incoming, dialect, command)
        if not dialect.is_good(offered, command):
            raise StartTLSError(
                f"the {server} server answers {command.verb} with {_shown(offered)}; it has no TLS here"
            )
    incoming.end()
    # What a server that greets again says within TLS holds, and what it could do before does not.
    again = [] if dialect.first else [_without_capabilities(line) for line in greeting]
    return heard([line.decode("ascii", "backslashreplace") for line in again])


def _without_capabilities(line: bytes) -> bytes:
    found = _CAPABILITIES.search(line)
    end = -1 if found is None else line.find(b"]", found.end())
    return line if found is None or end < 0 else line[: found.start()] + line[end + 1 :].removeprefix(b" ")


def _answer(incoming: Incoming, dialect: Dialect, command: Command | None) -> Generator[bytes, bytes, list[bytes]]:
    lines: list[bytes] = []
    while not lines or not dialect.is_complete(lines, command):
        lines.append((yield from incoming.line(has_literals=dialect.has_literals)))
    return lines


def _is_turned_away(greeting: list[bytes], dialect: Dialect) -> bool:
    return greeting[-1].upper().startswith(dialect.turns_away)


def _shown(lines: list[bytes]) -> str:
    return shown(lines[-1].decode("ascii", "backslashreplace"))


class _Lines:
    """What one side said, by lines without their ends; where there are literals, with what goes on behind a line."""

    def __init__(self, who: str, *, has_literals: bool) -> None:
        self._who = who
        self._has_literals = has_literals
        self._data = bytearray()
        self._at = 0
        """Where the line goes on behind its last literal: whatever pieces it comes in, nothing is looked at twice."""

    def add(self, data: bytes) -> None:
        self._data += data

    def rest(self) -> bytes:
        """What was not taken, which is taken with that."""
        rest = bytes(self._data)
        self._data.clear()
        self._at = 0
        return rest

    def __bool__(self) -> bool:
        return bool(self._data)

    def next(self) -> bytes | None:
        """The next line, once it is whole."""
        while (end := self._data.find(b"\n", self._at)) >= 0 and end - self._at <= MAX_LINE:
            part = self._data[self._at : end].removesuffix(b"\r")
            size = literal_behind(part) if self._has_literals else None
            if size is None:
                line = bytes(self._data[:end]).removesuffix(b"\r")
                del self._data[: end + 1]
                self._at = 0
                return line
            self._at = end + 1 + size
        if max(end, len(self._data)) - self._at > MAX_LINE:
            detail = f"the {self._who} sent a line of over {MAX_LINE} bytes before TLS"
            raise Refused(Reason.TOO_LONG, detail, is_backends=self._who == "backend")
        return None


class _State(Enum):
    GREETING = auto()
    COMMAND = auto()
    ANSWER = auto()
    RESET = auto()


class TextServer(Negotiation):
    """Server mode."""

    def __init__(self, dialect: Dialect, *, required: bool = True) -> None:
        super().__init__()
        self._dialect = dialect
        self._is_required = required
        self._state = _State.GREETING
        self._command: Command | None = None
        self._answer: list[bytes] = []
        self._client = _Lines("client", has_literals=False)
        self._backend = _Lines("backend", has_literals=dialect.has_literals)
        self._when_complete = {
            _State.GREETING: self._greeted,
            _State.ANSWER: self._answered,
            _State.RESET: self._was_reset,
        }

    def farewell(self, text: str) -> bytes:
        """In the words of the protocol."""
        return self._dialect.farewell(text)

    def is_backends_turn(self) -> bool:
        """Its greeting or an answer is not here yet."""
        return self._state is not _State.COMMAND

    def on_backend(self, data: bytes) -> None:
        """Its greeting, its answers, or what it says out of turn."""
        self._backend.add(data)
        while self.verdict is Verdict.GO_ON and (line := self._backend.next()) is not None:
            if self._state is _State.COMMAND:
                self.tell_client(line + b"\r\n")
                continue
            self._answer.append(line)
            if self._dialect.is_complete(self._answer, self._command):
                lines, self._answer = self._answer, []
                self._when_complete[self._state](lines)
                self._serve()

    def on_client(self, data: bytes) -> None:
        """Its commands, one at a time."""
        if self._state is _State.RESET:
            raise _injected(self._dialect)
        self._client.add(data)
        self._serve()

    def on_secured(self) -> None:
        """What the backend had begun to say goes on within TLS."""
        self.tell_client(self._backend.rest())
        self.tell_backend(self._dialect.first)
        self.verdict = Verdict.RELAY

    # What the backend said.

    def _greeted(self, lines: list[bytes]) -> None:
        if not self._dialect.is_good(lines, None):
            if not self._is_required:
                self.tell_client(_joined(lines))
                self._give_way()
                return
            said = shown(lines[-1].decode("ascii", "backslashreplace"))
            words = _joined(lines) if _is_turned_away(lines, self._dialect) else None
            raise Refused(Reason.BACKEND, f"the backend greets with {said}, and so cannot be used with TLS", words)
        self._answered(lines)

    def _answered(self, lines: list[bytes]) -> None:
        if self._command is not None and self._command.verb == self._dialect.leave:
            raise Refused(Reason.PLAINTEXT, "the client leaves before TLS", _joined(lines))
        self.tell_client(_joined(self._dialect.offer(lines, self._command, self._is_required)))
        self._state, self._command = _State.COMMAND, None

    def _was_reset(self, _: list[bytes]) -> None:
        self._say(self._dialect.go_ahead, self._command)
        self.verdict = Verdict.START_TLS

    # What the client said.

    def _serve(self) -> None:
        while self.verdict is Verdict.GO_ON and self._state is _State.COMMAND:
            line = self._client.next()
            if line is None:
                return
            if b"\0" in line or b"\r" in line:
                raise Refused(Reason.MALFORMED, "the client sent a NUL or a carriage return within a line")
            self._obey(_parsed(line, has_tag=self._dialect.has_tags))

    def _obey(self, command: Command) -> None:
        dialect = self._dialect
        is_start = command.verb == dialect.start
        is_allowed = not dialect.before.isdisjoint((command.verb, f"{command.verb} {command.rest.upper()}"))
        if command.rest and (is_start or (is_allowed and not dialect.has_words)):
            self._say(dialect.misuse, command)
        elif is_start:
            self._begin(command)
        elif is_allowed and (self._is_required or command.verb != dialect.leave):
            self._command, self._state = command, _State.ANSWER
            self.tell_backend(command.line + b"\r\n")
        elif not self._is_required:
            self.tell_backend(command.line + b"\r\n")
            self._give_way()
        else:
            self._say(dialect.demand if command.verb else dialect.misuse, command)
            if _UNASKED_LITERAL.search(command.line):
                raise Refused(Reason.PLAINTEXT, "the client sends what has to wait for TLS, without waiting")

    def _give_way(self) -> None:
        self.tell_backend(self._client.rest())
        self.tell_client(self._backend.rest())
        self.verdict = Verdict.PLAINTEXT

    def _begin(self, command: Command) -> None:
        if self._client:
            raise _injected(self._dialect)
        self._command, self._state = command, _State.RESET
        if self._dialect.reset:
            self.tell_backend(self._dialect.reset)
        else:
            self._was_reset([])

    def _say(self, words: str, command: Command | None) -> None:
        tag = command.tag.decode("ascii") if command else ""
        self.tell_client(words.format(tag=tag).encode("ascii") + b"\r\n")


def _parsed(line: bytes, *, has_tag: bool) -> Command:
    """The words of a line. A tag that is none is answered as one that is missing (RFC 9051 section 7.1)."""
    tag, words = b"", line
    if has_tag:
        tag, _, words = line.partition(b" ")
        if not _TAG.match(tag):
            return Command(line, b"*", "", "")
    verb, _, rest = words.decode("ascii", "backslashreplace").strip(" ").partition(" ")
    return Command(line, tag, verb.upper(), rest.strip(" "))


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\r\n" for line in lines)


def _injected(dialect: Dialect) -> Refused:
    return Refused(Reason.INJECTED, f"the client sent plaintext behind {dialect.start}; someone may have added it")
