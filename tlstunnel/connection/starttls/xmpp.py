"""XMPP: a stream is opened in plaintext only to ask for TLS, and opened anew within it (RFC 6120 section 5).

So the backend need not hear of the first stream, in server mode, nor the client, in client mode: both see one stream,
and nothing that was said in plaintext is part of it. Before TLS there is nothing to do but to ask for it; TLS is always
required. Of XML only tags are read, and what RFC 6120 section 11.1 forbids is refused.
"""

from __future__ import annotations

import re
import secrets
from enum import Enum, auto
from typing import NamedTuple

from tlstunnel.connection.starttls.conversation import shown
from tlstunnel.connection.starttls.negotiation import Negotiation, Reason, Refused, Verdict
from tlstunnel.errors import printable

_STREAMS, _TLS, _ERRORS = (
    b"http://etherx.jabber.org/streams",
    b"urn:ietf:params:xml:ns:xmpp-tls",
    b"urn:ietf:params:xml:ns:xmpp-streams",
)
_CONTENTS = (b"jabber:client", b"jabber:server")
_MAX_TAG = 2048
_NAME = rb"[^\s/>\"'=<?!]{1,100}"
_ATTRIBUTE = re.compile(rb"\s+(" + _NAME + rb")\s*=\s*(\"[^\"<]*\"|'[^'<]*')")
_TAG = re.compile(rb"<(/?)(" + _NAME + rb")((?:[\s/](?:[^<>\"']|\"[^\"<]*\"|'[^'<]*')*)?)>")
_DECLARATION = re.compile(rb"<\?xml\s[^<>]*\?>")
_QUOTED = re.compile(rb"\"[^\"]*(?:\"|\Z)|'[^']*(?:'|\Z)")
_ADDRESS = re.compile(rb"[^\x00-\x20\x7f\"'<>&]{1,1023}\Z")
_START = b"<starttls xmlns='" + _TLS + b"'/>"
_PROCEED = b"<proceed xmlns='" + _TLS + b"'/>"
_FEATURES = b"<stream:features><starttls xmlns='" + _TLS + b"'><required/></starttls></stream:features>"


class _Tag(NamedTuple):
    """A start tag, an end tag, or both in one."""

    space: bytes
    name: bytes
    attributes: dict[bytes, bytes]
    is_start: bool
    is_end: bool


class _Tags:
    """The tags of a stream, with the namespaces that they say they are in, or that its header did."""

    def __init__(self, who: str, reason: Reason) -> None:
        self._who, self._reason = who, reason
        self._data = b""
        self._spaces: dict[bytes, bytes] = {}
        self._has_begun = False
        self._may_end = False
        """Something came that may end a tag; till then there is nothing to look for, whatever pieces it comes in."""

    def add(self, data: bytes) -> None:
        self._data += data
        self._may_end = self._may_end or b">" in data

    def __bool__(self) -> bool:
        return bool(self._data)

    def next(self, *, skips_text: bool = False) -> _Tag | None:
        """The next one, once it is whole.

        Args:
            skips_text: text may stand before it.
        """
        while True:
            self._skip(skips_text=skips_text)
            if self._may_end and (found := _TAG.match(self._data)):
                tag = self._read(found)
                self._take(found)
                return tag
            if self._may_end and not self._has_begun and (found := _DECLARATION.match(self._data)):
                self._take(found)
                continue
            may_become = self._data[:2] != b"<!" and (self._data[:2] != b"<?" or not self._has_begun)
            if not may_become or (self._may_end and b">" in _QUOTED.sub(b"", self._data)):
                raise self._malformed()
            if len(self._data) > _MAX_TAG:
                detail = f"the {self._who} sent a tag of over {_MAX_TAG} bytes before TLS"
                raise Refused(Reason.TOO_LONG, detail, is_backends=self._who == "server")
            self._may_end = False
            return None

    def _take(self, found: re.Match[bytes]) -> None:
        self._data = self._data[found.end() :]
        self._has_begun = True

    def _malformed(self) -> Refused:
        said = shown(self._data[:60].decode("utf-8", "backslashreplace"))
        return Refused(self._reason, f"the {self._who} says {said}, which is not XMPP before TLS")

    def _skip(self, *, skips_text: bool) -> None:
        start = self._data.find(b"<")
        text = self._data if start < 0 else self._data[:start]
        if text.strip() and not skips_text:
            raise self._malformed()
        self._data = self._data[len(text) :]

    def _read(self, found: re.Match[bytes]) -> _Tag:
        attributes, rest = {}, found[3]
        while attribute := _ATTRIBUTE.match(rest):
            attributes[attribute[1]] = attribute[2][1:-1]
            rest = rest[attribute.end() :]
        if rest.lstrip() not in {b"", b"/"}:
            raise self._malformed()
        spaces = {name.partition(b":")[2]: value for name, value in attributes.items() if name.startswith(b"xmlns")}
        self._spaces = self._spaces or spaces  # of the header, which comes first
        prefix, _, name = found[2].rpartition(b":")
        space = spaces.get(prefix, self._spaces.get(prefix, b""))
        return _Tag(space, name, attributes, is_start=not found[1], is_end=bool(found[1] or rest.endswith(b"/")))


