"""What the public Context cannot do. Each function takes a pyOpenSSL Context that no session was made from yet.

Theory of operation of the callbacks. pyOpenSSL's need memory that is writable and executable, which systemd's
MemoryDenyWriteExecute= forbids. Those of ctypes do not: where libffi has no prepared trampolines (Debian 12), it puts
them into a memfd that is mapped twice, once to write and once to execute. That mapping is *shared*, also with
processes that are forked later: two of them that make or free callbacks write over each other's, and whoever is
called next is gone (python/cpython issue 69839). So there is one callback of each kind, made before the first fork by
whoever makes the first context, and never freed; contexts are told apart by what OpenSSL hands over with the call.
All else is Python objects, which are each process's own.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from OpenSSL import SSL

from tlstunnel._openssl.binding import TLSError, drain_errors, to_der
from tlstunnel._openssl.binding import ffi as _ffi
from tlstunnel._openssl.binding import lib as _lib


def set_groups(context: SSL.Context, groups: str) -> None:
    """Set the key-exchange groups, in order of preference. Raises TLSError for a name OpenSSL does not know."""
    if _lib.SSL_CTX_set1_curves_list(context._context, groups.encode("ascii")) != 1:
        raise TLSError(drain_errors())


_SUITE_BLOCKS = (0x00, 0x13, 0x56, 0xC0, 0xCC)
"""First bytes of the numbers that suites have (the IANA registry): not all 65,536 are asked for."""


def suite_names(context: SSL.Context) -> dict[int, str]:
    """OpenSSL's name of every suite by its number. A millisecond: ask once."""
    ssl = _lib.SSL_new(context._context)
    found = {}
    try:
        for number in (block << 8 | low for block in _SUITE_BLOCKS for low in range(256)):
            cipher = _lib.SSL_CIPHER_find(ssl, number.to_bytes(2, "big"))
            if cipher != _ffi.NULL:
                found[number] = _ffi.string(_lib.SSL_CIPHER_get_name(cipher)).decode("ascii")
    finally:
        _lib.SSL_free(ssl)
    return found


X509_V_ERR_APPLICATION_VERIFICATION = 50
"""OpenSSL's verdict for what `judge` refused."""
X509_V_ERR_CERT_REJECTED = 28
"""OpenSSL's verdict for a server's certificate that a session's judge refused: bad_certificate is its alert."""
X509_V_ERR_CRL_HAS_EXPIRED = 12

_ALPN_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_ubyte),
    ctypes.c_void_p,
    ctypes.c_uint,
    ctypes.c_void_p,
)
_VERIFY_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
_STATUS_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


Judge = Callable[[bytes], object]
"""Says what is against a peer's certificate (DER); None if nothing is."""


@dataclass(frozen=True, slots=True)
class _Protocols:
    ours: tuple[tuple[bytes, Any], ...]
    """Each with the memory that OpenSSL is given."""
    refusal: int


@dataclass(frozen=True, slots=True)
class _Judgement:
    judge: Judge
    refused: Judge | None
    forgives_expired_lists: bool


_protocols: dict[int, _Protocols] = {}
_responses: dict[int, Callable[[bytes], bytes | None]] = {}
_judgements: dict[int, _Judgement] = {}
_sessions: dict[int, Judge] = {}
"""Sessions in which we are the client, by their address: who judges the server's certificate."""
_objections: dict[int, object] = {}
"""Sessions whose handshake is failing, by their address: what was said against the peer's certificate."""
_numbers = itertools.count(1)


class _Registered:
    """Keeps an entry for as long as it lives itself, which is as long as the context does."""

    __slots__ = ("_entry", "_key", "_table")

    def __init__(self, table: dict[int, Any], key: int, entry: Any) -> None:
        self._table, self._key, self._entry = table, key, entry
        table[key] = entry

    def __del__(self) -> None:
        # A key that is an address may have become another context's.
        if self._table.get(self._key) is self._entry:
            del self._table[self._key]


def set_alpn_choice(context: SSL.Context, protocols: tuple[str, ...], *, rejects_others: bool) -> object:
    """Server: choose the first of our protocols that the client offers (RFC 7301 section 3.2). Who offers others alone
    gets an alert if it `rejects_others`; who offers none at all is nobody OpenSSL asks about.

    The object returned must live as long as the context.
    """
    ours = tuple((name.encode("ascii"), ctypes.create_string_buffer(name.encode("ascii"))) for name in protocols)
    refusal = int(_lib.SSL_TLSEXT_ERR_ALERT_FATAL if rejects_others else _lib.SSL_TLSEXT_ERR_NOACK)
    number = next(_numbers)
    kept = _Registered(_protocols, number, _Protocols(ours, refusal))
    pointer = _pointer(_callbacks().choose, _lib.SSL_CTX_set_alpn_select_cb, 1)
    _lib.SSL_CTX_set_alpn_select_cb(context._context, pointer, _ffi.cast("void *", number))
    return kept


