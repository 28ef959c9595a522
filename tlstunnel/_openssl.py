"""The one module that calls the binding beneath pyOpenSSL.

Why it exists: pyOpenSSL's public methods cost a Python object and a copy at every step, and a relay makes several
steps for every chunk. Calling the same OpenSSL through the binding that pyOpenSSL itself uses costs 0.1 µs a call, and
buffers that are allocated once serve every link of a worker. `probe()` says at start whether all that is needed is
there; where it is not, `tls.portable` does the same work through public methods, slower.

How an engine moves bytes. The scratch has two big areas that all links of a worker share:

    socket --recv_into--> scratch.wire --decrypt--> scratch.plain --send--> the other end
    socket <--send-- engine's output <--encrypt-- scratch.plain <--recv_into-- the other end

Invariants that keep this safe although the areas are shared:

* `decrypt` drains everything that stands in the wire area before it returns, so the next link may overwrite it. A read
  BIO made over the area (no copy) would otherwise point at another link's bytes. An unfinished record is no exception:
  OpenSSL has copied it by then.
* The plain area is larger than the wire area by more than one record, so a full wire area and the record left over
  from before always fit.
* What a slow peer has not taken yet stays in the engine's own output, nowhere else.

Errors: OpenSSL keeps a queue of errors for each thread. Every failure empties it, because a stale entry would make the
next, innocent call look as if it had failed.
"""

from __future__ import annotations

import ctypes
from typing import Any

from OpenSSL import SSL

try:
    from cryptography.hazmat.bindings.openssl.binding import Binding

    _lib: Any = Binding.lib
    _ffi: Any = Binding.ffi
except (ImportError, AttributeError):  # another cryptography than we know: the portable engine takes over
    _lib = _ffi = None

CHUNK = 512 * 1024
"""The most that is read at once. 512 KiB is a quarter cheaper than 256 on downloads (benchmarks: relay)."""
RECORD = 16 * 1024 + 256
"""The longest TLS record with its expansion (RFC 8446 section 5.2)."""
BULK_LINKS = 64
"""How many links of a worker may use whole chunks at a time; the others make do with `relay.link.START_CHUNK`."""
_SMALL = 4096
"""Up to here copying into the session's own BIO is cheaper than making a BIO over the scratch."""
_FAT = 32 * 1024
"""An output that ever held this much is worth giving back when the session is quiet."""

_NEEDED = (
    "BIO_free BIO_get_mem_data BIO_new BIO_new_mem_buf BIO_read BIO_s_mem BIO_set_mem_eof_return BIO_write "
    "ERR_clear_error ERR_get_error ERR_reason_error_string OPENSSL_free SSL_CIPHER_get_name "
    "SSL_CTX_set1_curves_list SSL_CTX_set_alpn_select_cb SSL_do_handshake SSL_free SSL_get0_alpn_selected "
    "SSL_get0_group_name SSL_get0_param SSL_get1_session SSL_get_current_cipher SSL_get_error "
    "SSL_get_peer_certificate SSL_get_verify_result SSL_get_version SSL_new SSL_read SSL_SESSION_free "
    "SSL_session_reused SSL_set_SSL_CTX SSL_set_accept_state SSL_set_bio SSL_set_connect_state SSL_set_session "
    "SSL_set_tlsext_host_name SSL_shutdown SSL_write X509_free X509_VERIFY_PARAM_set1_host "
    "X509_VERIFY_PARAM_set1_ip X509_VERIFY_PARAM_set_hostflags i2d_X509_bio"
).split()


def probe() -> str | None:
    """What the binding lacks that the fast engine needs, as text for a warning; `None` when all is there."""
    if _lib is None:
        return "cryptography has no OpenSSL binding that we know"
    missing = [name for name in _NEEDED if not hasattr(_lib, name)]
    if missing:
        return f"cryptography's OpenSSL binding lacks {', '.join(missing)}"
    context = SSL.Context(SSL.TLS_METHOD)
    if not hasattr(context, "_context"):
        return "pyOpenSSL's Context has no _context"
    return None


class TLSError(Exception):
    """A TLS session failed. `reasons` are OpenSSL's reason strings, the first cause first; `verify_code` is its
    verdict on the peer's certificate (0: no objection)."""

    def __init__(self, reasons: tuple[str, ...], verify_code: int = 0) -> None:
        self.reasons, self.verify_code = reasons, verify_code
        super().__init__(reasons, verify_code)

    def __str__(self) -> str:
        return ", ".join(self.reasons) or "unknown TLS error"


def drain_errors() -> tuple[str, ...]:
    """Empty OpenSSL's error queue into its reason strings, the first cause first."""
    reasons = []
    while code := _lib.ERR_get_error():
        text = _lib.ERR_reason_error_string(code)
        reasons.append(_ffi.string(text).decode("ascii", "replace") if text != _ffi.NULL else f"error {code:x}")
    return tuple(reasons)


