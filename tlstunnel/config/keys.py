"""The table of configuration keys: the one list of them.

The reader, what it says about unknown keys, `show`, the options of `server` and `client` and the reference pages go
through this table. A key's default is the model's, which is written there once. What one key demands of another is
code (`service` and its siblings). The table's order is the order in which `show` and the help print.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tlstunnel.access.policy import Policy
from tlstunnel.address import parse_listen, parse_target
from tlstunnel.config import model as m
from tlstunnel.config import parsers
from tlstunnel.config.files import find_folder
from tlstunnel.config.kinds import (
    UNLIMITED,
    Kind,
    boolean,
    choice,
    count,
    duration,
    file,
    files,
    many,
    rule_fields,
    rule_of,
    text,
    word,
)  # fmt: skip
from tlstunnel.config.reader import Table, one_of
from tlstunnel.config.units import format_rate, parse_rate

T = TypeVar("T")
Values = Mapping[str, Any]
"""What was read, by field of the model."""


class Place(enum.Flag):
    """The tables that a key may stand in: those of the daemon as a whole, a service's by its mode, and those below."""

    PROCESS = enum.auto()
    ADMIN = enum.auto()
    LOG = enum.auto()
    SERVER = enum.auto()
    CLIENT = enum.auto()
    PASSTHROUGH = enum.auto()
    SNI = enum.auto()
    """`[[services.NAME.sni]]` of a server."""
    ROUTE = enum.auto()
    """The same where TLS is routed and not terminated."""
    TARGET_TLS = enum.auto()
    """`[services.NAME.target_tls]`."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the configuration and, if it has a panel, the option that stands for it."""

    name: str
    kind: Kind
    places: Place
    panel: str = ""
    """Under which title the help lists the option."""
    help: str = ""
    """The option's line in the help."""
    field: str = ""
    """What the model calls it, where that is not its name."""
    flag: str = ""
    """The option, where it is not the name with hyphens."""
    since: str = ""
    """The version that brought it; empty for those that were always there."""

    @property
    def attribute(self) -> str:
        """The field of the model."""
        return self.field or self.name

    @property
    def option(self) -> str:
        """The option that stands for it."""
        return self.flag or "--" + self.name.replace("_", "-")

    @property
    def section(self) -> str:
        """The table of the daemon that it stands in, or "service"."""
        return next((name for name, place in SECTIONS.items() if place in self.places), "service")


SECTIONS = {"process": Place.PROCESS, "admin": Place.ADMIN, "log": Place.LOG}
_S, _C = Place.SERVER, Place.CLIENT
_ALL, _ENDS, _SNI = _S | _C | Place.PASSTHROUGH, _S | _C, _S | Place.SNI
_OUT = _C | Place.TARGET_TLS
_TLS = _S | Place.SNI | _OUT

_ADDRESSES, _CERTIFICATE, _CLIENTS, _IDENTITY, _HANDSHAKE, _LIMITS, _DAEMON = PANELS = (
    "Addresses",
    "Certificate",
    "Who may connect",
    "The server's identity",
    "Handshake",
    "Timeouts and limits",
    "The daemon",
)

