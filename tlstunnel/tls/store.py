"""What each service needs of certificates: read once as values, built into contexts wherever sessions are made.

`read` touches files and belongs to the process that may; `ServiceContexts` touches none and belongs to whoever makes
sessions. Between the two stands `Material`, frozen and picklable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from tlstunnel.config.model import BackendTLS, ClientAuth, Mode, Service
from tlstunnel.tls.context import Context, client_context, keylog_from_environment, server_context
from tlstunnel.tls.material import CRL, CABundle, Credential, load_ca, load_credential, load_crls, load_system_ca
from tlstunnel.tls.passphrase import PassphraseSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """The certificates, keys, CAs and revocation lists of one service."""

    credentials: tuple[Credential, ...] = field(default=(), repr=False)
    client_ca: CABundle | None = None
    crls: tuple[CRL, ...] = ()
    sni: tuple[tuple[Credential, ...], ...] = field(default=(), repr=False)
    """For each entry of `Service.sni`, in order."""
    backend_ca: CABundle | None = None
    backend_credential: Credential | None = field(default=None, repr=False)
    backend_crls: tuple[CRL, ...] = ()


def read(service: Service, passphrases: PassphraseSource) -> Material:
    """Read everything a service needs.

    Raises:
        MaterialError: a file cannot be used; it names the file.
    """
    backend: BackendTLS | None = service.backend_tls
    return Material(
        credentials=tuple(load_credential(files, passphrases) for files in service.certificate),
        client_ca=load_ca(service.client_ca) if service.client_ca is not None else None,
        crls=tuple(crl for path in service.crl for crl in load_crls(path)),
        sni=tuple(tuple(load_credential(files, passphrases) for files in name.certificate) for name in service.sni),
        backend_ca=None if backend is None else load_ca(backend.ca) if backend.ca is not None else load_system_ca(),
        backend_credential=(
            load_credential(backend.certificate, passphrases) if backend and backend.certificate else None
        ),
        backend_crls=tuple(crl for path in backend.crl for crl in load_crls(path)) if backend else (),
    )


class ServiceContexts:
    """The contexts of one service.

    Raises:
        ContextError: OpenSSL refuses a setting.
    """

    __slots__ = ("backend", "server")

    def __init__(self, service: Service, material: Material) -> None:
        keylog = keylog_from_environment() if service.unsafe_keylog else None
        self.server: Context | None = _server(service, material, keylog) if service.mode is Mode.SERVER else None
        self.backend: Context | None = None
        if service.backend_tls is not None and material.backend_ca is not None:
            self.backend = client_context(
                service.backend_tls.tls,
                material.backend_ca,
                credential=material.backend_credential,
                crls=material.backend_crls,
                keylog=keylog,
            )


def _server(service: Service, material: Material, keylog: Callable[[bytes], None] | None) -> Context:
    return server_context(
        service.tls,
        material.credentials,
        client_auth=service.client_auth,
        client_ca=material.client_ca,
        crls=material.crls,
        session_scope=trust_digest(service, material),
        keylog=keylog,
    )


def trust_digest(service: Service, material: Material) -> bytes:
    """Changes whenever it changes who may connect, so that no session accepted under other rules is resumed."""
    digest = hashlib.sha256(service.name.encode())
    if service.client_auth is not ClientAuth.NONE:
        digest.update(repr((service.client_auth.value, service.policy)).encode())
        for value in (material.client_ca, *material.crls):
            digest.update(value.digest.encode() if value is not None else b"-")
    return digest.digest()
