"""The effective configuration as TOML: every default filled in, every path absolute, and nothing secret.

What is printed is read back as the same configuration, from any folder. No secret can appear, because none is ever
part of a configuration: keys and passphrases are files, and only their paths are held here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from tlstunnel.access.policy import Policy
from tlstunnel.config.keys import SECTIONS, Place, fields_of, keys_in, place_of, print_keys
from tlstunnel.config.model import (
    CertificateFiles,
    ClientAuth,
    Config,
    Mode,
    ServerName,
    Service,
    TargetTLS,
)
from tlstunnel.config.rules import idle_keys
from tlstunnel.config.source import render, render_key

Keys = dict[str, object]
"""TOML keys and values; None is a key that is not set."""

_MAX_LINE = 110


def render_config(config: Config, empty: Mapping[str, str] = MappingProxyType({})) -> str:
    """The whole configuration as a TOML document.

    Args:
        config: what to print.
        empty: what an empty string stands for, by key; it is said in a comment.
    """
    blocks = [_block(f"[{name}]", keys_of_section(config, name)) for name in SECTIONS]
    for service in config.services:
        title = f"services.{render_key(service.name)}"
        idle = idle_keys(service)
        effective = {key: value for key, value in keys_of_service(service).items() if key not in idle}
        blocks.append(_block(f"[{title}]", effective))
        if service.target_tls is not None and service.mode is Mode.SERVER:
            below = print_keys(keys_in(Place.TARGET_TLS), _target_fields(service.target_tls))
            blocks.append(_block(f"[{title}.target_tls]", below))
        blocks += [_block(f"[[{title}.sni]]", _sni_keys(service, entry)) for entry in service.sni]
    text = "\n".join(blocks)
    for key, meaning in empty.items():
        text = text.replace(f'\n{key} = ""\n', f'\n{key} = ""  # {meaning}\n')
    return text


def keys_of_section(config: Config, name: str) -> Keys:
    """What `[process]`, `[admin]` or `[log]` holds."""
    return print_keys(keys_in(SECTIONS[name]), fields_of(getattr(config, name)))


def keys_of_service(service: Service) -> Keys:
    """What `[services.NAME]` holds, but for the tables below it."""
    own = fields_of(service, service.timeouts, service.tls)
    if service.mode is Mode.CLIENT:
        own |= _target_fields(service.target_tls or TargetTLS())
    else:
        own |= _certificate_fields(service.certificate) | _policy_fields(service.policy, service.client_auth)
    own |= {"target_tls": False if service.target_tls is None else None, "sni": None}
    return print_keys(keys_in(place_of(service.mode)), own)


def _sni_keys(service: Service, entry: ServerName) -> Keys:
    if not entry.certificate:  # nothing of the rest applies where TLS is not terminated
        return print_keys(keys_in(Place.ROUTE), fields_of(entry))
    own = fields_of(entry, entry.tls) | _certificate_fields(entry.certificate)
    return print_keys(keys_in(Place.SNI), own | _policy_fields(entry.policy, service.client_auth))


def _target_fields(tls: TargetTLS) -> Keys:
    own = () if tls.certificate is None else (tls.certificate,)
    rules = tls.verify.allow if tls.verify else ()
    return fields_of(tls, tls.tls) | _certificate_fields(own) | {"verify": rules}


def _policy_fields(policy: Policy, auth: ClientAuth) -> Keys:
    fields = {} if auth is ClientAuth.NONE else fields_of(policy)
    return {name: value for name, value in fields.items() if name != "anonymous" or auth is ClientAuth.OPTIONAL}


def _certificate_fields(certificates: Sequence[CertificateFiles]) -> Keys:
    """The files of each kind: one, or several in the certificates' order."""
    fields: Keys = {}
    for name in fields_of(CertificateFiles()):
        paths = [path for each in certificates if (path := getattr(each, name)) is not None]
        if name == "key_passphrase_file" and len(set(paths)) == 1:
            paths = paths[:1]
        fields[name] = paths[0] if len(paths) == 1 else tuple(paths)
    return fields


def _block(title: str, keys: Mapping[str, object]) -> str:
    lines = [title] + [f"{key} = {_wrapped(value)}" for key, value in keys.items() if value is not None]
    return "\n".join(lines) + "\n"


def _wrapped(value: object) -> str:
    """A value on one line, or an array with a line for each item where that would be too long."""
    text = render(value)
    if len(text) <= _MAX_LINE or not isinstance(value, list):
        return text
    return "[\n" + "".join(f"    {render(item)},\n" for item in value) + "]"
