"""The effective configuration as TOML: every default filled in, every path absolute, and nothing secret.

What is printed is read back as the same configuration, from any folder. No secret can appear, because none is ever
part of a configuration: keys and passphrases are files, and only their paths are held here.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence, Set
from types import MappingProxyType

from tlstunnel.address import UnixAddress
from tlstunnel.config.model import (
    BackendTLS,
    CertificateFiles,
    ClientAuth,
    Config,
    OCSPStaple,
    ProxyProtocol,
    Rate,
    ServerName,
    Service,
)
from tlstunnel.config.reader import UNLIMITED
from tlstunnel.config.rules import FIELDS
from tlstunnel.config.service import keys_of
from tlstunnel.config.source import render, render_key
from tlstunnel.config.units import format_duration, format_rate
from tlstunnel.tls.policy import Policy, Rule

Keys = dict[str, object]
"""TOML keys and values; None is a key that is not set."""

_RENAMED = {
    "targets": "target",
    "handshake_s": "handshake_timeout",
    "connect_s": "connect_timeout",
    "idle_s": "idle_timeout",
    "half_close_s": "half_close_timeout",
    "drain_s": "drain_timeout",
}
_NESTED = frozenset({"name", "certificate", "policy", "verify", "tls", "sni", "backend_tls", "timeouts"})
_MAX_LINE = 110


def render_config(config: Config, empty: Mapping[str, str] = MappingProxyType({})) -> str:
    """The whole configuration as a TOML document.

    Args:
        config: what to print.
        empty: what an empty string stands for, by key; it is said in a comment.
    """
    blocks = [_block(f"[{name}]", keys_of_section(config, name)) for name in ("process", "admin", "log")]
    for service in config.services:
        title = f"services.{render_key(service.name)}"
        idle = _idle_keys(service)
        effective = {key: value for key, value in keys_of_service(service).items() if key not in idle}
        blocks.append(_block(f"[{title}]", effective))
        if service.backend_tls is not None and "target_tls" in keys_of(service.mode):
            blocks.append(_block(f"[{title}.target_tls]", _backend_keys(service.backend_tls)))
        blocks += [_block(f"[[{title}.sni]]", _sni_keys(service, entry)) for entry in service.sni]
    text = "\n".join(blocks)
    for key, meaning in empty.items():
        text = text.replace(f'\n{key} = ""\n', f'\n{key} = ""  # {meaning}\n')
    return text


def keys_of_section(config: Config, name: str) -> Keys:
    """What `[process]`, `[admin]` or `[log]` holds."""
    return _plain(getattr(config, name), nested=frozenset())


def keys_of_service(service: Service) -> Keys:
    """What `[services.NAME]` holds, but for the tables below it, in the order of the reference manual."""
    keys = _plain(service) | _plain(service.timeouts) | _certificate_keys(service.certificate)
    keys |= _policy_keys(service.policy, service.client_auth) | _plain(service.tls)
    if "target_tls" not in keys_of(service.mode):
        keys |= _backend_keys(service.backend_tls or BackendTLS())
    elif service.backend_tls is None:
        keys["target_tls"] = False
    return {key: keys.get(key) for key in keys_of(service.mode) if key != "sni"}


def _idle_keys(service: Service) -> set[str]:
    """Keys that have a default but no effect as things are, so that they would be refused when read back."""
    backend = service.backend_tls
    return {
        key
        for key, has_effect in (
            ("unix_mode", any(isinstance(listen, UnixAddress) for listen in service.listen)),
            ("proxy_tlvs", service.proxy_protocol is ProxyProtocol.V2),
            ("proxy_trusted", service.accept_proxy_protocol),
            ("crl_expired", service.crl or (backend is not None and backend.crl)),
            ("ocsp_cache", service.ocsp_staple is OCSPStaple.AUTO),
        )
        if not has_effect
    }


def _sni_keys(service: Service, entry: ServerName) -> Keys:
    keys = _plain(entry)
    if entry.certificate:  # nothing of the rest applies where TLS is not terminated
        keys |= _certificate_keys(entry.certificate) | _plain(entry.tls)
        keys |= _policy_keys(entry.policy, service.client_auth)
    return keys


def _backend_keys(backend: BackendTLS) -> Keys:
    own = () if backend.certificate is None else (backend.certificate,)
    rules = backend.verify.allow if backend.verify else ()
    settings = _plain(backend.tls)
    del settings["alpn_mismatch"]  # is for servers
    return _plain(backend) | _certificate_keys(own) | {"verify": _rules(rules) or None} | settings


def _policy_keys(policy: Policy, auth: ClientAuth) -> Keys:
    if auth is ClientAuth.NONE:
        return {}
    keys: Keys = {"allow": _rules(policy.allow) or None, "deny": _rules(policy.deny)}
    keys["allow_any"] = policy.allow_any
    if auth is ClientAuth.OPTIONAL:
        keys["anonymous"] = "allow" if policy.anonymous else "deny"
    return keys


def _rules(rules: Sequence[Rule]) -> list[dict[str, str]]:
    return [{key: value for key in FIELDS if (value := getattr(rule, key)) is not None} for rule in rules]


def _certificate_keys(certificates: Sequence[CertificateFiles]) -> Keys:
    keys: Keys = {}
    for field in dataclasses.fields(CertificateFiles):
        paths = [str(path) for c in certificates if (path := getattr(c, field.name)) is not None]
        if field.name == "key_passphrase_file" and len(set(paths)) == 1:
            paths = paths[:1]
        keys[field.name] = None if not paths else paths[0] if len(paths) == 1 else paths
    return keys


def _plain(value: object, nested: Set[str] = _NESTED) -> Keys:
    """The fields that are one key each. A new field of the model is shown without a word here."""
    return {
        _RENAMED.get(field.name, field.name.removesuffix("_s")): _written(field.name, getattr(value, field.name))
        for field in dataclasses.fields(value)  # type: ignore[arg-type]
        if field.name not in nested
    }


def _written(name: str, value: object) -> object:
    """A value as the file writes it; for a number that is None, the word that stands for it."""
    if value is None:
        if name.endswith("_s"):
            return "never"
        return "auto" if name == "workers" else UNLIMITED if name.startswith("max_") or "_rate" in name else None
    if isinstance(value, Rate):
        return format_rate(value)
    if name == "unix_mode":
        return f"{value:04o}"
    if name.endswith("_s") and isinstance(value, int | float):
        return format_duration(value)
    if isinstance(value, enum.StrEnum):
        return value.value
    if isinstance(value, tuple):
        items = [_written("", item) for item in value]
        return items if items or name in ("alpn", "proxy_trusted") else None
    return value if isinstance(value, bool | int | str) else str(value)


def _block(title: str, keys: Mapping[str, object]) -> str:
    lines = [title] + [f"{key} = {_wrapped(value)}" for key, value in keys.items() if value is not None]
    return "\n".join(lines) + "\n"


def _wrapped(value: object) -> str:
    """A value on one line, or an array with a line for each item where that would be too long."""
    text = render(value)
    if len(text) <= _MAX_LINE or not isinstance(value, list):
        return text
    return "[\n" + "".join(f"    {render(item)},\n" for item in value) + "]"
