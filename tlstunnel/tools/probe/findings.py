"""What a probe found: plain values, in the shape and under the names of the JSON that `--json` prints.

`None` stands for what could not be found out, never for "no". `docs/reference/probe.md` is the description of the JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any

SCHEMA = 1


class Severity(IntEnum):
    """How much a weakness matters."""

    INFO = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    @property
    def label(self) -> str:
        """The word for it."""
        return self.name.lower()


@dataclass(slots=True, kw_only=True)
class Target:
    """Who was asked."""

    host: str
    port: int | None
    address: str | None = None
    server_name: str | None = None
    name: str | None = None
    """The name the certificate was held against."""
    starttls: str | None = None


@dataclass(slots=True, kw_only=True)
class Timings:
    """Milliseconds, of one connection before the others; None for what did not happen."""

    lookup: float | None = None
    tcp: float | None = None
    starttls: float | None = None
    server_hello: float | None = None
    handshake: float | None = None
    first_byte: float | None = None


@dataclass(slots=True, kw_only=True)
class Version:
    """A version of the protocol, and whether the server takes it."""

    name: str
    id: int
    offered: bool | None


@dataclass(slots=True, kw_only=True)
class SuiteFound:
    """A cipher suite the server takes."""

    name: str
    id: int
    bits: int | None
    key_exchange: str | None
    """The group or the size of the prime that came with it."""
    flaws: list[str]


@dataclass(slots=True, kw_only=True)
class Ciphers:
    """The suites of one version, the server's favourite first; by our own preference if the client's order decides."""

    version: str
    order: str | None
    suites: list[SuiteFound]


@dataclass(slots=True, kw_only=True)
class GroupFound:
    """A key-exchange group the server takes."""

    name: str
    id: int
    bits: int | None
    post_quantum: bool


@dataclass(slots=True, kw_only=True)
class Groups:
    """The groups of one version, in the order in which the server chose them."""

    version: str
    order: str | None
    groups: list[GroupFound]


@dataclass(slots=True, kw_only=True)
class ALPN:
    """Application protocols."""

    protocols: list[str] = field(default_factory=list)
    refuses_others: bool | None = None
    """Whether a client that knows none of them is sent away."""


@dataclass(slots=True, kw_only=True)
class Resumption:
    """What a returning client is spared."""

    session_id: bool | None = None
    """Before TLS 1.3: by a session that the server remembers."""
    ticket: bool | None = None
    """Before TLS 1.3: by a ticket that the client keeps."""
    psk: bool | None = None
    """TLS 1.3."""
    tickets: int | None = None
    """How many tickets came after a handshake of TLS 1.3."""
    lifetime_s: int | None = None
    early_data: int | None = None
    """How many bytes of 0-RTT data the server takes; 0 is none."""


@dataclass(slots=True, kw_only=True)
class ClientCertificate:
    """Whether the server wants to know who the client is."""

    requested: bool | None = None
    required: bool | None = None
    authorities: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Features:
    """Properties of the handshake before TLS 1.3."""

    compression: list[str] = field(default_factory=list)
    secure_renegotiation: bool | None = None
    extended_master_secret: bool | None = None
    encrypt_then_mac: bool | None = None
    fallback_scsv: bool | None = None
    sha1_signatures: bool | None = None


@dataclass(slots=True, kw_only=True)
class Chain:
    """A chain the server sends, what is in it, and whether it verifies."""

    versions: list[str]
    certificates: list[dict[str, Any]]
    """As `tlstunnel cert show --json` describes certificates."""
    verifies: bool
    trusted: bool
    names_match: bool | None
    problems: list[str]
    strict: str | None
    staple: dict[str, Any] | None
    wants_staple: bool
    """Whether the certificate says that it is not to be taken without a staple (RFC 7633)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weakness:
    """Something to mend: a stable name, how much it matters, what is wrong, what to do."""

    id: str
    severity: Severity
    what: str
    remedy: str


@dataclass(slots=True, kw_only=True)
class Findings:
    """Everything that was found."""

    schema: int = SCHEMA
    target: Target
    started: str
    duration_ms: float = 0.0
    connections: int = 0
    timings_ms: Timings = field(default_factory=Timings)
    versions: list[Version] = field(default_factory=list)
    ciphers: list[Ciphers] = field(default_factory=list)
    groups: list[Groups] = field(default_factory=list)
    alpn: ALPN = field(default_factory=ALPN)
    resumption: Resumption = field(default_factory=Resumption)
    client_certificate: ClientCertificate = field(default_factory=ClientCertificate)
    features: Features = field(default_factory=Features)
    store: str | None = None
    """The file of CAs that chains were verified against."""
    chains: list[Chain] = field(default_factory=list)
    weaknesses: list[Weakness] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    """What could not be asked to the end, and why."""

    def version(self, number: int) -> Version | None:
        """What was found about one version."""
        return next((each for each in self.versions if each.id == number), None)

    def worst(self) -> Severity | None:
        """The severity of the worst weakness."""
        return max((each.severity for each in self.weaknesses), default=None)

    def as_json(self) -> dict[str, Any]:
        """The document of `--json`."""
        found = asdict(self)
        for weakness in found["weaknesses"]:
            weakness["severity"] = Severity(weakness["severity"]).label
        return found