class Scratch:
    """The buffers that all links of one worker share: what came from a socket, and what is plaintext."""

    __slots__ = ("bulk_left", "discard", "out", "plain", "plain_ptr", "plain_size", "wire", "wire_ptr")

    def __init__(self, chunk: int = CHUNK) -> None:
        self.plain_size = chunk + 2 * RECORD
        self.wire_ptr = _ffi.new("unsigned char[]", chunk)
        self.plain_ptr = _ffi.new("unsigned char[]", self.plain_size)
        self.wire = memoryview(_ffi.buffer(self.wire_ptr))
        self.plain = memoryview(_ffi.buffer(self.plain_ptr))
        self.discard = _ffi.new("unsigned char[]", RECORD)
        self.out = _ffi.new("char **")
        self.bulk_left = BULK_LINKS


class Engine:
    """One TLS session, in memory. `free()` must be called exactly once; nothing else may be called after it.

    Every method may raise TLSError; what OpenSSL has queued for the peer by then (an alert) is in `output()`.
    """

    __slots__ = ("_context", "_in", "_out", "_scratch", "_ssl", "failure", "has_ended", "is_fat")

    def __init__(self, context: SSL.Context, scratch: Scratch, *, is_server: bool) -> None:
        self._context = context
        self._scratch = scratch
        self._ssl = ssl = _lib.SSL_new(context._context)
        self._in = _lib.BIO_new(_lib.BIO_s_mem())
        self._out = _lib.BIO_new(_lib.BIO_s_mem())
        _lib.SSL_set_bio(ssl, self._in, self._out)
        if is_server:
            _lib.SSL_set_accept_state(ssl)
        else:
            _lib.SSL_set_connect_state(ssl)
        self.is_fat = False
        self.has_ended = False  # the peer's close_notify has come (RFC 8446 section 6.1), or `failure`
        self.failure: TLSError | None = None

    def switch(self, context: SSL.Context) -> None:
        """Server, before the handshake: serve with another context's certificate, trust and ALPN choice.

        Session tickets stay those of the context the engine was made with, so tickets survive a renewed certificate.
        Versions, suites and groups stay too: they were taken from that context.
        """
        _lib.SSL_set_SSL_CTX(self._ssl, context._context)
        self._context = context

    def expect(self, host: str, *, is_ip: bool, send_name: str | None) -> None:
        """Client: verify the server's certificate for `host` (RFC 9525), and send `send_name` as SNI."""
        if send_name is not None:
            _lib.SSL_set_tlsext_host_name(self._ssl, send_name.encode("ascii"))
        param = _lib.SSL_get0_param(self._ssl)
        _lib.X509_VERIFY_PARAM_set_hostflags(param, _lib.X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS)
        name = host.encode("ascii")
        if is_ip:
            import ipaddress  # noqa: PLC0415 - only a client to a literal address needs it

            packed = ipaddress.ip_address(host).packed
            ok = _lib.X509_VERIFY_PARAM_set1_ip(param, packed, len(packed))
        else:
            ok = _lib.X509_VERIFY_PARAM_set1_host(param, name, len(name))
        if ok != 1:
            raise TLSError(drain_errors() or (f"cannot verify the name {host}",))

    def handshake(self, received: int) -> bool:
        """Go on with the handshake after `received` bytes came into the wire area; whether it is complete."""
        ssl = self._ssl
        if received:
            _lib.BIO_write(self._in, self._scratch.wire_ptr, received)
        result = _lib.SSL_do_handshake(ssl)
        if result == 1:
            return True
        if _lib.SSL_get_error(ssl, result) != SSL_ERROR_WANT_READ:
            raise self._failure()
        return False

    def decrypt(self, received: int) -> int:
        """Decrypt the `received` bytes of the wire area into the plain area and return how many stand there.

        With 0, what came together with the end of the handshake. Sets `has_ended` on close_notify, and `failure`
        as well on an error: what was decrypted before it is genuine and still counts.
        """
        ssl, scratch = self._ssl, self._scratch
        if received > _SMALL:
            # No copy: the BIO reads the wire area itself. Drained below, before anybody reuses the area.
            bio = _lib.BIO_new_mem_buf(scratch.wire_ptr, received)
            _lib.BIO_set_mem_eof_return(bio, -1)
            _lib.SSL_set_bio(ssl, bio, self._out)
            self._in = None
        elif received:
            if self._in is None:
                self._in = _lib.BIO_new(_lib.BIO_s_mem())
                _lib.SSL_set_bio(ssl, self._in, self._out)
            _lib.BIO_write(self._in, scratch.wire_ptr, received)
        read, plain, size = _lib.SSL_read, scratch.plain_ptr, scratch.plain_size
        total = 0
        while (count := read(ssl, plain + total, size - total)) > 0:
            total += count
        error = _lib.SSL_get_error(ssl, count)
        if error != SSL_ERROR_WANT_READ:
            self.has_ended = True
            if error != SSL_ERROR_ZERO_RETURN:
                self.failure = self._failure()
        return total

    def encrypt(self, size: int) -> None:
        """Encrypt the first `size` bytes of the plain area into the output."""
        if size > _FAT:
            self.is_fat = True
        # A memory BIO takes everything, and the context writes all records of a chunk (no PARTIAL_WRITE mode).
        if _lib.SSL_write(self._ssl, self._scratch.plain_ptr, size) != size:
            raise self._failure()

    def output(self) -> Any:
        """What is to be sent to the peer, as a buffer valid until the next call; `None` when there is nothing."""
        out = self._scratch.out
        count = _lib.BIO_get_mem_data(self._out, out)
        return _ffi.buffer(out[0], count) if count > 0 else None

    def consume(self, count: int) -> None:
        """Forget the first `count` bytes of the output: they were sent."""
        # OpenSSL lets a memory BIO be emptied only by reading. 16 KiB at a time stay in the first-level cache.
        discard, bio = self._scratch.discard, self._out
        while count > 0:
            count -= _lib.BIO_read(bio, discard, min(count, RECORD))

    def close(self) -> None:
        """Queue close_notify: nothing more will be encrypted; the peer may still send (RFC 8446 section 6.1)."""
        if _lib.SSL_shutdown(self._ssl) < 0:
            drain_errors()

    def slim(self) -> None:
        """Give back what bulk left behind. Only with an empty output, and when everything received was decrypted."""
        self._in = _lib.BIO_new(_lib.BIO_s_mem())
        self._out = _lib.BIO_new(_lib.BIO_s_mem())
        _lib.SSL_set_bio(self._ssl, self._in, self._out)
        self.is_fat = False

    def free(self) -> None:
        """Release the session."""
        _lib.SSL_free(self._ssl)
        self._ssl = None

    def _failure(self) -> TLSError:
        reasons = drain_errors()
        return TLSError(reasons, _lib.SSL_get_verify_result(self._ssl))

    # What was negotiated; for after the handshake.

    def version(self) -> str:
        """ "TLSv1.3" and the like."""
        return _text(_lib.SSL_get_version(self._ssl))

    def cipher(self) -> str:
        """The suite's name as OpenSSL writes it."""
        return _text(_lib.SSL_CIPHER_get_name(_lib.SSL_get_current_cipher(self._ssl)))

    def group(self) -> str:
        """The key-exchange group's name; empty where there was no key exchange (TLS 1.2 resumption)."""
        return _text(_lib.SSL_get0_group_name(self._ssl))

    def is_resumed(self) -> bool:
        """Whether the handshake resumed an earlier session."""
        return bool(_lib.SSL_session_reused(self._ssl))

    def alpn(self) -> str:
        """The application protocol agreed on, or empty."""
        out, size = _ffi.new("unsigned char **"), _ffi.new("unsigned int *")
        _lib.SSL_get0_alpn_selected(self._ssl, out, size)
        return _ffi.buffer(out[0], size[0])[:].decode("ascii", "replace") if size[0] else ""

    def peer_certificate(self) -> bytes | None:
        """The peer's certificate as DER, also on a resumed session; `None` when it sent none."""
        certificate = _lib.SSL_get_peer_certificate(self._ssl)
        if certificate == _ffi.NULL:
            return None
        bio = _lib.BIO_new(_lib.BIO_s_mem())
        out = _ffi.new("char **")
        try:
            _lib.i2d_X509_bio(bio, certificate)
            size = _lib.BIO_get_mem_data(bio, out)
            return bytes(_ffi.buffer(out[0], size))
        finally:
            _lib.BIO_free(bio)
            _lib.X509_free(certificate)

    def session(self) -> Any:
        """The newest session to resume later, or `None`. Freed when the last reference to it goes."""
        session = _lib.SSL_get1_session(self._ssl)
        return None if session == _ffi.NULL else _ffi.gc(session, _lib.SSL_SESSION_free)

    def resume(self, session: Any) -> None:
        """Offer a session that `session()` gave earlier."""
        if _lib.SSL_set_session(self._ssl, session) != 1:
            drain_errors()


SSL_ERROR_WANT_READ = 2
SSL_ERROR_ZERO_RETURN = 6


def _text(pointer: Any) -> str:
    return "" if pointer == _ffi.NULL else _ffi.string(pointer).decode("ascii", "replace")


# What the public Context cannot do. Each takes a pyOpenSSL Context that no session was made from yet.


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