MODE = choice(m.Mode)
_BOOLEAN = Kind(words="`true` or `false`", parse=boolean)
_DURATION, _COUNT = duration(), count()
_WORKERS = count(
    "auto", m.MAX_WORKERS, ": a worker is a process, and more of them than the machine has cores serve nobody faster"
)
_RATE = Kind(
    words="rate",
    metavar="RATE",
    parse=text(parse_rate, right='write a rate such as "20/s", or "unlimited"'),
    write=lambda rate: UNLIMITED if rate is None else format_rate(rate),
)
_UNIX_MODE = Kind(words="file mode", parse=text(parsers.parse_unix_mode), write="{:04o}".format)
_ANONYMOUS = word("allow", "deny", make="allow".__eq__, write=lambda is_admitted: "allow" if is_admitted else "deny")
_LISTEN, _TARGET = (many("address", "ADDR", text(parse, with_base=True)) for parse in (parse_listen, parse_target))
_ADMIN_LISTEN = Kind(words="address", metavar="ADDR", parse=text(parse_listen, with_base=True))
_KEEPALIVE = Kind(
    words='table or `"never"`',
    parse=lambda value, _: parsers.parse_keepalive(value),
    write=parsers.print_keepalive,
)
_NETWORKS = many("network", "NETWORK", text(parsers.parse_network))
_ACCOUNT = Kind(words="string", metavar="NAME", parse=text(parsers.parse_account))
_SERVER_NAME = Kind(words="string", metavar="NAME", parse=text(parsers.parse_server_name))
_SOURCE = Kind(words="IP address", metavar="IP", parse=text(parsers.parse_source_address))
_FOLDER = Kind(words="folder", metavar="FOLDER", parse=text(find_folder, with_base=True))
_LIST = Kind(words="string", metavar="LIST", parse=text(str))
_ALPN = many("string", "NAMES", text(parsers.parse_protocol), may_be_empty=True, has_commas=True)
_CA = file("PEM", may_be_folder=True)
_RULES = Kind(words="array of rules", write=lambda rules: [rule_fields(rule) for rule in rules] or None)
_STARTTLS = dataclasses.replace(choice(m.StartTLS), metavar="PROTOCOL")
_LOG_TARGET = Kind(
    words=one_of(("stderr", "syslog", "file:PATH"), "`"),
    metavar="stderr|syslog|file:PATH",
    parse=text(parsers.parse_log_target, with_base=True),
)
SHORT_RULES = {
    "cn": ("NAME", "this common name"),
    "ou": ("NAME", "this organizational unit"),
    "dns": ("NAME", "this DNS name"),
    "uri": ("URI", "this URI"),
    "spki_pin": ("sha256:BASE64", "this public key"),
}
"""Fields of rules that may be written as a key (or option) of their own: `allow_cn = "billing"`."""