def set_judge(
    context: SSL.Context,
    mode: int,
    judge: Judge | None,
    *,
    refused: Judge | None = None,
    forgives_expired_lists: bool = False,
) -> object:
    """Let `judge` see the peer's certificate that OpenSSL has verified, while an alert can still say no.

    What it says becomes the `objection` of the handshake's TLSError. Not called on resumption, where no certificate is
    sent. The object returned must live as long as the context, which for a judge is a server's that has its list of CAs
    for clients already: by that list it is known again.

    Args:
        judge: None for a client, where nothing but `forgives_expired_lists` is asked for.
        refused: asked the same of a certificate that OpenSSL refuses itself.
        forgives_expired_lists: use a revocation list that is past its date as if it were not.
    """
    callbacks = _callbacks()
    if judge is None:
        pointer = _pointer(callbacks.forgive, _lib.SSL_CTX_set_verify, 2)
        _lib.SSL_CTX_set_verify(context._context, mode, pointer)
        return callbacks
    _lib.SSL_CTX_set_verify(context._context, mode, _pointer(callbacks.verify, _lib.SSL_CTX_set_verify, 2))
    return _Registered(_judgements, _identity_of(context), _Judgement(judge, refused, forgives_expired_lists))


def ask_sessions(context: SSL.Context, mode: int, *, forgives_expired_lists: bool = False) -> object:
    """Client: let each session's own judge (`judge_session`) see the server's certificate that OpenSSL has verified,
    while an alert can still say no and before ours is shown. A session without one is refused.

    Not called on resumption, where no certificate is sent. The object returned must live as long as the context.
    """
    callbacks = _callbacks()
    callback = callbacks.ask_and_forgive if forgives_expired_lists else callbacks.ask
    _lib.SSL_CTX_set_verify(context._context, mode, _pointer(callback, _lib.SSL_CTX_set_verify, 2))
    return callbacks


def judge_session(ssl: Any, judge: Judge | None) -> None:
    """The judge of this session, until None ends that: at the latest when the session is freed."""
    if judge is None:
        _sessions.pop(_address(ssl), None)
    else:
        _sessions[_address(ssl)] = judge


def objection_in(ssl: Any) -> object:
    """What was said against the certificate of this session's peer in the call that has just failed; said once."""
    return _objections.pop(_address(ssl), None) if _objections else None


def _address(ssl: Any) -> int:
    return int(_ffi.cast("uintptr_t", ssl))


def set_staple(context: SSL.Context, response: Callable[[bytes], bytes | None]) -> object:
    """Server: staple what `response` has for our certificate (both DER) where the client asks (RFC 6066 section 8).

    The object returned must live as long as the context.
    """
    number = next(_numbers)
    kept = _Registered(_responses, number, response)
    pointer = _pointer(_callbacks().staple, _lib.SSL_CTX_set_tlsext_status_cb, 1)
    _lib.SSL_CTX_set_tlsext_status_cb(context._context, pointer)
    _lib.SSL_CTX_set_tlsext_status_arg(context._context, _ffi.cast("void *", number))
    return kept


@dataclass(frozen=True, slots=True)
class _Callbacks:
    choose: Any
    verify: Any
    forgive: Any
    ask: Any
    ask_and_forgive: Any
    staple: Any


@functools.cache
def _callbacks() -> _Callbacks:
    """All callbacks there ever are, for good: a reference too many keeps them past the end of the interpreter, too."""
    alert, silence = int(_lib.SSL_TLSEXT_ERR_ALERT_FATAL), int(_lib.SSL_TLSEXT_ERR_NOACK)
    made = _Callbacks(
        choose=_ALPN_CALLBACK(_guarded(_choose, alert)),
        verify=_VERIFY_CALLBACK(_guarded(_verify, 0)),
        forgive=_VERIFY_CALLBACK(_guarded(_forgive, 0)),
        ask=_VERIFY_CALLBACK(_guarded(_ask, 0)),
        ask_and_forgive=_VERIFY_CALLBACK(_guarded(_ask_and_forgive, 0)),
        staple=_STATUS_CALLBACK(_guarded(_staple, silence)),
    )
    for callback in (made.choose, made.verify, made.forgive, made.ask, made.ask_and_forgive, made.staple):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(callback))
    return made


def tell_errors_to(tell: Callable[[BaseException], None]) -> None:
    """From now on `tell` hears what is raised in callbacks, where nothing can be raised through OpenSSL."""
    _told[:] = [tell]


_told: list[Callable[[BaseException], None]] = []


def _guarded(callback: Callable[..., int], otherwise: int) -> Callable[..., int]:
    """The callback, which returns `otherwise` where it raises: ctypes would return what happens to stand in memory."""

    def guarded(*args: Any) -> int:
        try:
            return callback(*args)
        except BaseException as exc:  # noqa: BLE001 - an error of ours, of whatever type
            with contextlib.suppress(BaseException):  # of what is raised here there is nobody left to tell
                for tell in _told:
                    tell(exc)
            return otherwise

    return guarded


def _pointer(callback: Any, taker: Any, argument: int) -> Any:
    """A callback as the binding's function wants it."""
    return _ffi.cast(_ffi.typeof(taker).args[argument], ctypes.cast(callback, ctypes.c_void_p).value)


