"""Rules between keys of revocation: the peer's, by lists, and the proof that our own certificate is not revoked."""

from __future__ import annotations

from pathlib import Path

from tlstunnel.config.model import BackendTLS, OCSPStaple, Service
from tlstunnel.config.reader import Table


def check_crl_expired(table: Table, crl: tuple[Path, ...], backend: BackendTLS | None) -> None:
    """What an expired list is; without a list it would look like protection and be none."""
    is_listed = table.has("crl") or bool(crl) or (backend is not None and bool(backend.crl))
    if table.has("crl_expired") and not is_listed and not table.is_faulty("crl_expired"):
        right = f"write {table.spell('crl', 'ca.crl')}, or remove it"
        table.problem("crl_expired", f"has no effect while there is no revocation list; {right}")


def check_ocsp(table: Table, service: Service) -> OCSPStaple:
    """Where the proof comes from; a response file alone says that it is to be used."""
    is_implied = table.has("ocsp_response") and not table.has("ocsp_staple")
    staple = OCSPStaple.FILE if is_implied else service.ocsp_staple
    if table.is_faulty("ocsp_staple"):
        return staple
    if staple is OCSPStaple.FILE:
        table.require(
            "ocsp_response",
            f"write {table.spell('ocsp_response', 'server.ocsp')}",
            because=f"{table.spell('ocsp_staple', staple.value)} needs a response",
        )
    elif table.has("ocsp_response"):
        written = table.spell("ocsp_staple", staple.value)
        table.problem("ocsp_response", f"has no effect beside {written}; remove one of the two")
    if staple is not OCSPStaple.AUTO and table.has("ocsp_cache"):
        right = f"write {table.spell('ocsp_staple', OCSPStaple.AUTO.value)}, or remove it"
        table.problem("ocsp_cache", f"has no effect while no response is fetched; {right}")
    return staple