KEYS = (
    Key("names", many("string", "NAME", text(parsers.check_name)), Place.SNI | Place.ROUTE),
    Key("mode", dataclasses.replace(MODE, parse=None), _ALL),
    Key("listen", _LISTEN, _ALL, _ADDRESSES, "Accept connections here."),
    Key("target", _TARGET, _ALL | Place.SNI | Place.ROUTE, _ADDRESSES, "Forward them there; several are tried in turn.",
        field="targets"),
    Key("unix_mode", _UNIX_MODE, _ALL),
    Key("failover", choice(m.Failover), _ALL, _ADDRESSES, "How one of several targets is chosen."),
    Key("fallback_target", _TARGET, _S, _ADDRESSES, "Clients without a certificate go there instead."),
    Key("source_address", _SOURCE, _ALL, _ADDRESSES, "Connect to targets from this address."),
    Key("handshake_timeout", _DURATION, _ALL, _LIMITS, "For the TLS handshake.", field="handshake_s"),
    Key("connect_timeout", _DURATION, _ALL, _LIMITS, "To reach a target.", field="connect_s"),
    Key("idle_timeout", _DURATION, _ALL, _LIMITS, "Without a byte in either direction.", field="idle_s"),
    Key("half_close_timeout", _DURATION, _ALL, _LIMITS, "The same once one side has finished.", field="half_close_s"),
    Key("drain_timeout", duration(zero=True), _ALL, _LIMITS, "For open links to finish when stopping.",
        field="drain_s"),
    Key("max_lifetime", _DURATION, _ALL, _LIMITS, "Of a connection, however busy.", field="max_lifetime_s"),
    Key("keepalive", _KEEPALIVE, _ALL),
    Key("max_connections", _COUNT, _ALL, _LIMITS, "Open at once."),
    Key("max_connections_per_ip", _COUNT, _ALL, _LIMITS, "Open at once from one address."),
    Key("connection_rate_per_ip", _RATE, _ALL, _LIMITS, "New ones from one address: 20/s."),
    Key("handshake_rate", _RATE, _ENDS, _LIMITS, "TLS handshakes over all addresses: 500/s."),
    Key("strict_close", _BOOLEAN, _ENDS, _LIMITS, "Treat EOF without close_notify as an error."),
    Key("allow_from", _NETWORKS, _ALL, _CLIENTS, "Only from these networks."),
    Key("deny_from", _NETWORKS, _ALL, _CLIENTS, "Not from these networks, whatever is allowed."),
    Key("proxy_protocol", choice(m.ProxyProtocol), _ALL, _LIMITS, "Tell the target who the client is."),
    Key("accept_proxy_protocol", _BOOLEAN, _ALL, _LIMITS, "Demand that header from clients."),
    Key("proxy_tlvs", _BOOLEAN, _ALL),
    Key("proxy_trusted", dataclasses.replace(_NETWORKS, may_be_empty=True), _ALL, _LIMITS,
        "Believe that header from these networks."),
    Key("client_auth", choice(m.ClientAuth), _S, _CLIENTS, "Whether clients show a certificate."),
    Key("ca", _CA, _OUT, _IDENTITY, "The CAs that issue the server's certificate; else the system's."),
    Key("server_name", _SERVER_NAME, _OUT, _IDENTITY, "Send and verify this name, not the target's."),
    Key("verify", _RULES, _OUT),
    *(Key(f"verify_{field}", rule_of(field, metavar), _OUT, _IDENTITY, f"Demand {name} on top.")
      for field, (metavar, name) in SHORT_RULES.items()),
    Key("certificate", files("PEM"), _TLS, _CERTIFICATE, "Certificate and its chain; several for RSA beside ECDSA.",
        flag="--cert"),
    Key("key", files("PEM"), _TLS, _CERTIFICATE, "Its private key, unless the certificate's file holds it."),
    Key("p12", files("FILE"), _TLS, _CERTIFICATE, "Certificate, chain and key in one PKCS#12 file."),
    Key("key_passphrase_file", files("FILE"), _TLS, _CERTIFICATE,
        "Its first line opens the key; else $TLSTUNNEL_KEY_PASSPHRASE, or a prompt."),
    Key("client_ca", _CA, _S, _CLIENTS, "The CAs that issue the clients' certificates."),
    Key("crl", files("PEM"), _S | _OUT, _HANDSHAKE, "Revocation list the peer's certificate is checked against."),
    Key("ocsp_staple", choice(m.OCSPStaple), _S, _CERTIFICATE, "Prove that it is not revoked; auto asks its CA."),
    Key("ocsp_response", files("DER"), _S, _CERTIFICATE, "OCSP response to staple, as a responder gave it."),
    Key("ocsp_cache", _FOLDER, _S, _CERTIFICATE, "Keep fetched OCSP responses in this folder."),
    Key("crl_expired", choice(m.CRLExpired), _ENDS, _HANDSHAKE, "What a list past its date is."),
    Key("target_tls", Kind(words="`true`, `false` or table"), _S),
    Key("allow", _RULES, _SNI),
    *(Key(f"allow_{field}", rule_of(field, metavar), _SNI, _CLIENTS,
          f"Allow {name}{'; * is one path segment, ** several' if field == 'uri' else ''}.")
      for field, (metavar, name) in SHORT_RULES.items()),
    Key("deny", dataclasses.replace(_RULES, may_be_empty=True), _SNI),
    Key("allow_any", _BOOLEAN, _SNI, _CLIENTS, "Allow every certificate of the client CA."),
    Key("anonymous", _ANONYMOUS, _SNI, _CLIENTS, "With optional: those without a certificate."),
    Key("min_version", word("1.2", "1.3"), _TLS, _HANDSHAKE, "Lowest TLS version."),
    Key("max_version", word("1.2", "1.3"), _TLS, _HANDSHAKE, "Highest TLS version."),
    Key("ciphers", _LIST, _TLS, _HANDSHAKE, "TLS 1.2 ciphers, as OpenSSL lists them."),
    Key("ciphersuites", _LIST, _TLS, _HANDSHAKE, "TLS 1.3 suites, colon-separated."),
    Key("groups", _LIST, _TLS, _HANDSHAKE, "Key-exchange groups, colon-separated."),
    Key("alpn", _ALPN, _TLS, _HANDSHAKE, "Application protocols, best first, comma-separated."),
    Key("alpn_required", _BOOLEAN, _TLS, _HANDSHAKE, "Refuse peers without one of them."),
    Key("alpn_mismatch", choice(m.ALPNMismatch), _SNI, _HANDSHAKE, "What clients get that offer others."),
    Key("sni_mismatch", choice(m.SNIMismatch), _S | Place.PASSTHROUGH),
    Key("http_hint", _BOOLEAN, _S),
    Key("starttls", _STARTTLS, _ENDS, _ADDRESSES, f"TLS is asked for in this protocol first: {', '.join(m.StartTLS)}."),
    Key("starttls_required", _BOOLEAN, _S),
    Key("unsafe_target", _BOOLEAN, _S, _ADDRESSES, "Allow a plaintext target on another machine."),
    Key("unsafe_listen", _BOOLEAN, _C, _ADDRESSES, "Accept plaintext from other machines."),
    Key("unsafe_keylog", _BOOLEAN, _ENDS, _HANDSHAKE, "Honour $SSLKEYLOGFILE: its readers read all traffic."),
    Key("sni", Kind(words="array of tables"), _S | Place.PASSTHROUGH),
    Key("workers", _WORKERS, Place.PROCESS, _DAEMON, "Processes; auto is one for each core."),
    Key("user", _ACCOUNT, Place.PROCESS, _DAEMON, "Run workers as this user."),
    Key("group", _ACCOUNT, Place.PROCESS, _DAEMON, "Run workers as this group."),
    Key("max_connections", _COUNT, Place.PROCESS),
    Key("reload_poll", _DURATION, Place.PROCESS, _DAEMON, "How often key files are looked at.", field="reload_poll_s"),
    Key("listen", _ADMIN_LISTEN, Place.ADMIN, _DAEMON, "Metrics, health and status here.", flag="--admin"),
    Key("certificate", file("PEM"), Place.ADMIN),
    Key("key", file("PEM"), Place.ADMIN),
    Key("client_ca", file("PEM"), Place.ADMIN),
    Key("unsafe_admin", _BOOLEAN, Place.ADMIN, _DAEMON, "Allow that on other than loopback."),
    Key("format", word("text", "json"), Place.LOG, _DAEMON, "How log records are written.", flag="--log-format"),
    Key("level", word("debug", "info", "warning", "error"), Place.LOG, _DAEMON, "From which level on.",
        flag="--log-level"),
    Key("target", _LOG_TARGET, Place.LOG, _DAEMON, "Where to.", flag="--log-target"),
)  # fmt: skip


