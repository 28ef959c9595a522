"""The configuration as values: frozen, complete, already checked.

Only `config.load` builds these. Whoever holds one need not ask whether it is valid: paths exist, units are seconds
and bytes, access rules are present where they must be, and what is `None` means "never" or "not used".
The docstring of each field is its entry in the reference manual.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from tlstunnel.address import Listen, Target
from tlstunnel.tls.policy import Policy

Network = IPv4Network | IPv6Network
COMMAND_LINE = "command line"
"""What `Config.source` says where there is no file."""
LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


class Mode(enum.StrEnum):
    """What a service does with TLS: "server" accepts TLS and forwards plaintext, "client" accepts plaintext and
    originates TLS, "passthrough" routes TLS by server name without terminating it."""

    SERVER = "server"
    """Accept TLS, forward plaintext (or TLS again, with target_tls)."""
    CLIENT = "client"
    """Accept plaintext, originate TLS."""
    PASSTHROUGH = "passthrough"
    """Route TLS by server name without terminating it."""


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
    """Where the proof comes from that our certificate is not revoked: nowhere, a file, or its CA's responder."""

    OFF = "off"
    FILE = "file"
    AUTO = "auto"


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
    """PEM: the certificate, then its chain; may hold the key too. A server may have several, such as RSA beside
    ECDSA, and uses the one that the client can verify."""
    key: Path | None = None
    """PEM: the private key. Left out, it is looked for in the certificate's file; else as many as certificates."""
    p12: Path | None = None
    """PKCS#12: certificate, chain and key in one file, instead of `certificate` and `key`."""
    key_passphrase_file: Path | None = None
    """The first line is the passphrase of the key or of the PKCS#12 file. A passphrase itself is never written in the
    configuration, so that nothing that prints or copies it can give it away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSSettings:
    """What is offered in a handshake."""

    min_version: str = "1.2"
    """Lowest TLS version: "1.2" or "1.3". Older versions are broken and not offered by anyone current."""
    max_version: str = "1.3"
    """Highest TLS version: "1.2" or "1.3". There is no reason to lower it but a broken peer."""
    ciphers: str = ""
    """TLS 1.2 ciphers, as OpenSSL writes lists. Empty: ECDHE with AES-GCM or ChaCha20-Poly1305 only."""
    ciphersuites: str = ""
    """TLS 1.3 suites, colon-separated. Empty: AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305."""
    groups: str = ""
    """Key-exchange groups, colon-separated, in order of preference. Empty: X25519MLKEM768:X25519:P-256:P-384."""
    alpn: tuple[str, ...] = ()
    """Application protocols, in order of preference. Empty: the extension is not used."""
    alpn_required: bool = False
    """Refuse a peer that has no protocol in common, also one that knows no ALPN."""
    alpn_mismatch: ALPNMismatch = ALPNMismatch.REJECT
    """Server mode: what a client gets that offers protocols, but none of `alpn`: "reject" means the alert
    no_application_protocol (RFC 7301 section 3.2), "ignore" a session without one. Who offers none at all goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds; `None` is "never"."""

    handshake_s: float | None = 10.0
    """From the first byte awaited to the end of the TLS handshake. Short, because whoever has not finished it costs
    memory and has proved nothing."""
    connect_s: float | None = 5.0
    """To reach a backend, all addresses and targets together."""
    idle_s: float | None = 3600.0
    """Without a byte in either direction. On by default, because links whose ends have vanished would stay forever."""
    half_close_s: float | None = 60.0
    """The same once one side has finished; traffic resets it, so a long reply arrives whole."""
    drain_s: float | None = 30.0
    """For open links to finish when tlstunnel stops or replaces its workers; "0s" cuts them at once."""
    max_lifetime_s: float | None = None
    """From accept to the end, however busy the link is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendTLS:
    """How TLS is originated: always in client mode, in server mode with target_tls."""

    ca: Path | None = None
    """PEM, or a folder: the CAs that may have issued the server's certificate. None: the system's."""
    server_name: str | None = None
    """Sent as SNI and verified, instead of the target's host."""
    verify: Policy | None = None
    """Rules the server's certificate must meet on top of chain and name."""
    certificate: CertificateFiles | None = None
    """Our own certificate, shown when the server asks for one."""
    crl: tuple[Path, ...] = ()
    """Revocation lists the server's certificate is checked against."""
    tls: TLSSettings = TLSSettings()
    """What is offered to the server."""


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
    """Letters, digits, `_`, `.` and `-`; it stands in log lines and metrics."""
    mode: Mode
    """ "server" accepts TLS and forwards plaintext; "client" accepts plaintext and originates TLS; "passthrough" routes
    TLS by server name without terminating it."""
    listen: tuple[Listen, ...]
    """Where connections are accepted: `HOST:PORT`, `:PORT` for all interfaces with IPv4 and IPv6, `[V6]:PORT`,
    `unix:/path`, or `systemd:NAME` for sockets that systemd opened. Port 0 takes a free port."""
    unix_mode: int = 0o660
    """Permissions of the file of a unix socket to listen on: who may connect. Its owner and its group, unless more or
    less is written; others only with the last digit."""
    targets: tuple[Target, ...]
    """Where they go: `HOST:PORT`, `[V6]:PORT` or `unix:/path`. A name is resolved again for every connection."""
    failover: Failover = Failover.PRIORITY
    """How one of several targets is chosen: the first that answers, or each in turn."""
    fallback_target: tuple[Target, ...] = ()
    """With `client_auth = "optional"`: where clients without a certificate go, instead of `target`."""
    source_address: str | None = None
    """The IP address of this machine that connections to targets come from. Of a target's addresses only those of the
    same family are tried. Left out, the kernel chooses."""

    certificate: tuple[CertificateFiles, ...] = ()
    """Server mode. Several for one name: RSA beside ECDSA, chosen by what the client offers."""
    client_auth: ClientAuth = ClientAuth.NONE
    """Whether clients are asked for a certificate: not at all, asked, or refused without one."""
    client_ca: Path | None = None
    """PEM, or a folder: the CAs that may have issued the clients' certificates. Never the system's: those certify
    anybody."""
    crl: tuple[Path, ...] = ()
    """PEM: revocation lists the peer's certificate is checked against."""
    crl_expired: CRLExpired = CRLExpired.ERROR
    """What a revocation list past its date is: an error, since nobody then knows what was revoked; or a warning, and
    the list is used as it is."""
    ocsp_staple: OCSPStaple = OCSPStaple.OFF
    """Send clients a proof that our certificate is not revoked: "file" takes it from `ocsp_response`, "auto" fetches
    it from the responder that the certificate names."""
    ocsp_response: tuple[Path, ...] = ()
    """DER: responses of an OCSP responder, each for the certificate whose serial number it holds. Written alone, it
    means `ocsp_staple = "file"`."""
    ocsp_cache: Path | None = None
    """The folder in which fetched responses outlive a restart. Left out, they are fetched again."""
    policy: Policy = Policy()
    """Server mode: which clients' certificates are admitted."""
    tls: TLSSettings = TLSSettings()
    """What is offered to clients (server mode)."""
    sni: tuple[ServerName, ...] = ()
    """More names on the same listeners."""
    sni_mismatch: SNIMismatch = SNIMismatch.DEFAULT
    """What a client gets that asks for a name which no entry of `sni` lists and the certificate is not for: "default"
    means the service's own certificate and target, "reject" an unrecognized_name alert. Who asks for none gets the
    default, except in passthrough mode."""
    http_hint: bool = True
    """Answer plain HTTP with a 400 that says this port speaks TLS, rather than with silence."""
    backend_tls: BackendTLS | None = None
    """How TLS is originated: always set in client mode; in server mode when target_tls says so; else None."""

    timeouts: Timeouts = Timeouts()
    max_connections: int | None = None
    """Open at once; beyond that no more are accepted until one ends."""
    max_connections_per_ip: int | None = None
    """Open at once from one IPv4 address or one IPv6 /64 network, the least that anybody is given."""
    connection_rate_per_ip: Rate | None = None
    """New connections from one IPv4 address or /64 network; more are refused before any TLS work."""
    handshake_rate: Rate | None = None
    """TLS handshakes over all addresses; more are refused before any TLS work."""
    allow_from: tuple[Network, ...] = ()
    """Networks that clients may connect from. Left out: any. With `accept_proxy_protocol` the client that the header
    names is meant, here and with every limit per address."""
    deny_from: tuple[Network, ...] = ()
    """Networks that clients may not connect from, whatever `allow_from` says."""
    proxy_protocol: ProxyProtocol = ProxyProtocol.NONE
    """Which PROXY protocol header tells the target who the client is."""
    accept_proxy_protocol: bool = False
    """Demand that header of clients, which then are proxies; without it a connection is refused."""
    proxy_tlvs: bool = True
    """Version 2 only: add what is known of the client's TLS (name, version, cipher, certificate), a connection id and a
    checksum. nginx before 1.23.4 refuses headers that long."""
    proxy_trusted: tuple[Network, ...] = LOOPBACK
    """Networks whose PROXY protocol headers are believed; unix sockets always are. From anywhere else a header ends the
    connection, for who can write one can claim to be anybody."""
    strict_close: bool = False
    """Treat EOF without close_notify as an error that cuts the link (RFC 8446 section 6.1), not as an EOF."""
    unsafe_target: bool = False
    """Allow a plaintext target that is neither loopback nor a unix socket."""
    unsafe_listen: bool = False
    """Allow a plaintext listener (client mode) that is neither loopback nor a unix socket."""
    unsafe_keylog: bool = False
    """Honour SSLKEYLOGFILE: whoever reads that file reads the traffic."""


MAX_WORKERS = 240
"""Worker processes of one configuration: those of two must fit on the board, while one drains (`observe.board`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The daemon as a whole."""

    workers: int | None = None
    """Worker processes; None ("auto") is one for each usable core."""
    user: str | None = None
    """Run the workers as this user, when started as root."""
    group: str | None = None
    """Run the workers as this group; else as the user's own."""
    max_connections: int | None = None
    """Over all services, in all workers together, as every limit."""
    reload_poll_s: float | None = 30.0
    """How often the content of certificate and key files is looked at; None: only on SIGHUP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """The endpoint for metrics, health and status."""

    listen: Listen | None = None
    """Where it is served; not at all when left out."""
    certificate: Path | None = None
    """PEM: certificate and chain, to serve it over TLS."""
    key: Path | None = None
    """PEM: its private key, unless the certificate's file holds it."""
    client_ca: Path | None = None
    """PEM: the CAs that may have issued the certificates of those who look; nobody else is served."""
    unsafe_admin: bool = False
    """Allow an endpoint that other machines can read: in plaintext, or over TLS without client certificates."""


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
    source: str = COMMAND_LINE
    """The file it was read from, for messages."""