class _State(Enum):
    HEADER = auto()
    FEATURES = auto()
    STARTING = auto()


class _Stream(Negotiation):
    """What both modes do with the client's first stream."""

    def __init__(self, stream_id: str | None = None) -> None:
        super().__init__()
        self._id = stream_id or secrets.token_hex(8)
        self._client = _Tags("client", Reason.MALFORMED)
        self._content, self._to = _CONTENTS[0], b""
        self._is_open = False

    def farewell(self, text: str, condition: str = "undefined-condition") -> bytes:
        """A stream error (section 4.9), in a stream: ours is opened for it if it is not open yet."""
        words = re.sub(r"[<>&]", "?", printable(text)).encode("ascii", "replace")
        name = condition.encode()
        said = b"<stream:error><" + name + b" xmlns='" + _ERRORS + b"'/>"
        said += b"<text xmlns='" + _ERRORS + b"'>" + words + b"</text></stream:error></stream:stream>"
        return said if self._is_open else self._header() + said

    def _open(self, tag: _Tag) -> None:
        """Read the client's header (section 4.7)."""
        to, content = tag.attributes.get(b"to", b""), tag.attributes.get(b"xmlns", b"")
        if (tag.space, tag.name, tag.is_end) != (_STREAMS, b"stream", False) or content not in _CONTENTS:
            raise self._wrong("the client does not begin with a stream of XMPP", Reason.MALFORMED, "invalid-namespace")
        if to and not _ADDRESS.match(to):
            raise self._wrong("the client's stream is to no address", Reason.MALFORMED, "improper-addressing")
        self._content, self._to = content, to
        if not tag.attributes.get(b"version", b"").startswith(b"1."):
            raise self._wrong("the client's stream has no version 1.0", Reason.MALFORMED, "unsupported-version")

    def _header(self) -> bytes:
        """Ours to the client."""
        origin = b" from='" + self._to + b"'" if self._to else b""
        return _header(self._content, b" id='" + self._id.encode() + b"'" + origin)

    def _wrong(self, detail: str, reason: Reason, condition: str) -> Refused:
        return Refused(reason, detail, self.farewell(reason.text, condition))


class Server(_Stream):
    """Server mode: we are the server of the first stream.

    | state     | the client sends     | it gets                                                                 |
    |-----------|----------------------|-------------------------------------------------------------------------|
    | HEADER    | its stream's header  | ours, with TLS as the only feature, and required: FEATURES              |
    | FEATURES  | starttls             | STARTING                                                                |
    |           | the stream's end     | ours                                                                    |
    |           | anything else        | policy-violation (section 4.9.3.14)                                     |
    | STARTING  | (starttls has ended) | proceed, then TLS                                                       |
    """

    def __init__(self, stream_id: str | None = None) -> None:
        super().__init__(stream_id)
        self._state = _State.HEADER

    def on_client(self, data: bytes) -> None:
        """Its header, then starttls."""
        self._client.add(data)
        while self.verdict is Verdict.GO_ON and (tag := self._client.next()):
            if self._state is _State.HEADER:
                self._open(tag)
                self.tell_client(self._header() + _FEATURES)
                self._is_open, self._state = True, _State.FEATURES
            elif tag.name == b"stream" and tag.is_end and not tag.is_start:
                raise Refused(Reason.PLAINTEXT, "the client leaves before TLS", b"</stream:stream>")
            elif not self._is_next(tag):
                said = shown(tag.name.decode("utf-8", "backslashreplace"))
                raise self._wrong(f"the client sends {said} in place of starttls", Reason.PLAINTEXT, "policy-violation")
            elif not tag.is_end:
                self._state = _State.STARTING
            elif self._client:
                detail = "the client sent plaintext behind starttls; someone may have added it"
                raise self._wrong(detail, Reason.INJECTED, "policy-violation")
            else:
                self.tell_client(_PROCEED)
                self.verdict = Verdict.START_TLS

    def _is_next(self, tag: _Tag) -> bool:
        """A starttls that begins, or the end of one that has begun; an end has no namespace of its own."""
        if self._state is _State.STARTING:
            return (tag.name, tag.is_start) == (b"starttls", False)
        return (tag.space, tag.name, tag.is_start) == (_TLS, b"starttls", True)

    def on_backend(self, data: bytes) -> None:
        """A server does not speak first."""
        raise Refused(Reason.BACKEND, f"the backend begins with {shown(data.decode('latin-1'))}, unasked")


