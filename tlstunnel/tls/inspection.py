"""Everything a configuration names, read and tried out: by `tlstunnel check` to report it, by `tls.inventory` to start.

Looking goes on after the first file that cannot be used: each certificate, CA, list and setting is tried on its own,
and each finding carries the key path it belongs to. Nothing is kept open and nothing is changed, unless the caller's
own way of building contexts does: no key log is opened, nothing listened on. What was read is handed out as well, so a
caller that starts with it need not read it twice.
"""

from __future__ import annotations

import dataclasses
import functools
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from tlstunnel.address import Target, leads_to
from tlstunnel.config.model import Admin, CertificateFiles, Config, CRLExpired, Mode, Service, TargetTLS, TLSSettings
from tlstunnel.errors import words_of
from tlstunnel.tls.ciphers import settings_warnings, unusable_ciphers
from tlstunnel.tls.context import ContextError, check_settings
from tlstunnel.tls.ocsp import Staple
from tlstunnel.tls.staples import load_staple, staple_warnings
from tlstunnel.tls.store import Material, ServiceContexts
from tlstunnel.x509.checks import Use, ca_warnings, chain_warnings, crl_problems, expired_lists, warnings
from tlstunnel.x509.material import (
    CRL,
    CABundle,
    Credential,
    MaterialError,
    load_ca,
    load_credential,
    load_crls,
    load_system_ca,
)
from tlstunnel.x509.passphrase import PassphraseSource
from tlstunnel.x509.pem import shown

