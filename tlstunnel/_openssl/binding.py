"""The binding beneath pyOpenSSL: where it is, whether it has what we need, and its error queue.

A binding that lacks something is found when this is imported, and not when the first connection needs it."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.bindings.openssl.binding import Binding

lib: Any = Binding.lib
ffi: Any = Binding.ffi

_NEEDED = (
    "BIO_free BIO_get_mem_data BIO_new BIO_new_mem_buf BIO_read BIO_s_mem BIO_set_mem_eof_return BIO_write "
    "ERR_get_error ERR_reason_error_string EVP_PKEY_free OPENSSL_malloc PEM_read_bio_PrivateKey "
    "PEM_write_bio_PrivateKey SSL_CIPHER_find SSL_CIPHER_get_name SSL_CTX_set1_curves_list "
    "SSL_CTX_set_alpn_select_cb SSL_CTX_set_tlsext_status_arg SSL_CTX_set_tlsext_status_cb SSL_CTX_set_verify "
    "SSL_RECEIVED_SHUTDOWN SSL_SESSION_free SSL_TLSEXT_ERR_ALERT_FATAL SSL_TLSEXT_ERR_NOACK SSL_TLSEXT_ERR_OK "
    "SSL_do_handshake SSL_free SSL_get0_alpn_selected SSL_get0_group_name SSL_get0_param SSL_get1_session "
    "SSL_get_certificate SSL_get_client_CA_list SSL_get_current_cipher SSL_get_error "
    "SSL_get_ex_data_X509_STORE_CTX_idx SSL_get_peer_cert_chain SSL_get_peer_certificate SSL_get_servername "
    "SSL_get_shutdown SSL_get_verify_result SSL_get_version SSL_new SSL_read SSL_session_reused SSL_set_SSL_CTX "
    "SSL_set_accept_state SSL_set_bio SSL_set_connect_state SSL_set_session SSL_set_tlsext_host_name "
    "SSL_set_tlsext_status_ocsp_resp SSL_shutdown SSL_version SSL_write TLS1_3_VERSION "
    "X509_CHECK_FLAG_NEVER_CHECK_SUBJECT X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS X509_STORE_CTX_free "
    "X509_STORE_CTX_get0_cert X509_STORE_CTX_get1_chain X509_STORE_CTX_get_current_cert X509_STORE_CTX_get_error "
    "X509_STORE_CTX_get_error_depth X509_STORE_CTX_get_ex_data X509_STORE_CTX_init X509_STORE_CTX_new "
    "X509_STORE_CTX_set_error X509_STORE_set1_param X509_STORE_set_purpose X509_VERIFY_PARAM_free "
    "X509_VERIFY_PARAM_new X509_VERIFY_PARAM_set1_host X509_VERIFY_PARAM_set1_ip X509_VERIFY_PARAM_set_hostflags "
    "X509_free X509_verify_cert i2d_PUBKEY_bio i2d_X509_bio sk_X509_free sk_X509_num sk_X509_value"
).split()

_missing = [name for name in _NEEDED if not hasattr(lib, name)]
if _missing:
    raise ImportError(f"the OpenSSL binding lacks {', '.join(_missing)}", name="cryptography")


class TLSError(Exception):
    """A TLS session failed.

    Attributes:
        reasons: OpenSSL's reason strings, the first cause first.
        verify_code: its verdict on the peer's certificate (0: no objection).
        objection: what this session's judge said against that certificate (`contexts.set_judge`); None if it raised,
            or was not asked.
    """

    def __init__(self, reasons: tuple[str, ...], verify_code: int = 0, objection: object = None) -> None:
        self.reasons, self.verify_code, self.objection = reasons, verify_code, objection
        super().__init__(reasons, verify_code)

    def __str__(self) -> str:
        return ", ".join(self.reasons) or "unknown TLS error"


def drain_errors() -> tuple[str, ...]:
    """Empty OpenSSL's error queue into its reason strings, the first cause first."""
    reasons = []
    while code := lib.ERR_get_error():
        text = lib.ERR_reason_error_string(code)
        reasons.append(ffi.string(text).decode("ascii", "replace") if text != ffi.NULL else f"error {code:x}")
    return tuple(reasons)


def to_der(certificate: Any) -> bytes:
    """An X509 pointer's certificate as DER. The pointer stays the caller's."""
    bio = lib.BIO_new(lib.BIO_s_mem())
    out = ffi.new("char **")
    try:
        lib.i2d_X509_bio(bio, certificate)
        size = lib.BIO_get_mem_data(bio, out)
        return bytes(ffi.buffer(out[0], size))
    finally:
        lib.BIO_free(bio)