def _choose(_ssl: Any, out: Any, out_size: Any, offered: Any, size: int, number: Any) -> int:
    entry = _protocols.get(number)
    if entry is None:
        return int(_lib.SSL_TLSEXT_ERR_ALERT_FATAL)
    theirs = _split_alpn(ctypes.string_at(offered, size))
    for name, kept in entry.ours:
        if name in theirs:
            out[0] = ctypes.cast(kept, ctypes.c_void_p)
            out_size[0] = len(name)
            return int(_lib.SSL_TLSEXT_ERR_OK)
    return entry.refusal


def _split_alpn(wire: bytes) -> list[bytes]:
    """The protocols of an ALPN extension, each behind its length byte. OpenSSL has checked the lengths."""
    names, at = [], 0
    while at < len(wire):
        end = at + 1 + wire[at]
        names.append(wire[at + 1 : end])
        at = end
    return names


def _verify(is_good: int, store_context: Any) -> int:
    pointer = _ffi.cast("X509_STORE_CTX *", store_context)
    session = _session_of(pointer)
    entry = _judgements.get(_list_of(session))
    if not is_good:
        if entry is not None and entry.forgives_expired_lists and _forgiven(pointer):
            return 1
        _objections.pop(_address(session), None)
        if entry is not None and entry.refused is not None:
            _objections[_address(session)] = entry.refused(to_der(_lib.X509_STORE_CTX_get0_cert(pointer)))
        return 0
    return _judged(pointer, session, None if entry is None else entry.judge, X509_V_ERR_APPLICATION_VERIFICATION)


def _judged(pointer: Any, session: Any, judge: Judge | None, verdict: int) -> int:
    """What the judge says of a certificate that OpenSSL finds good, if it is the peer's own and not one of its CAs."""
    if _lib.X509_STORE_CTX_get_error_depth(pointer) != 0:
        return 1
    # What raises is refused; and so is everybody by a context or a session that is not known any more.
    before = _lib.X509_STORE_CTX_get_error(pointer)
    _lib.X509_STORE_CTX_set_error(pointer, verdict)
    _objections.pop(_address(session), None)  # of one that could not tell, and whose address this session has now
    if judge is None:
        return 0
    objection = judge(to_der(_lib.X509_STORE_CTX_get_current_cert(pointer)))
    if objection is not None:
        _objections[_address(session)] = objection
        return 0
    _lib.X509_STORE_CTX_set_error(pointer, before)
    return 1


def _ask(is_good: int, store_context: Any) -> int:
    pointer = _ffi.cast("X509_STORE_CTX *", store_context)
    session = _session_of(pointer)
    return _judged(pointer, session, _sessions.get(_address(session)), X509_V_ERR_CERT_REJECTED) if is_good else 0


def _ask_and_forgive(is_good: int, store_context: Any) -> int:
    if not is_good:
        return _forgive(is_good, store_context)
    return _ask(is_good, store_context)


def _session_of(pointer: Any) -> Any:
    """The session whose peer is being verified."""
    ssl = _lib.X509_STORE_CTX_get_ex_data(pointer, _lib.SSL_get_ex_data_X509_STORE_CTX_idx())
    return _ffi.cast("SSL *", ssl)


def _forgive(is_good: int, store_context: Any) -> int:
    return int(is_good or _forgiven(_ffi.cast("X509_STORE_CTX *", store_context)))


def _forgiven(pointer: Any) -> bool:
    """Whether the error is that a revocation list has expired; then OpenSSL goes on with the list."""
    if _lib.X509_STORE_CTX_get_error(pointer) != X509_V_ERR_CRL_HAS_EXPIRED:
        return False
    _lib.X509_STORE_CTX_set_error(pointer, 0)
    return True


def _identity_of(context: SSL.Context) -> int:
    """What `_list_of` will say of this context's sessions."""
    ssl = _lib.SSL_new(context._context)
    try:
        return _list_of(ssl)
    finally:
        _lib.SSL_free(ssl)


def _list_of(ssl: Any) -> int:
    """Which context a server's session has now, also after a switch: by the address of its list of CAs for clients.

    The binding cannot ask a session for its context; this list is the context's own, and one that is asked for a
    client's certificate always has one.
    """
    return int(_ffi.cast("uintptr_t", _lib.SSL_get_client_CA_list(ssl)))


def _staple(ssl: Any, number: Any) -> int:
    session = _ffi.cast("SSL *", ssl)
    response = _responses.get(number)
    data = None if response is None else response(to_der(_lib.SSL_get_certificate(session)))
    if data is None:
        return int(_lib.SSL_TLSEXT_ERR_NOACK)
    # OpenSSL frees the copy together with the session.
    copy = _lib.OPENSSL_malloc(len(data))
    _ffi.memmove(copy, data, len(data))
    _lib.SSL_set_tlsext_status_ocsp_resp(session, copy, len(data))
    return int(_lib.SSL_TLSEXT_ERR_OK)