T = TypeVar("T")
Steps = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that would stop a start."""

    steps: Steps
    """The key path."""
    what: str
    is_machine: bool = False
    """Whether the text and the content are right, and a file cannot be read here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was read, what would stop a start, and what would not."""

    materials: tuple[Material, ...] = field(repr=False)
    """For each service, in order; incomplete where there are problems."""
    contexts: tuple[ServiceContexts, ...] = field(repr=False)
    """For each service, in order, if there is no problem at all."""
    admin: Material | None = field(repr=False)
    """Certificate and trust of the admin endpoint, if it has TLS; incomplete where there are problems."""

    problems: tuple[Finding, ...]
    warnings: tuple[str, ...]
    """Whole lines."""


def build_quietly(service: Service, material: Material) -> ServiceContexts:
    """The contexts of a service, without opening its key log."""
    return ServiceContexts(dataclasses.replace(service, unsafe_keylog=False), material)


def inspect(
    config: Config,
    passphrases: PassphraseSource,
    *,
    now: datetime,
    build: Callable[[Service, Material], ServiceContexts] = build_quietly,
    parts: Sequence[Service] = (),
) -> Inspection:
    """Read every file of every service, build every context, and report all that is wrong or remarkable.

    Args:
        now: the time that dates are judged by.
        build: how a service's contexts are made.
        parts: what could be read of services in whose text something is wrong: only problems are looked for.
    """
    found = _Findings()
    loader = _Loader(found, passphrases, now)
    materials = tuple(_Service(service, found, loader).inspect() for service in config.services)
    admin = _inspect_admin(config.admin, found, loader) if config.admin.certificate or config.admin.client_ca else None
    found.warnings += loop_warnings(config.services)
    remarks = tuple(found.warnings)
    for part in parts:
        _Service(part, found, loader, is_part=True).inspect()
    found.warnings[:] = remarks  # what is remarkable about a part may not be so about the whole
    contexts = []
    if not found.problems:
        # Only whole contexts show what OpenSSL has against settings and material together.
        for service, material in zip(config.services, materials, strict=True):
            made = found.attempt(("services", service.name), functools.partial(build, service, material))
            contexts += [made] if made is not None else []
    return Inspection(
        materials=materials,
        contexts=() if found.problems else tuple(contexts),
        admin=admin,
        problems=tuple(found.problems),
        warnings=tuple(dict.fromkeys(found.warnings)),
    )


@dataclass(slots=True)
class _Findings:
    problems: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def attempt(self, steps: Steps, load: Callable[[], T], places: Mapping[str, Steps] | None = None) -> T | None:
        """What loading gives, or None after a finding.

        Args:
            steps: the key path of a finding.
            places: other key paths, by the file that is found to be wrong.
        """
        try:
            return load()
        except MaterialError as exc:
            steps = (places or {}).get(exc.where, steps)
            self.problems.append(Finding(steps, str(exc), exc.exit_code == 1))
        except ContextError as exc:
            self.problems.append(Finding((*steps, exc.key), str(exc)))
        return None


@dataclass(slots=True)
class _Loader:
    """Reads credentials, each once however many names share it: nobody is asked twice for a passphrase."""

    found: _Findings
    passphrases: PassphraseSource
    now: datetime
    _read: dict[CertificateFiles, Credential | None] = field(default_factory=dict)

    def credentials(
        self, steps: Steps, files: Sequence[CertificateFiles], use: Use, names: Sequence[str] = ()
    ) -> tuple[Credential, ...]:
        read = []
        for at, one in enumerate(files):
            if one not in self._read:
                key = "certificate" if one.p12 is None else "p12"
                index = (at,) if len(files) > 1 else ()
                load = functools.partial(load_credential, one, self.passphrases)
                self._read[one] = self.found.attempt((*steps, key, *index), load, _places(steps, one, index))
            credential = self._read[one]
            if credential is not None:
                self.found.warnings += warnings(credential, service_names=names, now=self.now, use=use)
                read.append(credential)
        return tuple(read)


def _places(steps: Steps, files: CertificateFiles, index: Steps) -> dict[str, Steps]:
    """The keys that name the other files of a credential; `index` is its place in the list, if there are several."""
    found = {}
    if files.key_passphrase_file is not None:  # which may be one for all of them
        found[shown(files.key_passphrase_file)] = (*steps, "key_passphrase_file")
    if files.key is not None and files.key != files.certificate:
        found[shown(files.key)] = (*steps, "key", *index)
    return found


def _inspect_admin(admin: Admin, found: _Findings, loader: _Loader) -> Material:
    files = CertificateFiles(certificate=admin.certificate, key=admin.key)
    credentials = loader.credentials(("admin",), () if admin.certificate is None else (files,), "server")
    path, bundle = admin.client_ca, None
    if path is not None:
        bundle = found.attempt(("admin", "client_ca"), lambda: load_ca(path))
    if bundle is not None:
        found.warnings += ca_warnings(bundle, now=loader.now)
    return Material(credentials=credentials, client_ca=bundle)


@dataclass(slots=True)
class _Service:
    service: Service
    found: _Findings
    loader: _Loader
    is_part: bool = False
    """Whether something is wrong in its text, so that what is not there may only be unread."""

    def inspect(self) -> Material:
        service, steps = self.service, ("services", self.service.name)
        is_server = service.mode is Mode.SERVER
        are_good = not is_server or self._settings(steps, service.tls)
        for at, name in enumerate(service.sni):
            if name.tls != service.tls:
                are_good = self._settings((*steps, "sni", at), name.tls) and are_good
        material = Material(
            credentials=self.loader.credentials(steps, service.certificate, "server"),
            sni=tuple(
                self.loader.credentials((*steps, "sni", at), name.certificate, "server", name.names)
                for at, name in enumerate(service.sni)
            ),
        )
        if are_good and is_server:
            if len(material.credentials) == len(service.certificate):
                self._usable(steps, service.tls, material.credentials)
            for at, (name, credentials) in enumerate(zip(service.sni, material.sni, strict=True)):
                is_other = (name.tls, name.certificate) != (service.tls, service.certificate)
                if is_other and len(credentials) == len(name.certificate):
                    self._usable((*steps, "sni", at), name.tls, credentials)
        if service.client_ca is not None or service.crl:
            material = self._client_trust(steps, material)
            if material.client_ca is not None:
                self.found.warnings += chain_warnings(material.shown(), material.client_ca)
        material = dataclasses.replace(material, staples=self._staples(steps, material))
        if service.target_tls is not None:
            below = steps if service.mode is Mode.CLIENT else (*steps, "target_tls")
            material = self._target(below, service.target_tls, material)
        if service.unsafe_keylog:
            self.found.warnings.append(
                f"{service.name}: unsafe_keylog is on: who reads SSLKEYLOGFILE reads all traffic"
            )
        if service.source_address is not None and (problem := _cannot_bind(service.source_address)):
            # Not an error: an address that moves between machines may be on its way here.
            self.found.warnings.append(
                f"{service.name}: source_address {service.source_address}: {problem}; connections to targets fail "
                "until this machine has that address"
            )
        return material

    def _staples(self, steps: Steps, material: Material) -> tuple[tuple[bytes, Staple], ...]:
        """The staples of `ocsp_response`, each for one of our certificates; of two for one, the newer."""
        service, now = self.service, self.loader.now.timestamp()
        found: dict[bytes, Staple] = {}
        owned = material.shown()
        read_all = len(material.credentials) == len(service.certificate) and all(
            len(credentials) == len(name.certificate)
            for name, credentials in zip(service.sni, material.sni, strict=True)
        )
        if not read_all or (service.client_ca is not None and material.client_ca is None):
            return ()  # whose response it is cannot be told, and why has been said
        for at, path in enumerate(service.ocsp_response):
            place = (*steps, "ocsp_response", at) if len(service.ocsp_response) > 1 else (*steps, "ocsp_response")
            read = self.found.attempt(place, functools.partial(load_staple, path, owned, material.client_ca))
            if read is not None:
                der, staple = read
                if problem := staple.problem(now):
                    self.found.warnings.append(f"{shown(path)}: {problem}; it is not sent to clients")
                if der not in found or staple.until > found[der].until:
                    found[der] = staple
        self.found.warnings += staple_warnings(service.ocsp_staple, owned, found, material.client_ca)
        return tuple(found.items())

    def _settings(self, steps: Steps, settings: TLSSettings) -> bool:
        """Whether OpenSSL takes these settings; what it refuses, and what is remarkable about them, is noted."""
        errors = check_settings(settings)
        self.found.problems += [Finding((*steps, error.key), str(error)) for error in errors]
        if not errors:
            self.found.warnings += [f"{self._place(steps)}: {line}" for line in settings_warnings(settings)]
        return not errors

    def _usable(self, steps: Steps, settings: TLSSettings, credentials: Sequence[Credential] | None) -> None:
        """Whether the ciphers suit the keys; `credentials` is None where we are the client."""
        keys = None if credentials is None else tuple(each.key_type for each in credentials)
        if keys == ():
            return  # they could not be read, which has been said
        why = unusable_ciphers(settings, keys)
        if why is None:
            return
        if settings.max_version == "1.2":
            self.found.problems.append(Finding((*steps, "ciphers"), why))
        else:
            self.found.warnings.append(f"{self._place(steps)}: ciphers: {why}; as it is, TLS 1.2 is out of reach")

    @staticmethod
    def _place(steps: Steps) -> str:
        """The service, and what is below it, for a warning."""
        return ".".join(str(step) for step in steps[1:])

    def _client_trust(self, steps: Steps, material: Material) -> Material:
        path = self.service.client_ca
        bundle = None if path is None else self.found.attempt((*steps, "client_ca"), lambda: load_ca(path))
        return dataclasses.replace(material, client_ca=bundle, crls=self._trust(steps, bundle, self.service.crl))

    def _target(self, steps: Steps, tls: TargetTLS, material: Material) -> Material:
        if self._settings(steps, tls.tls):
            self._usable(steps, tls.tls, None)
        bundle = None
        if tls.ca is not None or not self.is_part:
            bundle = self.found.attempt((*steps, "ca"), lambda: load_system_ca() if tls.ca is None else load_ca(tls.ca))
        crls = self._trust(steps, bundle, tls.crl)
        own = self.loader.credentials(steps, () if tls.certificate is None else (tls.certificate,), "client")
        return dataclasses.replace(
            material, target_ca=bundle, target_crls=crls, target_credential=own[0] if own else None
        )

    def _trust(self, steps: Steps, bundle: CABundle | None, paths: Sequence[Path]) -> tuple[CRL, ...]:
        """The lists, read and judged together with the CAs."""
        read: list[tuple[Steps, CRL]] = []
        for at, path in enumerate(paths):
            place = (*steps, "crl", at) if len(paths) > 1 else (*steps, "crl")
            read += [(place, crl) for crl in self.found.attempt(place, functools.partial(load_crls, path)) or ()]
        crls, now = tuple(crl for _, crl in read), self.loader.now
        remarks = ca_warnings(bundle, now=now) if bundle is not None else []
        remarks += crl_problems(crls, bundle, now=now) if bundle is not None and crls else []
        if self.service.crl_expired is CRLExpired.ERROR:
            expired = expired_lists(crls, now=now)
            for place, crl in read:
                if crl in expired:
                    right = f'{expired[crl]}, or set crl_expired to "warning"'
                    self.found.problems.append(Finding(place, right))
            remarks = [line for line in remarks if line not in expired.values()]
        self.found.warnings += remarks
        return crls


def loop_warnings(services: Sequence[Service]) -> list[str]:
    """A line for each circle of services that connect to one another: each connection in it makes the next.

    A service that connects to another one, with no way back, is a chain, and often meant.
    """
    lines: list[str] = []
    told: set[str] = set()
    for service in services:
        path = _way_back(service, services)
        if path and not told.issuperset(each.name for each in path):
            told |= {each.name for each in path}
            target = next(
                each for each in _targets(path[0]) if any(leads_to(each, listen) for listen in path[1].listen)
            )
            way = " -> ".join(each.name for each in path)
            lines.append(
                f"{service.name}: target {target} leads back to the service itself ({way}): each connection makes the "
                "next, until there are no descriptors left; write the address of what is behind it"
            )
    return lines


def _way_back(start: Service, services: Sequence[Service]) -> tuple[Service, ...]:
    """The shortest way from a service by way of targets to itself, with the service at both ends; empty for none."""
    ways: list[tuple[Service, ...]] = [(start,)]
    seen: set[str] = set()
    for way in ways:
        for service in services:
            if any(leads_to(target, listen) for target in _targets(way[-1]) for listen in service.listen):
                if service is start:
                    return (*way, service)
                if service.name not in seen:
                    seen.add(service.name)
                    ways.append((*way, service))
    return ()


def _targets(service: Service) -> tuple[Target, ...]:
    names = (target for name in service.sni for target in name.targets)
    return (*service.targets, *service.fallback_target, *names)


def _cannot_bind(address: str) -> str | None:
    """Why no connection could be made from this address of ours; asked of the kernel, which alone knows."""
    host, _, zone = address.partition("%")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if zone and zone not in {text for number, name in socket.if_nameindex() for text in (name, str(number))}:
        return f'there is no interface "{zone}"'
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind(socket.getaddrinfo(address, 0, family, flags=socket.AI_NUMERICHOST)[0][4])
    except OSError as exc:
        return words_of(exc)
    return None
