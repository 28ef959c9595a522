"""All the TLS material of a configuration: read, judged, and every problem reported at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

from tlstunnel.config.model import CertificateFiles, Config, Mode, Service
from tlstunnel.errors import ConfigError, Problem, StartupError
from tlstunnel.tls.certificate_checks import ca_warnings, crl_problems, warnings
from tlstunnel.tls.context import ContextError, check_settings
from tlstunnel.tls.material import (
    CRL,
    CABundle,
    Credential,
    MaterialError,
    load_ca,
    load_credential,
    load_crls,
    load_system_ca,
)
from tlstunnel.tls.passphrase import PassphraseSource
from tlstunnel.tls.store import Material, ServiceContexts

_OPTIONS = {"certificate": "--cert", "client_ca": "--client-ca", "ca": "--ca", "crl": "--crl"}
_File = TypeVar("_File")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Inventory:
    """What was read, in the order of the services, and what is remarkable about it."""

    materials: tuple[Material, ...] = field(repr=False)
    contexts: tuple[ServiceContexts, ...] = field(repr=False)
    warnings: tuple[str, ...]

    def with_contexts(self, contexts: tuple[ServiceContexts, ...]) -> Inventory:
        """The same material, used by other contexts."""
        return replace(self, contexts=contexts)


def take(
    config: Config, passphrases: PassphraseSource, previous: dict[str, ServiceContexts] | None = None
) -> Inventory:
    """Read everything and build the contexts.

    Args:
        previous: contexts in use now, by service name; their session tickets stay good where that is possible.

    Raises:
        ConfigError: with every problem, when at least one is in what the operator wrote.
        StartupError: with every problem, when files could not be read and nothing else is wrong.
    """
    run = _Run(config, passphrases)
    materials = [run.material(service) for service in config.services]
    contexts = []
    if not run.problems:
        for service, material in zip(config.services, materials, strict=True):
            try:
                contexts.append(ServiceContexts(service, material, (previous or {}).get(service.name)))
            except ContextError as exc:
                run.add(service, exc.key, exc)
    if run.problems:
        if run.is_all_unreadable:
            raise StartupError("\n".join(map(str, run.problems)))
        raise ConfigError(run.problems)
    return Inventory(tuple(materials), tuple(contexts), tuple(dict.fromkeys(run.warnings)))


class _Run:
    def __init__(self, config: Config, passphrases: PassphraseSource) -> None:
        self._config = config
        self._passphrases = passphrases
        self._now = datetime.now(UTC)
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.is_all_unreadable = True

    def material(self, service: Service) -> Material:
        """One service's material, as far as it can be read."""
        for settings in (service.tls, *([service.backend_tls.tls] if service.backend_tls else [])):
            for error in check_settings(settings):
                self.add(service, error.key, error)
        backend = service.backend_tls
        credentials = self._all(service, "certificate", service.certificate, self._credential)
        client_ca = self._all(service, "client_ca", [service.client_ca] if service.client_ca else [], load_ca)
        crls = [crl for found in self._all(service, "crl", service.crl, load_crls) for crl in found]
        backend_ca: list[CABundle] = []
        backend_credentials: list[Credential] = []
        backend_crls: list[CRL] = []
        if backend is not None:
            backend_ca = self._all(service, "ca", [backend.ca], lambda p: load_system_ca() if p is None else load_ca(p))
            files = [backend.certificate] if backend.certificate else []
            backend_credentials = self._all(service, "certificate", files, self._credential)
            backend_crls = [crl for found in self._all(service, "crl", backend.crl, load_crls) for crl in found]
        sni = tuple(tuple(self._all(service, "sni", name.certificate, self._credential)) for name in service.sni)
        is_server = service.mode is Mode.SERVER
        for credential in (*credentials, *(credential for each in sni for credential in each)):
            self.warnings += warnings(credential, service_names=(), now=self._now, use="server")
        for credential in backend_credentials:
            self.warnings += warnings(credential, service_names=(), now=self._now, use="client")
        for bundle in (*client_ca, *(backend_ca if backend is not None and backend.ca is not None else ())):
            self.warnings += ca_warnings(bundle, now=self._now)
        for lists, bundles in ((crls, client_ca), (backend_crls, backend_ca)):
            if lists and bundles:
                self.warnings += crl_problems(lists, bundles[0], now=self._now)
        if service.unsafe_keylog:
            self.warnings.append(f"{service.name}: unsafe_keylog is on: whoever reads SSLKEYLOGFILE reads the traffic")
        return Material(
            credentials=tuple(credentials) if is_server else (),
            client_ca=client_ca[0] if client_ca else None,
            crls=tuple(crls),
            sni=sni,
            backend_ca=backend_ca[0] if backend_ca else None,
            backend_credential=backend_credentials[0] if backend_credentials else None,
            backend_crls=tuple(backend_crls),
        )

    def add(self, service: Service, key: str, error: Exception) -> None:
        """A problem of a service's key."""
        if self._config.source == "command line":
            where = _OPTIONS.get(key, "--" + key.replace("_", "-"))
        else:
            where = f"{self._config.source}: services.{service.name}.{key}"
        self.problems.append(Problem(where, str(error)))
        if not (isinstance(error, MaterialError) and error.exit_code == 1):
            self.is_all_unreadable = False

    def _credential(self, files: CertificateFiles) -> Credential:
        return load_credential(files, self._passphrases)

    def _all(self, service: Service, key: str, named: Iterable[_File], load: Callable[[_File], _Value]) -> list[_Value]:
        values = []
        for each in named:
            try:
                values.append(load(each))
            except MaterialError as exc:
                self.add(service, key, exc)
        return values
