"""The configuration as values: frozen, complete, already checked.

Only `config.load` builds these. Whoever holds one need not ask whether it is valid: paths exist, units are seconds
and bytes, access rules are present where they must be, and what is `None` means "never" or "not used".
The docstring of each field is its entry in the reference manual.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from tlstunnel.address import Listen, Target
from tlstunnel.tls.policy import Policy


class Mode(enum.StrEnum):
    """What a service does with TLS."""

    SERVER = "server"
    """Accept TLS, forward plaintext (or TLS again, with target_tls)."""
    CLIENT = "client"
    """Accept plaintext, originate TLS."""
    PASSTHROUGH = "passthrough"
    """Route TLS by server name without terminating it."""


class ClientAuth(enum.StrEnum):
    """Whether a client must show a certificate."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


class Failover(enum.StrEnum):
    """How one of several targets is chosen."""

    PRIORITY = "priority"
    ROUND_ROBIN = "round-robin"


class ProxyProtocol(enum.StrEnum):
    """Which PROXY protocol header is sent to the target."""

    NONE = "none"
    V1 = "v1"
    V2 = "v2"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """Where a certificate and its key are read from."""

    certificate: Path | None = None
    """PEM: the certificate, then its chain; may hold the key too."""
    key: Path | None = None
    """PEM: the private key. Left out, it is looked for in the certificate's file."""
    p12: Path | None = None
    """PKCS#12: certificate, chain and key in one file, instead of the two above."""
    key_passphrase_file: Path | None = None
    """The first line is the passphrase of the key or of the PKCS#12 file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSSettings:
    """What is offered in a handshake."""

    min_version: str = "1.2"
    """Lowest TLS version: "1.2" or "1.3". Older versions are broken and not offered by anyone current."""
    max_version: str = "1.3"
    """Highest TLS version."""
    ciphers: str = ""
    """TLS 1.2 ciphers, as OpenSSL writes lists. Empty: ECDHE with AES-GCM or ChaCha20-Poly1305 only."""
    ciphersuites: str = ""
    """TLS 1.3 suites, colon-separated. Empty: AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305."""
    groups: str = ""
    """Key-exchange groups, colon-separated, in order of preference. Empty: X25519MLKEM768:X25519:P-256:P-384."""
    alpn: tuple[str, ...] = ()
    """Application protocols, in order of preference. Empty: the extension is not used."""
    alpn_required: bool = False
    """Whether a peer without a protocol in common is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds; `None` is "never"."""

    handshake_s: float | None = 10.0
    """From the first byte awaited to the end of the TLS handshake."""
    connect_s: float | None = 5.0
    """To reach a backend, all addresses and targets together."""
    idle_s: float | None = 3600.0
    """Without a byte in either direction."""
    half_close_s: float | None = 60.0
    """The same once one side has finished; traffic resets it."""
    drain_s: float | None = 30.0
    """For open links to finish when tlstunnel stops or replaces its workers."""
    max_lifetime_s: float | None = None
    """From accept to the end, however busy the link is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendTLS:
    """How TLS is originated: always in client mode, in server mode with target_tls."""

    ca: Path | None = None
    """PEM: the CAs that may have issued the server's certificate. None: the system's."""
    server_name: str | None = None
    """Sent as SNI and verified, instead of the target's host."""
    verify: Policy | None = None
    """Rules the server's certificate must meet on top of chain and name."""
    certificate: CertificateFiles | None = None
    """Our own certificate, shown when the server asks for one."""
    crl: tuple[Path, ...] = ()
    """Revocation lists the server's certificate is checked against."""
    tls: TLSSettings = TLSSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerName:
    """One more set of names on a service's listeners, with what differs for them (`[[services.X.sni]]`)."""

    names: tuple[str, ...]
    """Exact names, or `*.` and a name for one more label."""
    certificate: tuple[CertificateFiles, ...]
    targets: tuple[Target, ...]
    policy: Policy
    tls: TLSSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One listen/target pair with its rules."""

    name: str
    mode: Mode
    listen: tuple[Listen, ...]
    targets: tuple[Target, ...]
    failover: Failover = Failover.PRIORITY

    certificate: tuple[CertificateFiles, ...] = ()
    """Server mode. Several for one name: RSA beside ECDSA, chosen by what the client offers."""
    client_auth: ClientAuth = ClientAuth.NONE
    client_ca: Path | None = None
    crl: tuple[Path, ...] = ()
    policy: Policy = Policy()
    tls: TLSSettings = TLSSettings()
    sni: tuple[ServerName, ...] = ()
    backend_tls: BackendTLS | None = None

    timeouts: Timeouts = Timeouts()
    max_connections: int | None = None
    max_connections_per_ip: int | None = None
    proxy_protocol: ProxyProtocol = ProxyProtocol.NONE
    accept_proxy_protocol: bool = False
    strict_close: bool = False
    """Whether EOF without close_notify is an error that cuts the link (RFC 8446 section 6.1) instead of an EOF."""
    unsafe_target: bool = False
    """Allow a plaintext target that is neither loopback nor a unix socket."""
    unsafe_listen: bool = False
    """Allow a plaintext listener (client mode) that is neither loopback nor a unix socket."""
    unsafe_keylog: bool = False
    """Honour SSLKEYLOGFILE: whoever reads that file reads the traffic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The daemon as a whole."""

    workers: int | None = None
    """Worker processes; None ("auto") is one for each usable core."""
    user: str | None = None
    group: str | None = None
    max_connections: int | None = None
    """Over all services."""
    reload_poll_s: float | None = 30.0
    """How often the content of certificate and key files is looked at; None: only on SIGHUP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """The endpoint for metrics, health and status."""

    listen: Listen | None = None
    unsafe_admin: bool = False
    """Allow a plaintext admin endpoint that is neither loopback nor a unix socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What is written, how and from which level on."""

    format: str = "text"
    """"text" or "json"."""
    level: str = "info"
    """"debug", "info", "warning" or "error"."""
    target: str = "stderr"
    """"stderr", "syslog" or "file:PATH"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything one daemon is told."""

    services: tuple[Service, ...]
    process: Process = Process()
    admin: Admin = Admin()
    log: Log = Log()
    source: str = "command line"
    """The file it was read from, for messages."""
