"""What all protocols have in common between accept and TLS: who may say what, how it ends, and its bounds.

A negotiation is fed what comes from either side and answers each time with a `Step`: what is to be sent, and a verdict.
It is pure; time is the caller's (`handshake_timeout`). In server mode the client begins TLS with us, in client mode we
begin TLS with the backend; that side is the one from which nothing that came in plaintext may be taken for protected
later (CVE-2011-0411, CVE-2021-23222). So a negotiation that says `START_TLS` has used up every byte of that side, or
hands it over as the beginning of TLS; what more it is fed from there is refused.

    step = negotiation.start()
    GO_ON: send what it says, then step = negotiation.from_client(...) or negotiation.from_backend(...)
    START_TLS: send, shake hands, then step = negotiation.secured(), and on as before, within TLS
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from tlstunnel.connection.starttls.conversation import MAX_PLAINTEXT, Conversation, InjectedError, StartTLSError

TLS_ALERT = b"\x15\x03\x01\x00\x02\x02\x0a"
"""A fatal alert, unexpected_message, for who speaks TLS where plaintext comes first (RFC 8446 section 6)."""
_NEVER_ASKED = "it left without asking for TLS; switch STARTTLS on in it, if it is no health check and no scanner"
_TLS_HANDSHAKE = 0x16
MAX_ANSWERS = 2 * MAX_PLAINTEXT
"""What one step may say to the client: answers are longer than the nonsense that a flood of them is for."""


class Verdict(Enum):
    """What the caller does after a step."""

    GO_ON = "go on"
    """Send what is to be sent, and feed what comes."""
    START_TLS = "start TLS"
    """Send what is to be sent, shake hands, then call `secured`."""
    RELAY = "relay"
    """TLS stands and the negotiation has done its part; from here bytes are only relayed."""
    PLAINTEXT = "plaintext"
    """No TLS will come: it is not required, or the protocol has none for this. From here bytes are only relayed."""
    REFUSED = "refused"
    """Send the last words, and close."""


class Reason(Enum):
    """Why a negotiation was refused: its label, and a sentence for whoever waits at the client."""

    label: str
    text: str

    def __init__(self, label: str, text: str) -> None:
        self.label, self.text = label, text

    REFUSED = ("starttls_refused", "the server does not go on to TLS")
    INJECTED = ("starttls_injected", "plaintext came where TLS had to begin")
    PLAINTEXT = ("starttls_missing", "TLS is required here")
    TLS_AT_ONCE = ("starttls_tls_at_once", "TLS begins here only after it was asked for in plaintext")
    MALFORMED = ("starttls_malformed", "this is not the protocol that is spoken here")
    TOO_LONG = ("starttls_too_long", "too much was said before TLS")
    BACKEND = ("starttls_backend", "the service behind this one cannot be used")


@dataclass(frozen=True, slots=True)
class Step:
    """An answer: what is to be sent now, and what comes next.

    Args:
        tls: what of TLS the client has sent already, for the session to begin with.
        reason, detail: of a refusal; the detail is one line for the log, whatever a stranger said.
        is_backends: a refusal for which a client can be to blame, and here the backend is.
    """

    verdict: Verdict
    to_client: bytes = b""
    to_backend: bytes = b""
    tls: bytes = b""
    reason: Reason | None = None
    detail: str = ""
    is_backends: bool = False


class Refused(Exception):
    """Inside a negotiation: it ends here. `words` are the client's to hear, None for those of the protocol."""

    def __init__(self, reason: Reason, detail: str, words: bytes | None = None, *, is_backends: bool = False) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.words, self.is_backends = reason, detail, words, is_backends


