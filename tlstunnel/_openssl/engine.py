"""The engine and the scratch it works in. The package's docstring is the theory of operation."""

from __future__ import annotations

import mmap
import socket
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL

from tlstunnel._openssl.binding import TLSError, drain_errors, to_der
from tlstunnel._openssl.binding import ffi as _ffi
from tlstunnel._openssl.binding import lib as _lib
from tlstunnel._openssl.contexts import Judge, judge_session, objection_in

CHUNK = 512 * 1024
"""The most read at once: downloads cost 15 % more with 64 KiB, 8 % more with 128 or 1024 (ladder: chunk-down)."""
RECORD = 16 * 1024 + 256
"""The longest TLS record with its expansion (RFC 8446 section 5.2)."""
BULK_LINKS = 64
"""How many links of a worker may use whole chunks at a time; the others make do with `relay.link.START_CHUNK`."""
OUT = RECORD
"""What is copied out of an output at most: one record, which stays in the first-level cache."""
_SMALL = 4096
"""Up to here copying into the session's own BIO is cheaper than making a BIO over the scratch."""
BULK_MIN = 32 * 1024
"""An output that ever held this much is worth giving back when the session is quiet."""
_ONE_RECORD = 16 * 1024
UNFINISHED_RECORD = b"\x17\x03\x03\x41\x00" + bytes(RECORD - 1)
"""The header of the longest record, and its contents but for the last byte (RFC 8446 section 5.2)."""
_APPLICATION_DATA = 23  # RFC 8446 section 5.1
MAX_ANSWERS = 16 * 1024
"""Bytes of answers (to key updates, to renegotiation) that a peer may ask for while it does not read."""
UNREAD_ANSWERS = ("peer asks for answers and does not read them",)
_DONTWAIT = socket.MSG_DONTWAIT


class Scratch:
    """The buffers that all links of one worker share: what came from a socket, and what is plaintext."""

    __slots__ = (
        "_memory", "bulk_left", "has_slimmed", "out", "out_ptr", "out_view", "plain", "plain_ptr", "plain_size", "wire",
        "wire_ptr",
    )  # fmt: skip

    def __init__(self, chunk: int = CHUNK) -> None:
        self.plain_size = chunk + 2 * RECORD
        # Private: pages of a shared mapping would not go back by `give_back`.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._memory = (mmap.mmap(-1, chunk, flags), mmap.mmap(-1, self.plain_size, flags))
        self.wire, self.plain = memoryview(self._memory[0]), memoryview(self._memory[1])
        # Not from the views: where one with a buffer taken from it is part of a reference cycle, Python before 3.12.4
        # crashes when it collects that (python/cpython issue 77894).
        self.wire_ptr = _ffi.from_buffer("unsigned char[]", self._memory[0])
        self.plain_ptr = _ffi.from_buffer("unsigned char[]", self._memory[1])
        self.out_ptr = _ffi.new("unsigned char[]", OUT)
        self.out_view = memoryview(_ffi.buffer(self.out_ptr))
        self.out = _ffi.new("char **")
        self.bulk_left = BULK_LINKS
        self.has_slimmed = False
        """Whether links have given memory back since somebody looked."""

    def give_back(self) -> None:
        """Return the areas' pages to the machine: between turns nothing of value stands in them."""
        for area in self._memory:
            area.madvise(mmap.MADV_DONTNEED)


