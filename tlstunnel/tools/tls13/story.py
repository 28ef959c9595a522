"""A handshake as a numbered story, ready to be printed, drawn or written as JSON.

`narrate.py` makes a `Story` from a connection's notes. The JSON form, `Story.as_json()`, is a contract for scripts:
its keys are those of the dataclasses below, bytes are lower-case hexadecimal, absent values are null.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

FORMAT = "tlstunnel-explain-1"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: its name in RFC 8446, its value in words, and what it is for. `depth` nests."""

    name: str
    value: str
    meaning: str = ""
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Derivation:
    """A secret: its name, the formula of RFC 8446, the inputs and the value."""

    name: str
    formula: str
    inputs: tuple[tuple[str, bytes], ...]
    value: bytes


@dataclass(frozen=True, slots=True)
class Keys:
    """Key and IV with which `owner` protects its records."""

    owner: str
    epoch: str
    secret_name: str
    key: bytes
    iv: bytes


@dataclass(frozen=True, slots=True)
class Check:
    """What one end verified, and how. `passed` is false only for a chain that is not trusted."""

    by: str
    text: str
    values: tuple[tuple[str, bytes], ...]
    passed: bool


@dataclass(frozen=True, slots=True)
class WireRecord:
    """A record on the wire. `inner_type`, `sequence`, `nonce` are None for an unprotected one."""

    number: int
    sender: str
    outer_type: str
    inner_type: str | None
    length: int
    epoch: str | None
    sequence: int | None
    nonce: bytes | None
    bytes: bytes


@dataclass(slots=True)
class Step:
    """One numbered step.

    `kind` is "message" (a handshake message), "secrets" (both ends compute), or "record" (anything else on the wire).
    `protection` names the keys around it, None is plaintext; `transcript_hash` is the hash after it.
    """

    number: int
    kind: str
    title: str
    section: str
    text: list[str]
    sender: str | None = None
    protection: str | None = None
    fields: tuple[Field, ...] = ()
    derivations: list[Derivation] = field(default_factory=list)
    keys: list[Keys] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    transcript_hash: bytes | None = None
    bytes: bytes | None = None


@dataclass(slots=True)
class Story:
    """A handshake from the first byte to the last."""

    title: str
    server: str
    """HOST:PORT, or "in this process"."""
    summary: dict[str, Any]
    steps: list[Step]
    records: list[WireRecord]
    failure: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Values that `json.dumps` takes."""
        converted: dict[str, Any] = {"format": FORMAT, **_plain(self)}
        return converted


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple) and value and all(isinstance(each, tuple) and len(each) == 2 for each in value):
        return [{"name": name, "value": _plain(each)} for name, each in value]
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
