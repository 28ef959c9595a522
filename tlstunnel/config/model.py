"""The configuration as values: frozen, complete, already checked.

Only `config.load` builds these. Whoever holds one need not ask whether it is valid: paths exist, units are seconds
and bytes, access rules are present where they must be, and what is `None` is not used. The defaults of all keys
are written here; what a key means is told in docs/reference/configuration.md.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from tlstunnel.access.policy import Policy
from tlstunnel.address import Listen, Target

Network = IPv4Network | IPv6Network
COMMAND_LINE = "command line"
"""What `Config.source` says where there is no file."""
LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


class Mode(enum.StrEnum):
    """What a service does with TLS: "server" accepts TLS and forwards plaintext, "client" accepts plaintext and
    originates TLS, "passthrough" routes TLS by server name without terminating it."""

    SERVER = "server"
    CLIENT = "client"
    PASSTHROUGH = "passthrough"


class ClientAuth(enum.StrEnum):
    """Whether clients are asked for a certificate: not at all, asked, or refused without one."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


class Failover(enum.StrEnum):
    """How one of several targets is chosen: the first that answers, or each in turn."""

    PRIORITY = "priority"
    ROUND_ROBIN = "round-robin"


class ProxyProtocol(enum.StrEnum):
    """Which PROXY protocol header tells the target who the client is."""

    NONE = "none"
    V1 = "v1"
    V2 = "v2"


class SNIMismatch(enum.StrEnum):
    """What a client gets that asks for a server name nobody configured: the service's own, or an alert."""

    DEFAULT = "default"
    REJECT = "reject"


class ALPNMismatch(enum.StrEnum):
    """What a client gets that offers application protocols, but none of ours: an alert, or a session without one."""

    REJECT = "reject"
    IGNORE = "ignore"


class CRLExpired(enum.StrEnum):
    """What a revocation list past its date is: an error that stops a start or a reload, or a warning."""

    ERROR = "error"
    WARNING = "warning"


class OCSPStaple(enum.StrEnum):
    """Where the OCSP response comes from that we staple: nowhere, a file, or the CA's responder."""

    OFF = "off"
    FILE = "file"
    AUTO = "auto"


class StartTLS(enum.StrEnum):
    """The protocols in which a client asks for TLS in plaintext, before it speaks TLS."""

    POSTGRES = "postgres"
    SMTP = "smtp"
    LMTP = "lmtp"
    IMAP = "imap"
    POP3 = "pop3"
    SIEVE = "sieve"
    NNTP = "nntp"
    LDAP = "ldap"
    MYSQL = "mysql"
    XMPP = "xmpp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How often something may happen: a token bucket that holds `burst` and gains `count` in `per_s` seconds."""

    count: float
    per_s: float
    burst: float
    """As many at once, after a rest; `count` unless written otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """Where a certificate and its key are read from."""

    certificate: Path | None = None
    key: Path | None = None
    p12: Path | None = None
    key_passphrase_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSSettings:
    """What is offered in a handshake."""

    min_version: str = "1.2"
    max_version: str = "1.3"
    ciphers: str = ""
    ciphersuites: str = ""
    groups: str = ""
    alpn: tuple[str, ...] = ()
    alpn_required: bool = False
    alpn_mismatch: ALPNMismatch = ALPNMismatch.REJECT


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepalive:
    """When TCP asks whether the other machine is still there (tcp(7)), in whole seconds.

    The kernel's own two hours are longer than idle_timeout, and than any firewall or NAT between remembers a connection
    that is quiet. Two minutes of silence are told from a network's hiccup.
    """

    idle_s: int = 60
    """After so long without a word."""
    interval_s: int = 10
    """Again after so long without an answer."""
    count: int = 6
    """So many times before the connection is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds; infinite is "never"."""

    handshake_s: float = 10.0
    connect_s: float = 5.0
    idle_s: float = 3600.0
    half_close_s: float = 60.0
    drain_s: float = 30.0
    max_lifetime_s: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetTLS:
    """How TLS is originated: always in client mode, in server mode with target_tls."""

    ca: Path | None = None
    server_name: str | None = None
    verify: Policy | None = None
    certificate: CertificateFiles | None = None
    crl: tuple[Path, ...] = ()
    tls: TLSSettings = TLSSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerName:
    """One more set of names on a service's listeners, with what differs for them (`[[services.X.sni]]`).

    The loader fills in what is not written from the service; in passthrough mode only names and targets are used.
    """

    names: tuple[str, ...]
    """Exact names, or `*.` and a name for one more label."""
    certificate: tuple[CertificateFiles, ...]
    targets: tuple[Target, ...]
    """Where connections for these names go."""
    policy: Policy
    """The rules for these names; whether certificates are asked for is the service's own decision."""
    tls: TLSSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One listen/target pair with its rules."""

    name: str
    mode: Mode
    listen: tuple[Listen, ...]
    unix_mode: int = 0o660
    targets: tuple[Target, ...]
    failover: Failover = Failover.PRIORITY
    fallback_target: tuple[Target, ...] = ()
    source_address: str | None = None
    certificate: tuple[CertificateFiles, ...] = ()
    client_auth: ClientAuth = ClientAuth.NONE
    client_ca: Path | None = None
    crl: tuple[Path, ...] = ()
    crl_expired: CRLExpired = CRLExpired.ERROR
    ocsp_staple: OCSPStaple = OCSPStaple.OFF
    ocsp_response: tuple[Path, ...] = ()
    ocsp_cache: Path | None = None
    policy: Policy = Policy()
    tls: TLSSettings = TLSSettings()
    sni: tuple[ServerName, ...] = ()
    sni_mismatch: SNIMismatch = SNIMismatch.DEFAULT
    http_hint: bool = True
    starttls: StartTLS | None = None
    """What is negotiated before TLS: with the client in server mode, with the target in client mode."""
    starttls_required: bool = True
    """Server mode: whether a client that does not ask for TLS is refused."""
    target_tls: TargetTLS | None = None
    """How TLS is originated: always set in client mode; in server mode when target_tls says so."""
    timeouts: Timeouts = Timeouts()
    keepalive: Keepalive | None = Keepalive()
    """When TCP asks whether clients and targets are still there. None is "never"."""
    max_connections: int | None = None
    max_connections_per_ip: int | None = None
    connection_rate_per_ip: Rate | None = None
    handshake_rate: Rate | None = None
    allow_from: tuple[Network, ...] = ()
    deny_from: tuple[Network, ...] = ()
    proxy_protocol: ProxyProtocol = ProxyProtocol.NONE
    accept_proxy_protocol: bool = False
    proxy_tlvs: bool = True
    proxy_trusted: tuple[Network, ...] = LOOPBACK
    strict_close: bool = False
    unsafe_target: bool = False
    unsafe_listen: bool = False
    unsafe_keylog: bool = False


MAX_WORKERS = 240
"""Worker processes of one configuration: those of two must have room in `observe.counters`, while one drains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The daemon as a whole."""

    workers: int | None = None
    """None ("auto") is one for each usable core."""
    user: str | None = None
    group: str | None = None
    max_connections: int | None = None
    reload_poll_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """The endpoint for metrics, health and status."""

    listen: Listen | None = None
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    unsafe_admin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What is written, how and from which level on."""

    format: str = "text"
    level: str = "info"
    target: str = "stderr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything one daemon is told."""

    services: tuple[Service, ...]
    process: Process = Process()
    admin: Admin = Admin()
    log: Log = Log()
    source: str = COMMAND_LINE
    """The file it was read from, for messages."""