class Negotiation:
    """The frame that protocols fill: bounds, order, and refusals in one place. Nothing here raises.

    A protocol gives what it does with what it was fed (`on_client`, `on_backend`), and how it says goodbye.
    """

    tls_with_client = True
    """Server mode. In client mode TLS is with the backend."""

    def __init__(self) -> None:
        self.verdict = Verdict.GO_ON
        self.is_secured = False
        self.why_left = ""
        """Why the client left, if it does now, and what would be right; empty where nothing is known."""
        self.was_asked = True
        """TLS was asked for; else it came by itself, as one protocol allows."""
        self._to_client = bytearray()
        self._to_backend = bytearray()
        self._taken = {True: 0, False: 0}
        self._has_spoken = False
        self._tls = b""
        self._held = bytearray()
        """What the side without TLS said during the handshake."""

    # For the caller.

    def start(self) -> Step:
        """What is said before anybody has said anything."""
        return self._step(self.on_start)

    def from_client(self, data: bytes) -> Step:
        """The client has sent this."""
        return self._fed(data, is_client=True)

    def from_backend(self, data: bytes) -> Step:
        """The backend has sent this."""
        return self._fed(data, is_client=False)

    def secured(self) -> Step:
        """TLS stands."""
        if self.verdict is not Verdict.START_TLS:
            return self._step(lambda: None)
        self.is_secured, self.verdict = True, Verdict.GO_ON
        held, self._held = bytes(self._held), bytearray()

        def go_on() -> None:
            self.on_secured()
            if held:
                self._take(held, is_client=not self.tls_with_client)

        return self._step(go_on)

    @property
    def awaits_backend(self) -> bool:
        """Whether it is the backend's turn to say something, so that lost time is its doing."""
        return self.verdict is Verdict.GO_ON and self.is_backends_turn()

    def is_backends_turn(self) -> bool:
        """The same, of a negotiation that goes on. A client that asks for TLS speaks first in some protocols."""
        return False

    def farewell(self, text: str) -> bytes:
        """One line of ASCII in the words of the protocol, for a client whose connection cannot go on."""
        raise NotImplementedError

    # For the protocols.

    def on_start(self) -> None:
        """Nobody has said anything."""

    def on_client(self, data: bytes) -> None:
        """The client has said something more, in plaintext or, after `on_secured`, within TLS."""
        raise NotImplementedError

    def on_backend(self, data: bytes) -> None:
        """The backend has said something more."""
        raise NotImplementedError

    def on_secured(self) -> None:
        """TLS stands. Most protocols have nothing more to say."""
        self.verdict = Verdict.RELAY

    def on_tls_at_once(self, data: bytes) -> None:
        """The client's first byte is one of TLS."""
        instead = "ask for TLS first" if self.tls_with_client else "speak plaintext to a tunnel in client mode"
        words = b"" if self._has_spoken else TLS_ALERT
        raise Refused(Reason.TLS_AT_ONCE, f"the client speaks TLS from the first byte; it has to {instead}", words)

    def tell_client(self, data: bytes) -> None:
        """To the client, with this step."""
        if len(self._to_client) + len(data) > MAX_ANSWERS:
            raise Refused(Reason.TOO_LONG, f"answers of over {MAX_ANSWERS >> 10} KiB were due at once before TLS")
        self._has_spoken = self._has_spoken or bool(data)
        self._to_client += data

    def tell_backend(self, data: bytes) -> None:
        """To the backend, with this step."""
        self._to_backend += data

    # The frame.

    def _fed(self, data: bytes, *, is_client: bool) -> Step:
        if self.verdict is Verdict.REFUSED or not data:
            return Step(self.verdict)
        return self._step(lambda: self._take(data, is_client=is_client))

    def _take(self, data: bytes, *, is_client: bool) -> None:
        if self.verdict in {Verdict.RELAY, Verdict.PLAINTEXT}:
            (self.tell_backend if is_client else self.tell_client)(data)
            return
        is_first = not self._taken[is_client]
        self._taken[is_client] += len(data)
        if self._taken[is_client] > MAX_PLAINTEXT:
            who = "client" if is_client else "backend"
            raise Refused(
                Reason.TOO_LONG,
                f"the {who} said over {MAX_PLAINTEXT >> 10} KiB before the relay began",
                is_backends=not is_client,
            )
        if self.verdict is Verdict.START_TLS:
            if is_client == self.tls_with_client:
                # A client that has the go-ahead waits for TLS; words in plaintext would only puzzle it.
                words = b"" if self.tls_with_client else None
                raise Refused(
                    Reason.INJECTED, "plaintext came where TLS had to begin; someone may have added it", words
                )
            self._held += data
        elif is_client and is_first and data[0] == _TLS_HANDSHAKE:
            self.on_tls_at_once(data)
        else:
            if is_client and self.tls_with_client:
                self.why_left = _NEVER_ASKED
            (self.on_client if is_client else self.on_backend)(data)

    def _step(self, act: Callable[[], object]) -> Step:
        reason, detail, is_backends = None, "", False
        try:
            act()
        except Refused as exc:
            self.verdict, reason, detail = Verdict.REFUSED, exc.reason, exc.detail
            is_backends = exc.is_backends or (reason is Reason.INJECTED and not self.tls_with_client)
            self._to_backend.clear()
            self._to_client += self.farewell(exc.reason.text) if exc.words is None else exc.words
        step = Step(
            self.verdict, bytes(self._to_client), bytes(self._to_backend), self._tls, reason, detail, is_backends
        )
        self._tls = b""
        self._to_client.clear()
        self._to_backend.clear()
        return step


class Asking(Negotiation):
    """Client mode of the protocols in which we ask alone, before the client is heard: it then finds a fresh server.

    Args:
        conversation: how the server is asked; it returns what the client is to hear first.
        farewell: how the protocol says goodbye.
    """

    tls_with_client = False

    def __init__(self, conversation: Conversation, farewell: Callable[[str], bytes]) -> None:
        super().__init__()
        self._conversation = conversation
        self._farewell = farewell
        self._greeting = b""
        self._early = bytearray()
        """What the client said before its turn; it goes to the server within TLS."""

    def farewell(self, text: str) -> bytes:
        """As the protocol says it."""
        return self._farewell(text)

    def is_backends_turn(self) -> bool:
        """It is asked at once."""
        return True

    def on_start(self) -> None:
        """Ask."""
        self._converse(lambda: next(self._conversation))

    def on_client(self, data: bytes) -> None:
        """It has to wait."""
        self._early += data

    def on_backend(self, data: bytes) -> None:
        """The server answers."""
        self._converse(lambda: self._conversation.send(data))

    def on_secured(self) -> None:
        """The client's turn."""
        self.tell_client(self._greeting)
        self.tell_backend(bytes(self._early))
        self.verdict = Verdict.RELAY

    def _converse(self, turn: Callable[[], bytes]) -> None:
        try:
            outgoing = turn()
            while outgoing:
                self.tell_backend(outgoing)
                outgoing = self._conversation.send(b"")
        except StopIteration as stop:
            self._greeting = stop.value
            self.verdict = Verdict.START_TLS
        except InjectedError as exc:
            raise Refused(Reason.INJECTED, str(exc)) from exc
        except StartTLSError as exc:
            raise Refused(Reason.REFUSED, str(exc)) from exc