class Engine:
    """One TLS session, in memory. `free()` must be called; nothing else may be called after it.

    Every method may raise TLSError; what OpenSSL has queued for the peer by then (an alert) is in the output. After
    `close` nothing more comes into the output (RFC 8446 section 6.1), whatever the peer asks for.
    """

    __slots__ = (
        "_context", "_has_output", "_in", "_is_aligned", "_is_closed", "_is_judged", "_out", "_scratch", "_ssl",
        "_unwritten", "failure", "has_ended", "kept", "may_answer",
    )  # fmt: skip

    def __init__(self, context: SSL.Context, scratch: Scratch, *, is_server: bool) -> None:
        self._context = context
        self._scratch = scratch
        self._ssl = ssl = _lib.SSL_new(context._context)
        self._in = _lib.BIO_new(_lib.BIO_s_mem())
        self._out = _lib.BIO_new(_lib.BIO_s_mem())
        if not (ssl and self._in and self._out):
            raise MemoryError  # what OpenSSL would do with NULL is worse
        _lib.SSL_set_bio(ssl, self._in, self._out)
        if is_server:
            _lib.SSL_set_accept_state(ssl)
        else:
            _lib.SSL_set_connect_state(ssl)
        self._is_judged = False
        # Whether what was received so far ends with the end of a record.
        self._is_aligned = False
        # Whether something may stand in the output before what is encrypted next.
        self._has_output = True
        # How long the output was when the handshake was done, or when it was last flushed: what is more are answers.
        self.kept = 0
        # Whether the last `decrypt` may have produced something to send (the answer to a key update).
        self.may_answer = False
        self._is_closed = False
        # What cannot be encrypted before the peer has sent the rest of a handshake message, such as a key update.
        self._unwritten = b""
        self.has_ended = False  # the peer's close_notify has come (RFC 8446 section 6.1), or `failure`
        self.failure: TLSError | None = None

    def switch(self, context: SSL.Context) -> None:
        """Server, before the handshake: serve with another context's certificate, trust and ALPN choice.

        Session tickets stay those of the context the engine was made with, so tickets survive a renewed certificate.
        Versions, suites and groups stay too: they were taken from that context.
        """
        _lib.SSL_set_SSL_CTX(self._ssl, context._context)
        self._context = context

    def expect(self, host: str, *, is_ip: bool, send_name: str | None, judge: Judge | None = None) -> None:
        """Client: verify the server's certificate for `host` (RFC 9525), and send `send_name` as SNI.

        `judge` says what is against the certificate besides, in a context that asks (`ask_sessions`).
        """
        if judge is not None:
            judge_session(self._ssl, judge)
            self._is_judged = True
        if send_name is not None:
            _lib.SSL_set_tlsext_host_name(self._ssl, send_name.encode("ascii"))
        param = _lib.SSL_get0_param(self._ssl)
        # The common name is no host name (RFC 9525 section 2), though OpenSSL would fall back to it.
        flags = _lib.X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | _lib.X509_CHECK_FLAG_NEVER_CHECK_SUBJECT
        _lib.X509_VERIFY_PARAM_set_hostflags(param, flags)
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
        """Go on with the handshake after `received` bytes came into the wire area; whether it is complete.

        Raises:
            EOFError: the peer ended it by close_notify.
        """
        ssl = self._ssl
        if received:
            _lib.BIO_write(self._in, self._scratch.wire_ptr, received)
        result = _lib.SSL_do_handshake(ssl)
        if result == 1:
            self._has_output = True  # session tickets, which may be longer than a copy is
            self.kept = self.output_size()
            # OpenSSL takes whole records and stops after the last of the handshake.
            self._is_aligned = _lib.BIO_get_mem_data(self._in, self._scratch.out) == 0
            return True
        error = _lib.SSL_get_error(ssl, result)
        if error == SSL_ERROR_WANT_READ:
            return False
        if self._is_end(error):
            raise EOFError
        raise self._failure()

    def decrypt(self, received: int) -> int:
        """Decrypt the `received` bytes of the wire area into the plain area and return how many stand there.

        With 0, what came together with the end of the handshake. Sets `has_ended` on close_notify, and `failure`
        as well on an error: what was decrypted before it is genuine and still counts.
        """
        ssl, scratch = self._ssl, self._scratch
        read, plain, size = _lib.SSL_read, scratch.plain_ptr, scratch.plain_size
        total = count = 0
        if received > _SMALL:
            # No copy: the BIO reads the wire area itself. Drained below, before anybody reuses the area.
            bio = _lib.BIO_new_mem_buf(scratch.wire_ptr, received)
            _lib.BIO_set_mem_eof_return(bio, -1)
            _lib.SSL_set_bio(ssl, bio, self._out)
            self._in = None
            self._is_aligned = False
        elif received:
            if self._in is None:
                self._in = _lib.BIO_new(_lib.BIO_s_mem())
                _lib.SSL_set_bio(ssl, self._in, self._out)
            _lib.BIO_write(self._in, scratch.wire_ptr, received)
            wire = scratch.wire
            end = 5 + wire[3] * 256 + wire[4]
            if end == received and self._is_aligned:
                # One whole record and nothing before it, as in every small exchange: when it gives data, there is no
                # more, and asking again to hear that costs 0.8 µs beside 1.3 (ladder: one-read-memory).
                count = read(ssl, plain, size)
                if count > 0:
                    self.may_answer = False
                    return count  # type: ignore[no-any-return]
            self._is_aligned = _are_whole_records(wire, received, end)
        self.may_answer = True
        if count == 0:
            while (count := read(ssl, plain + total, size - total)) > 0:
                total += count
        error = _lib.SSL_get_error(ssl, count)
        if self._is_closed:
            self._is_aligned = False  # the short way above would leave answers in the output
            self._cut_output()
        if error != SSL_ERROR_WANT_READ:
            self.has_ended = True
            if not self._is_end(error):
                self.failure = self._failure()
        elif self._has_output and _lib.BIO_get_mem_data(self._out, scratch.out) > self.kept + MAX_ANSWERS:
            self.has_ended, self.failure = True, TLSError(UNREAD_ANSWERS)
        return total

    def _is_end(self, error: int) -> bool:
        """Whether the session ended by close_notify. OpenSSL does not say so where user_canceled came before it."""
        if error == SSL_ERROR_ZERO_RETURN:
            return True
        return error == SSL_ERROR_SYSCALL and bool(_lib.SSL_get_shutdown(self._ssl) & _lib.SSL_RECEIVED_SHUTDOWN)

    def _cut_output(self) -> None:
        """Take back what reading has queued for the peer."""
        scratch, out = self._scratch, self._out
        count = _lib.BIO_get_mem_data(out, scratch.out)
        if count > self.kept:
            before = _ffi.buffer(scratch.out[0], self.kept)[:]
            _lib.BIO_read(out, scratch.out[0], count)
            _lib.BIO_write(out, before, len(before))

    def is_inside_record(self) -> bool:
        """Whether what was received ends inside a record. Only when nothing more will be received.

        OpenSSL does not tell, so it is given the beginning of a record of which the end never comes. Between two
        records it waits for that; inside one it finds that the record is none.
        """
        if self.failure is not None:
            return False
        ssl, scratch, size = self._ssl, self._scratch, len(UNFINISHED_RECORD)
        self.kept = self.output_size()
        self._in = _lib.BIO_new(_lib.BIO_s_mem())
        _lib.SSL_set_bio(ssl, self._in, self._out)
        scratch.wire[:size] = UNFINISHED_RECORD
        _lib.BIO_write(self._in, scratch.wire_ptr, size)
        error = _lib.SSL_get_error(ssl, _lib.SSL_read(ssl, scratch.plain_ptr, scratch.plain_size))
        drain_errors()
        self._cut_output()
        return bool(error != SSL_ERROR_WANT_READ)

    def send(self, size: int, send: Callable[[Any, int], int]) -> bool:
        """Encrypt the first `size` bytes of the plain area and send them. Whether everything is out.

        Args:
            send: a socket's own method. Called so that it does not wait; it may raise OSError.
        """
        # A memory BIO takes everything, and the context writes all records of a chunk (no PARTIAL_WRITE mode).
        scratch = self._scratch
        count = _lib.SSL_write(self._ssl, scratch.plain_ptr, size)
        if count != size:
            if _lib.SSL_get_error(self._ssl, count) != SSL_ERROR_WANT_READ:
                raise self._failure()
            self._unwritten = bytes(scratch.plain[:size])
            return False
        if size > _ONE_RECORD or self._has_output:
            return self.flush(send)
        # One record alone: copied out, sent, and what the socket does not take put back.
        count = _lib.BIO_read(self._out, scratch.out_ptr, OUT)
        try:
            sent = send(scratch.out_view[:count], _DONTWAIT)
        except BlockingIOError:
            sent = 0
        if sent == count:
            return True
        self.kept = count - sent
        _lib.BIO_write(self._out, scratch.out_ptr + sent, self.kept)
        self._has_output = True
        return False

    def flush(self, send: Callable[[Any, int], int]) -> bool:
        """Send what is in the output, in one call and from where OpenSSL keeps it. Whether everything is out."""
        if self._unwritten and not self._write():
            return False
        scratch, out = self._scratch, self._out
        count = _lib.BIO_get_mem_data(out, scratch.out)
        if count <= 0:
            self._has_output = False
            return True
        try:
            sent = send(_ffi.buffer(scratch.out[0], count), _DONTWAIT)
        except BlockingIOError:
            sent = 0
        self._has_output = sent < count
        self.kept = count - sent
        if sent:
            # OpenSSL lets a memory BIO be emptied only by reading. Read to where it stands, nothing is copied: memcpy
            # onto itself returns at once (downloads 0.92 of reading it elsewhere; ladder: read-in-place).
            _lib.BIO_read(out, scratch.out[0], sent)
        return not self._has_output

    def _write(self) -> bool:
        """Encrypt what had to wait; whether that could be done."""
        count = _lib.SSL_write(self._ssl, self._unwritten, len(self._unwritten))
        if count != len(self._unwritten):
            if _lib.SSL_get_error(self._ssl, count) != SSL_ERROR_WANT_READ:
                raise self._failure()
            return False
        self._unwritten = b""
        return True

    def output_size(self) -> int:
        """Bytes in the output, and those that wait to be encrypted into it."""
        return _lib.BIO_get_mem_data(self._out, self._scratch.out) + len(self._unwritten)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Queue close_notify: nothing more will be encrypted; the peer may still send (RFC 8446 section 6.1)."""
        if _lib.SSL_shutdown(self._ssl) < 0:
            drain_errors()
        self._is_closed, self._is_aligned = True, False
        self.kept = self.output_size()

    def slim(self) -> None:
        """Give back what bulk left behind. Only with an empty output, and when everything received was decrypted."""
        self._in = _lib.BIO_new(_lib.BIO_s_mem())
        self._out = _lib.BIO_new(_lib.BIO_s_mem())
        _lib.SSL_set_bio(self._ssl, self._in, self._out)

    def free(self) -> None:
        """Release the session."""
        ssl, self._ssl = self._ssl, None
        if ssl is not None:
            if self._is_judged:
                judge_session(ssl, None)
            _lib.SSL_free(ssl)

    def _failure(self) -> TLSError:
        reasons = drain_errors()
        return TLSError(reasons, _lib.SSL_get_verify_result(self._ssl), objection_in(self._ssl))

    # What was negotiated; for after the handshake.

    def is_tls13(self) -> bool:
        """Whether it is TLS 1.3, where session tickets follow the handshake (RFC 8446 section 4.6.1)."""
        return _lib.SSL_version(self._ssl) == _lib.TLS1_3_VERSION  # type: ignore[no-any-return]

    def version(self) -> str:
        """ "TLSv1.3" and the like."""
        return _constant(_lib.SSL_get_version(self._ssl))

    def cipher(self) -> str:
        """The suite's name as OpenSSL writes it."""
        return _constant(_lib.SSL_CIPHER_get_name(_lib.SSL_get_current_cipher(self._ssl)))

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
        try:
            return to_der(certificate)
        finally:
            _lib.X509_free(certificate)

    def shown_certificate(self) -> bytes | None:
        """Client: the server's certificate as DER, also one that was refused; `None` when it sent none."""
        chain = _lib.SSL_get_peer_cert_chain(self._ssl)
        return None if chain == _ffi.NULL or not _lib.sk_X509_num(chain) else to_der(_lib.sk_X509_value(chain, 0))

    def server_name(self) -> str:
        """The server name the client asked for, as it came; empty for none."""
        return _text(_lib.SSL_get_servername(self._ssl, 0))

    def session(self) -> Any:
        """The newest session to resume later, or `None`. Freed when the last reference to it goes."""
        session = _lib.SSL_get1_session(self._ssl)
        return None if session == _ffi.NULL else _ffi.gc(session, _lib.SSL_SESSION_free)

    def resume(self, session: Any) -> None:
        """Offer a session that `session()` gave earlier."""
        if _lib.SSL_set_session(self._ssl, session) != 1:
            drain_errors()


SSL_ERROR_WANT_READ = 2
SSL_ERROR_SYSCALL = 5
SSL_ERROR_ZERO_RETURN = 6


def _are_whole_records(wire: memoryview, received: int, end: int) -> bool:
    """Whether what stands in the wire area looks like whole records, the first of them ending at `end`.

    The middle of a record looks so by chance once in 2**40 times. What that record holds would then come with the next.
    """
    if wire[0] != _APPLICATION_DATA or wire[1] != 3 or wire[2] != 3:
        return False
    while end + 5 <= received:
        end += 5 + wire[end + 3] * 256 + wire[end + 4]
    return end == received


_constants: dict[Any, str] = {}


def _constant(pointer: Any) -> str:
    """A text that stands in OpenSSL for good, read once."""
    text = _constants.get(pointer)
    if text is None:
        text = _constants[pointer] = _text(pointer)
    return text


def _text(pointer: Any) -> str:
    return "" if pointer == _ffi.NULL else _ffi.string(pointer).decode("ascii", "replace")
