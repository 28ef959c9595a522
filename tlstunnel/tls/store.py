"""What each service needs of certificates: values, and the contexts built of them wherever sessions are made.

Nothing here touches a file: `tls.inventory` reads, in the process that may. Between the two stands `Material`, frozen
and picklable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from tlstunnel.config.model import ClientAuth, Mode, Service
from tlstunnel.tls.context import Context, client_context, keylog_from_environment, server_context
from tlstunnel.tls.material import CRL, CABundle, Credential


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


class ServiceContexts:
    """The contexts of one service, and how they are renewed without losing a session.

    Session-ticket keys live in an SSL_CTX and cannot be carried to another. So every server session is made from one
    `base` context, for its tickets, and then switched to the context with the certificates and the trust of today. The
    base is made before workers are forked, which is why a session resumes whichever worker gets it, and it outlives
    renewals and generations for as long as what it fixes (versions, suites, groups, client_auth) stays the same.

    Args:
        previous: the contexts of this service until now, whose tickets should stay good.

    Raises:
        ContextError: OpenSSL refuses a setting.
    """

    __slots__ = ("_fixed", "_keylog", "_service", "backend", "base", "server")

    def __init__(self, service: Service, material: Material, previous: ServiceContexts | None = None) -> None:
        self._service = service
        self._keylog = keylog_from_environment() if service.unsafe_keylog else None
        self._fixed = (service.name, service.mode, service.tls, service.client_auth)
        self.base: Context | None = None
        self.server: Context | None = None
        self.backend: Context | None = None
        self.renew(material)
        if previous is not None and previous._fixed == self._fixed:
            self.base = previous.base
        else:
            self.base = self.server

    def adopt(self, other: ServiceContexts) -> None:
        """Use the contexts that were built and judged elsewhere, for sessions from now on."""
        self.server, self.backend = other.server, other.backend

    def renew(self, material: Material) -> None:
        """Use this material for sessions from now on. All or nothing.

        Raises:
            ContextError: OpenSSL refuses something; what was in use stays.
        """
        service = self._service
        server = _server(service, material, self._keylog) if service.mode is Mode.SERVER else None
        backend = None
        if service.backend_tls is not None and material.backend_ca is not None:
            backend = client_context(
                service.backend_tls.tls,
                material.backend_ca,
                credential=material.backend_credential,
                crls=material.backend_crls,
                keylog=self._keylog,
            )
        self.server, self.backend = server, backend


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