class Client(_Stream):
    """Client mode: we are the client of a stream of our own, to the address that our client named.

    | state     | what comes                               | the server gets                                       |
    |-----------|------------------------------------------|-------------------------------------------------------|
    | HEADER    | the client's header                      | ours: FEATURES                                        |
    | FEATURES  | the server's header, and its features    | starttls, if it is among them: STARTING               |
    | STARTING  | the server's proceed                     | TLS, and within it all that the client has said       |
    """

    tls_with_client = False

    def __init__(self, stream_id: str | None = None) -> None:
        super().__init__(stream_id)
        self._state = _State.HEADER
        self._said = bytearray()
        self._backend = _Tags("server", Reason.REFUSED)
        self._open_tags: list[bytes] = []
        self._offers = False

    def is_backends_turn(self) -> bool:
        """It has been asked."""
        return self._state is not _State.HEADER

    def on_client(self, data: bytes) -> None:
        """Its header says whom to ask; it and all the rest wait for TLS."""
        self._said += data
        if self._state is _State.HEADER:
            self._client.add(data)
            tag = self._client.next()
            if tag is not None:
                self._open(tag)
                self.tell_backend(_header(self._content, b" to='" + self._to + b"'" if self._to else b""))
                self._state = _State.FEATURES

    def on_backend(self, data: bytes) -> None:
        """Its header and features, then its answer."""
        self._backend.add(data)
        while self.verdict is Verdict.GO_ON and (tag := self._backend.next(skips_text=len(self._open_tags) > 1)):
            if tag.is_start:
                self._begun(tag, len(self._open_tags))
                self._open_tags.append(tag.name)
            if tag.is_end:
                if [tag.name] != self._open_tags[-1:] or len(self._open_tags) == 1:
                    raise Refused(Reason.REFUSED, "the server closes the stream before TLS")
                self._open_tags.pop()
                if len(self._open_tags) == 1:
                    self._ended()

    def on_secured(self) -> None:
        """The client's stream."""
        self.tell_backend(bytes(self._said))
        self.verdict = Verdict.RELAY

    def _begun(self, tag: _Tag, depth: int) -> None:
        expected = {
            (_State.FEATURES, 0): (_STREAMS, b"stream"),
            (_State.FEATURES, 1): (_STREAMS, b"features"),
            (_State.STARTING, 1): (_TLS, b"proceed"),
        }.get((self._state, depth))
        if expected not in {None, (tag.space, tag.name)} or self._state is _State.HEADER:
            said = shown(tag.name.decode("utf-8", "backslashreplace"))
            raise Refused(Reason.REFUSED, f"the server answers with {said}; it has no TLS here")
        self._offers = self._offers or (depth == 2 and (tag.space, tag.name) == (_TLS, b"starttls"))

    def _ended(self) -> None:
        if self._state is _State.STARTING:
            if self._backend:
                raise Refused(Reason.INJECTED, "the server sent plaintext behind proceed; someone may have added it")
            self.verdict = Verdict.START_TLS
        elif self._offers:
            self.tell_backend(_START)
            self._state = _State.STARTING
        else:
            raise Refused(Reason.REFUSED, "the XMPP server does not offer starttls")


def _header(content: bytes, attributes: bytes) -> bytes:
    return (
        b"<?xml version='1.0'?><stream:stream xmlns='" + content + b"' xmlns:stream='" + _STREAMS + b"'"
        + attributes + b" version='1.0'>"
    )  # fmt: skip
