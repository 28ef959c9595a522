"""Revocation as written: the peer's, by lists, and the proof that our own certificate is not revoked."""

from __future__ import annotations

from pathlib import Path

from tlstunnel.config.model import BackendTLS, CRLExpired, OCSPStaple
from tlstunnel.config.reader import Table


def read_crl_expired(table: Table, crl: tuple[Path, ...], backend: BackendTLS | None) -> CRLExpired:
    """What an expired list is; without a list it would look like protection and be none."""
    expired = table.choice("crl_expired", CRLExpired.ERROR)
    is_listed = table.has("crl") or bool(crl) or (backend is not None and bool(backend.crl))
    if table.has("crl_expired") and not is_listed and not table.is_faulty("crl_expired"):
        right = f"write {table.spell('crl', 'ca.crl')}, or remove it"
        table.problem("crl_expired", f"has no effect while there is no revocation list; {right}")
    return expired


def read_ocsp(table: Table) -> tuple[OCSPStaple, tuple[Path, ...], Path | None]:
    """`ocsp_staple`, `ocsp_response` and `ocsp_cache`; a response file alone says that it is to be used."""
    is_written = table.has("ocsp_staple")
    responses, cache = table.paths("ocsp_response"), table.folder("ocsp_cache")
    implied = OCSPStaple.FILE if table.has("ocsp_response") else OCSPStaple.OFF
    staple = table.choice("ocsp_staple", OCSPStaple.OFF) if is_written else implied
    if table.is_faulty("ocsp_staple"):
        return staple, responses, cache
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
    return staple, responses, cache
