"""The options of `server` and `client`: a table of which option stands for which key of the configuration file.

A value given on the command line is not parsed here. It is put where the file would have it, and the one loader reads
it; so an option and its key accept the same words and complain in the same words, and the message names the option.
The table is the only list: the commands' parameters, their help, and the reference manual come from it.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer

from tlstunnel.config.effective import keys_of_section, keys_of_service
from tlstunnel.config.load import SECTIONS, from_options
from tlstunnel.config.model import Config, Mode, Service


class Kind(enum.Enum):
    """How often an option may be given, and with what."""

    ONE = "one"
    MANY = "many"
    COMMAS = "commas"
    """As often as wanted, and each time several items with commas between them."""
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Option:
    """One option, the key it stands for, and its line in the help."""

    flag: str
    key: str
    help: str
    metavar: str = ""
    kind: Kind = Kind.ONE
    section: str = "service"
    modes: tuple[Mode, ...] = (Mode.SERVER, Mode.CLIENT)


@dataclass(frozen=True, slots=True)
class Panel:
    """Options that are listed together."""

    title: str
    options: tuple[Option, ...]


_SERVER, _CLIENT = (Mode.SERVER,), (Mode.CLIENT,)
_MANY, _FLAG = Kind.MANY, Kind.FLAG

PANELS = (
    Panel(
        "Addresses",
        (
            Option("--listen", "listen", "Accept connections here.", "ADDR", _MANY),
            Option("--target", "target", "Forward them there; several are tried in turn.", "ADDR", _MANY),
            Option("--failover", "failover", "How one of several targets is chosen.", "priority|round-robin"),
            Option("--fallback-target", "fallback_target", "Clients without a certificate go there instead.", "ADDR",
                   _MANY, modes=_SERVER),
            Option("--source-address", "source_address", "Connect to targets from this address.", "IP"),
            Option("--unsafe-target", "unsafe_target", "Allow a plaintext target on another machine.", "", _FLAG,
                   modes=_SERVER),
            Option("--unsafe-listen", "unsafe_listen", "Accept plaintext from other machines.", "", _FLAG,
                   modes=_CLIENT),
        ),
    ),
    Panel(
        "Certificate",
        (
            Option("--cert", "certificate", "Certificate and its chain; several for RSA beside ECDSA.", "PEM", _MANY),
            Option("--key", "key", "Its private key, unless the certificate's file holds it.", "PEM", _MANY),
            Option("--p12", "p12", "Certificate, chain and key in one PKCS#12 file.", "FILE", _MANY),
            Option("--key-passphrase-file", "key_passphrase_file",
                   "Its first line opens the key; else $TLSTUNNEL_KEY_PASSPHRASE, or a prompt.", "FILE", _MANY),
            Option("--ocsp-staple", "ocsp_staple", "Prove that it is not revoked; auto asks its CA.", "off|file|auto",
                   modes=_SERVER),
            Option("--ocsp-response", "ocsp_response", "The proof, as an OCSP responder gave it.", "DER", _MANY,
                   modes=_SERVER),
            Option("--ocsp-cache", "ocsp_cache", "Keep fetched proofs in this folder.", "FOLDER", modes=_SERVER),
        ),
    ),
    Panel(
        "Who may connect",
        (
            Option("--allow-from", "allow_from", "Only from these networks.", "NETWORK", _MANY),
            Option("--deny-from", "deny_from", "Not from these networks, whatever is allowed.", "NETWORK", _MANY),
            Option("--client-auth", "client_auth", "Whether clients show a certificate.", "none|optional|required",
                   modes=_SERVER),
            Option("--client-ca", "client_ca", "The CAs that issue the clients' certificates.", "PEM", modes=_SERVER),
            Option("--allow-cn", "allow_cn", "Allow this common name.", "NAME", _MANY, modes=_SERVER),
            Option("--allow-ou", "allow_ou", "Allow this organizational unit.", "NAME", _MANY, modes=_SERVER),
            Option("--allow-dns", "allow_dns", "Allow this DNS name.", "NAME", _MANY, modes=_SERVER),
            Option("--allow-uri", "allow_uri", "Allow this URI; * is one path segment, ** several.", "URI", _MANY,
                   modes=_SERVER),
            Option("--allow-spki-pin", "allow_spki_pin", "Allow this public key.", "sha256:BASE64", _MANY,
                   modes=_SERVER),
            Option("--allow-any", "allow_any", "Allow every certificate of the client CA.", "", _FLAG, modes=_SERVER),
            Option("--anonymous", "anonymous", "With optional: those without a certificate.", "allow|deny",
                   modes=_SERVER),
        ),
    ),
    Panel(
        "The server's identity",
        (
            Option("--ca", "ca", "The CAs that issue the server's certificate; else the system's.", "PEM",
                   modes=_CLIENT),
            Option("--server-name", "server_name", "Send and verify this name, not the target's.", "NAME",
                   modes=_CLIENT),
            Option("--verify-cn", "verify_cn", "Demand this common name on top.", "NAME", _MANY, modes=_CLIENT),
            Option("--verify-ou", "verify_ou", "Demand this organizational unit on top.", "NAME", _MANY,
                   modes=_CLIENT),
            Option("--verify-dns", "verify_dns", "Demand this DNS name on top.", "NAME", _MANY, modes=_CLIENT),
            Option("--verify-uri", "verify_uri", "Demand this URI on top.", "URI", _MANY, modes=_CLIENT),
            Option("--verify-spki-pin", "verify_spki_pin", "Demand this public key on top.", "sha256:BASE64", _MANY,
                   modes=_CLIENT),
        ),
    ),
    Panel(
        "Handshake",
        (
            Option("--crl", "crl", "Revocation list the peer's certificate is checked against.", "PEM", _MANY),
            Option("--crl-expired", "crl_expired", "What a list past its date is.", "error|warning"),
            Option("--min-version", "min_version", "Lowest TLS version.", "1.2|1.3"),
            Option("--max-version", "max_version", "Highest TLS version.", "1.2|1.3"),
            Option("--ciphers", "ciphers", "TLS 1.2 ciphers, as OpenSSL lists them.", "LIST"),
            Option("--ciphersuites", "ciphersuites", "TLS 1.3 suites, colon-separated.", "LIST"),
            Option("--groups", "groups", "Key-exchange groups, colon-separated.", "LIST"),
            Option("--alpn", "alpn", "Application protocols, best first, comma-separated.", "NAMES", Kind.COMMAS),
            Option("--alpn-required", "alpn_required", "Refuse peers without one of them.", "", _FLAG),
            Option("--alpn-mismatch", "alpn_mismatch", "What clients get that offer others.", "reject|ignore",
                   modes=_SERVER),
            Option("--unsafe-keylog", "unsafe_keylog", "Honour $SSLKEYLOGFILE: its readers read all traffic.", "",
                   _FLAG),
        ),
    ),
    Panel(
        "Timeouts and limits",
        (
            Option("--handshake-timeout", "handshake_timeout", "For the TLS handshake.", "DURATION"),
            Option("--connect-timeout", "connect_timeout", "To reach a target.", "DURATION"),
            Option("--idle-timeout", "idle_timeout", "Without a byte in either direction.", "DURATION"),
            Option("--half-close-timeout", "half_close_timeout", "The same once one side has finished.", "DURATION"),
            Option("--drain-timeout", "drain_timeout", "For open links to finish when stopping.", "DURATION"),
            Option("--max-lifetime", "max_lifetime", "Of a connection, however busy.", "DURATION"),
            Option("--max-connections", "max_connections", "Open at once.", "N"),
            Option("--max-connections-per-ip", "max_connections_per_ip", "Open at once from one address.", "N"),
            Option("--connection-rate-per-ip", "connection_rate_per_ip", "New ones from one address: 20/s.", "RATE"),
            Option("--handshake-rate", "handshake_rate", "TLS handshakes over all addresses: 500/s.", "RATE"),
            Option("--strict-close", "strict_close", "Treat EOF without close_notify as an error.", "", _FLAG),
            Option("--proxy-protocol", "proxy_protocol", "Tell the target who the client is.", "none|v1|v2"),
            Option("--accept-proxy-protocol", "accept_proxy_protocol", "Demand that header from clients.", "", _FLAG),
            Option("--proxy-trusted", "proxy_trusted", "Believe that header from these networks.", "NETWORK", _MANY),
        ),
    ),
    Panel(
        "The daemon",
        (
            Option("--workers", "workers", "Processes; auto is one for each core.", "N|auto", section="process"),
            Option("--user", "user", "Run workers as this user.", "NAME", section="process"),
            Option("--group", "group", "Run workers as this group.", "NAME", section="process"),
            Option("--reload-poll", "reload_poll", "How often key files are looked at.", "DURATION",
                   section="process"),
            Option("--admin", "listen", "Metrics, health and status here.", "ADDR", section="admin"),
            Option("--unsafe-admin", "unsafe_admin", "Allow that on other than loopback.", "", _FLAG,
                   section="admin"),
            Option("--log-format", "format", "How log records are written.", "text|json", section="log"),
            Option("--log-level", "level", "From which level on.", "debug|info|warning|error", section="log"),
            Option("--log-target", "target", "Where to.", "stderr|syslog|file:PATH", section="log"),
        ),
    ),
)  # fmt: skip


def options_of(mode: Mode) -> tuple[Option, ...]:
    """Every option a command has."""
    return tuple(option for panel in PANELS for option in panel.options if mode in option.modes)


def add_command(app: typer.Typer, mode: Mode, summary: str, start: Callable[[Config], None]) -> None:
    """Add `server` or `client` to the app; it calls `start` with what the options say.

    The parameters are made from the table, so the function gets the signature that typer reads, not one of its own.
    """

    def command(**given: Any) -> None:
        start(read(mode, given))

    command.__signature__ = inspect.Signature(parameters(mode))  # type: ignore[attr-defined]
    app.command(mode.value, help=summary)(command)


def parameters(mode: Mode, titles: tuple[str, ...] | None = None) -> list[inspect.Parameter]:
    """The options of a command as parameters for typer: of all panels, or of those with these titles."""
    defaults = _defaults(mode)
    return [
        _parameter(option, panel, defaults.get((option.section, option.key)))
        for panel in PANELS
        if titles is None or panel.title in titles
        for option in panel.options
        if mode in option.modes
    ]


def _parameter(option: Option, panel: Panel, default: object) -> inspect.Parameter:
    is_flag = option.kind is Kind.FLAG
    info = typer.Option(
        False if is_flag else None,
        option.flag,
        help=option.help if is_flag or not default else f"{option.help} Default: {_listed(default)}.",
        metavar=option.metavar or None,
        rich_help_panel=panel.title,
        show_default=False,
    )
    kind: Any = bool if is_flag else str | None if option.kind is Kind.ONE else list[str]
    return inspect.Parameter(_name(option), inspect.Parameter.KEYWORD_ONLY, default=info, annotation=kind)


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _defaults(mode: Mode) -> dict[tuple[str, str], object]:
    """What holds without the option, as it would be written; from the model, where defaults are written once."""
    service = Service(name="", mode=mode, listen=(), targets=())
    found = {("service", key): value for key, value in keys_of_service(service).items()}
    for section in SECTIONS:
        found |= {(section, key): value for key, value in keys_of_section(Config(services=()), section).items()}
    return found


def read(mode: Mode, given: dict[str, Any]) -> Config:
    """The configuration that the options describe.

    Raises:
        ConfigError: with every problem, each naming its option.
    """
    values: dict[tuple[str, str], object] = {}
    for option in options_of(mode):
        value = given.get(_name(option))
        if value is None or value is False or value == []:
            continue
        if option.kind is Kind.COMMAS:
            value = [item.strip() for text in value for item in text.split(",")]
        values[option.section, option.key] = value
    return from_options(mode, values, {(option.section, option.key): option.flag for option in options_of(mode)})


def _name(option: Option) -> str:
    return option.flag.removeprefix("--").replace("-", "_")
