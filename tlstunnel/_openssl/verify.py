"""Chains of certificates as OpenSSL's own verifier sees them, without a connection."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address

from OpenSSL import crypto

from tlstunnel._openssl.binding import TLSError, drain_errors, ffi, lib, to_der

PURPOSE_CLIENT, PURPOSE_SERVER = 1, 2
"""X509_PURPOSE_SSL_CLIENT and X509_PURPOSE_SSL_SERVER: what the certificate that is verified is shown as."""

_NO_CHECK_TIME = 0x200000
_IGNORE_CRITICAL = 0x10
_PARTIAL_CHAIN = 0x80000
_MISMATCHES = (62, 64)
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""


@dataclass(frozen=True, slots=True)
class ChainVerdict:
    """What OpenSSL makes of a chain."""

    path: tuple[bytes, ...]
    """In DER, from the leaf upwards, as far as it was found."""
    code: int
    """X509_V_ERR_...; 0 for a chain without fault."""
    depth: int
    """Which certificate of the path the code is about."""


def verify_chain(
    leaf: bytes,
    others: Sequence[bytes],
    anchors: Sequence[bytes],
    *,
    when: datetime | None,
    purpose: int | None = None,
) -> ChainVerdict:
    """Build a path from a certificate to a trusted root, and judge it, as a TLS handshake does (RFC 5280 section 6).

    All certificates are DER. One of the anchors or the others that OpenSSL cannot read is left out.

    Args:
        when: the time to verify at; None looks at no dates.
        purpose: PURPOSE_CLIENT or PURPOSE_SERVER; None for any.

    Raises:
        TLSError: OpenSSL cannot read the leaf.
    """
    store = crypto.X509Store()
    for certificate in _readable(anchors):
        store.add_cert(certificate)
    if when is None:
        store.set_flags(_NO_CHECK_TIME)
    else:
        store.set_time(when)
    if purpose is not None:
        lib.X509_STORE_set_purpose(store._store, purpose)
    return _verify(store, _read(leaf), _readable(others))


def is_for_host(leaf: bytes, host: str) -> bool:
    """Whether a certificate is for a host name or IP address, as a TLS handshake decides (RFC 9525 section 6).

    Raises:
        TLSError: OpenSSL cannot read the certificate.
    """
    certificate = _read(leaf)
    param = ffi.gc(lib.X509_VERIFY_PARAM_new(), lib.X509_VERIFY_PARAM_free)
    try:
        packed = ip_address(host).packed
        is_set = lib.X509_VERIFY_PARAM_set1_ip(param, packed, len(packed))
    except ValueError:
        name = host.encode("utf-8", "surrogateescape")
        is_set = lib.X509_VERIFY_PARAM_set1_host(param, name, len(name)) if name else 0
        lib.X509_VERIFY_PARAM_set_hostflags(
            param, lib.X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | lib.X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS
        )
    if is_set != 1:
        drain_errors()
        return False
    store = crypto.X509Store()
    lib.X509_STORE_set1_param(store._store, param)
    # A leaf that is trusted itself leaves nothing to judge but its names.
    store.add_cert(certificate)
    store.set_flags(_PARTIAL_CHAIN | _NO_CHECK_TIME | _IGNORE_CRITICAL)
    return _verify(store, certificate, []).code not in _MISMATCHES


def _verify(store: crypto.X509Store, leaf: crypto.X509, others: list[crypto.X509]) -> ChainVerdict:
    stack = crypto.X509StoreContext._build_certificate_stack(others)
    context = ffi.gc(lib.X509_STORE_CTX_new(), lib.X509_STORE_CTX_free)
    lib.X509_STORE_CTX_init(context, store._store, leaf._x509, stack)
    is_good = lib.X509_verify_cert(context) == 1
    code, depth = lib.X509_STORE_CTX_get_error(context), lib.X509_STORE_CTX_get_error_depth(context)
    chain = lib.X509_STORE_CTX_get1_chain(context)
    path = []
    if chain != ffi.NULL:
        for place in range(lib.sk_X509_num(chain)):
            certificate = lib.sk_X509_value(chain, place)
            path.append(to_der(certificate))
            lib.X509_free(certificate)
        lib.sk_X509_free(chain)
    drain_errors()
    return ChainVerdict(tuple(path), 0 if is_good else code or 1, depth)


def _read(der: bytes) -> crypto.X509:
    try:
        return crypto.load_certificate(crypto.FILETYPE_ASN1, der)
    except crypto.Error as exc:
        raise TLSError(tuple(entry[-1] for entry in exc.args[0])) from None


def _readable(ders: Sequence[bytes]) -> list[crypto.X509]:
    found = []
    for der in dict.fromkeys(ders):
        with contextlib.suppress(TLSError):
            found.append(_read(der))
    return found
