"""Private keys as OpenSSL itself reads them, for forms that cryptography does not know."""

from __future__ import annotations

import base64
from typing import Any

from tlstunnel._openssl.binding import drain_errors, ffi, lib

_NEEDED = ("PEM_read_bio_PrivateKey", "PEM_write_bio_PrivateKey", "i2d_PUBKEY_bio", "EVP_PKEY_free")


def read_key(pem: bytes, passphrase: bytes | None) -> tuple[bytes, bytes] | None:
    """The key in a PEM block as unencrypted PKCS#8 in DER, and its SubjectPublicKeyInfo in DER; None if it is none.

    OpenSSL checks what it reads: of a key that is written down twice, that both are the same.

    Args:
        passphrase: opens the key if it is encrypted.
    """
    if lib is None or not all(hasattr(lib, name) for name in _NEEDED):
        return None
    # Without a callback the last argument is the passphrase; without one given, OpenSSL must not ask the terminal.
    secret = ffi.from_buffer("char[]", (passphrase or b"") + b"\0")
    source = lib.BIO_new_mem_buf(pem, len(pem))
    key = lib.PEM_read_bio_PrivateKey(source, ffi.NULL, ffi.NULL, secret)
    lib.BIO_free(source)
    try:
        if key == ffi.NULL:
            return None
        nothing = ffi.NULL
        text = _written(lambda out: lib.PEM_write_bio_PrivateKey(out, key, nothing, nothing, 0, nothing, nothing))
        public = _written(lambda out: lib.i2d_PUBKEY_bio(out, key))
    finally:
        if key != ffi.NULL:
            lib.EVP_PKEY_free(key)
        drain_errors()
    return base64.b64decode(b"".join(text.split(b"\n")[1:-2])), public


def _written(write: Any) -> bytes:
    out = lib.BIO_new(lib.BIO_s_mem())
    start = ffi.new("char **")
    try:
        write(out)
        size = lib.BIO_get_mem_data(out, start)
        return bytes(ffi.buffer(start[0], size))
    finally:
        lib.BIO_free(out)
