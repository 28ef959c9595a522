"""What the public Context cannot do. Each function takes a pyOpenSSL Context that no session was made from yet."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL

from tlstunnel._openssl.binding import TLSError, drain_errors, to_der
from tlstunnel._openssl.binding import ffi as _ffi
from tlstunnel._openssl.binding import lib as _lib


def set_groups(context: SSL.Context, groups: str) -> None:
    """Set the key-exchange groups, in order of preference. Raises TLSError for a name OpenSSL does not know."""
    if _lib.SSL_CTX_set1_curves_list(context._context, groups.encode("ascii")) != 1:
        raise TLSError(drain_errors())


_ALPN_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_ubyte),
    ctypes.c_void_p,
    ctypes.c_uint,
    ctypes.c_void_p,
)


def set_alpn_choice(context: SSL.Context, protocols: tuple[str, ...], *, is_required: bool) -> object:
    """Server: choose the first of our protocols that the client offers (RFC 7301 section 3.2).

    The callback is a ctypes one: pyOpenSSL's need memory that is writable and executable, which systemd's
    MemoryDenyWriteExecute= forbids; ctypes takes libffi's prepared trampolines. The object returned must live as long
    as the context.
    """
    ours = [(name.encode("ascii"), ctypes.create_string_buffer(name.encode("ascii"))) for name in protocols]
    refusal = _lib.SSL_TLSEXT_ERR_ALERT_FATAL if is_required else _lib.SSL_TLSEXT_ERR_NOACK

    def choose(_ssl: Any, out: Any, out_size: Any, offered: Any, size: int, _arg: Any) -> int:
        theirs = _split_alpn(ctypes.string_at(offered, size))
        for name, kept in ours:
            if name in theirs:
                out[0] = ctypes.cast(kept, ctypes.c_void_p)
                out_size[0] = len(name)
                return int(_lib.SSL_TLSEXT_ERR_OK)
        return int(refusal)

    callback = _ALPN_CALLBACK(choose)
    address = ctypes.cast(callback, ctypes.c_void_p).value
    pointer = _ffi.cast(_ffi.typeof(_lib.SSL_CTX_set_alpn_select_cb).args[1], address)
    _lib.SSL_CTX_set_alpn_select_cb(context._context, pointer, _ffi.NULL)
    return callback, ours


def _split_alpn(wire: bytes) -> list[bytes]:
    """The protocols of an ALPN extension, each behind its length byte. OpenSSL has checked the lengths."""
    names, at = [], 0
    while at < len(wire):
        end = at + 1 + wire[at]
        names.append(wire[at + 1 : end])
        at = end
    return names


_VERIFY_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
X509_V_ERR_APPLICATION_VERIFICATION = 50
"""OpenSSL's verdict for what `judge` refused."""
X509_V_ERR_CRL_HAS_EXPIRED = 12


def set_judge(
    context: SSL.Context, mode: int, judge: Callable[[bytes], bool] | None, *, forgives_expired_lists: bool = False
) -> object:
    """Let `judge` see the peer's certificate (DER) that OpenSSL has verified, while an alert can still say no.

    Not called on resumption, where no certificate is sent. The object returned must live as long as the context.

    Args:
        forgives_expired_lists: use a revocation list that is past its date as if it were not.
    """

    def verify(is_good: int, store_context: Any) -> int:
        pointer = _ffi.cast("X509_STORE_CTX *", store_context)
        if (
            not is_good
            and forgives_expired_lists
            and _lib.X509_STORE_CTX_get_error(pointer) == X509_V_ERR_CRL_HAS_EXPIRED
        ):
            _lib.X509_STORE_CTX_set_error(pointer, 0)
            return 1  # OpenSSL goes on with the list, and comes here again for the certificate
        if not is_good or judge is None or _lib.X509_STORE_CTX_get_error_depth(pointer) != 0:
            return is_good
        try:
            is_good = judge(to_der(_lib.X509_STORE_CTX_get_current_cert(pointer)))
        except Exception:  # noqa: BLE001 - nothing can be raised through OpenSSL; what we cannot judge is refused
            is_good = False
        if not is_good:
            _lib.X509_STORE_CTX_set_error(pointer, X509_V_ERR_APPLICATION_VERIFICATION)
        return int(is_good)

    callback = _VERIFY_CALLBACK(verify)
    pointer = _ffi.cast(_ffi.typeof(_lib.SSL_CTX_set_verify).args[2], ctypes.cast(callback, ctypes.c_void_p).value)
    _lib.SSL_CTX_set_verify(context._context, mode, pointer)
    return callback


_STATUS_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


def set_staple(context: SSL.Context, response: Callable[[bytes], bytes | None]) -> object:
    """Server: staple what `response` has for our certificate (both DER) where the client asks (RFC 6066 section 8).

    The object returned must live as long as the context.
    """

    def staple(ssl: Any, _arg: Any) -> int:
        session = _ffi.cast("SSL *", ssl)
        data = response(to_der(_lib.SSL_get_certificate(session)))
        if data is None:
            return int(_lib.SSL_TLSEXT_ERR_NOACK)
        # OpenSSL frees the copy together with the session.
        copy = _lib.OPENSSL_malloc(len(data))
        _ffi.memmove(copy, data, len(data))
        _lib.SSL_set_tlsext_status_ocsp_resp(session, copy, len(data))
        return int(_lib.SSL_TLSEXT_ERR_OK)

    callback = _STATUS_CALLBACK(staple)
    pointer = _ffi.cast(
        _ffi.typeof(_lib.SSL_CTX_set_tlsext_status_cb).args[1], ctypes.cast(callback, ctypes.c_void_p).value
    )
    _lib.SSL_CTX_set_tlsext_status_cb(context._context, pointer)
    return callback