def fields_of(*parts: Any) -> dict[str, object]:
    """The fields of several dataclasses by name; of one that two have, the last is taken."""
    return {field.name: getattr(part, field.name) for part in parts for field in dataclasses.fields(part)}


DEFAULTS = fields_of(
    m.TargetTLS(),
    m.CertificateFiles(),
    Policy(),
    m.TLSSettings(),
    m.Timeouts(),
    m.Service(name="", mode=m.Mode.SERVER, listen=(), targets=()),
)
"""What holds for a key of a service that is not written, by field of the model."""


def make(cls: Callable[..., T], values: Values, **more: object) -> T:
    """A dataclass with those of the values that are its fields."""
    names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return cls(**{name: value for name, value in values.items() if name in names} | more)


@functools.cache
def options_of(mode: m.Mode) -> tuple[Key, ...]:
    """The keys for which a command has options, as its help lists them."""
    places = place_of(mode) | Place.PROCESS | Place.ADMIN | Place.LOG
    return tuple(key for panel in PANELS for key in KEYS if key.panel == panel and key.places & places)


def place_of(mode: m.Mode) -> Place:
    """The table of a service of this mode."""
    return Place[mode.name]


@functools.cache
def keys_in(place: Place) -> tuple[Key, ...]:
    """The keys that may stand in a table."""
    return tuple(key for key in KEYS if place in key.places)


def read_keys(table: Table, keys: Iterable[Key], defaults: Values) -> dict[str, object]:
    """Read those keys that need no code of their own; the values are by field of the model."""
    return {
        key.attribute: key.kind.read(table, key.name, defaults.get(key.attribute)) for key in keys if key.kind.parse
    }


def print_keys(keys: Iterable[Key], values: Values) -> dict[str, object]:
    """The values as the file writes them, by key; None for a key that is not set."""
    return {key.name: key.kind.print(values[key.attribute]) for key in keys if key.attribute in values}
