"""The relay without one of its tricks: one place of its text, or a constant, replaced before anything runs."""

from __future__ import annotations
import __future__

import inspect
import sys
import textwrap
from collections.abc import Callable
from typing import Any


def _edit(owner: Any, name: str, old: str, new: str) -> None:
    """Replace a function of a module or class by what its source says with `old`, which is there once, as `new`."""
    function = inspect.getattr_static(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(old) != 1:
        raise LookupError(f"{owner.__name__}.{name}: {old!r} is there {source.count(old)} times; correct variants.py")
    code = compile(source.replace(old, new), f"<{name} edited>", "exec", __future__.annotations.compiler_flag, True)
    module = sys.modules[function.__module__]
    found: dict[str, Any] = {}
    exec(code, module.__dict__, found)  # noqa: S102 - our own source
    setattr(owner, name, found[name])


def _set(module: Any, name: str, value: object) -> None:
    """Replace a constant, which must be there."""
    getattr(module, name)
    setattr(module, name, value)


def _copied_wire() -> None:
    from tlstunnel._openssl import engine

    _set(engine, "_SMALL", 1 << 30)


def ask_twice(engine: type) -> None:
    """Let an engine's class ask OpenSSL a second time whether there is more."""
    _edit(engine, "decrypt", "if end == received and self._is_aligned:", "if False:")


def _two_reads() -> None:
    from tlstunnel._openssl.engine import Engine

    ask_twice(Engine)


def _output_in_place() -> None:
    from tlstunnel._openssl.engine import Engine

    _edit(Engine, "send", "if size > _ONE_RECORD or self._has_output:", "if True:")


def _read_elsewhere() -> None:
    from tlstunnel._openssl.engine import Engine

    elsewhere = "while sent > 0: sent -= _lib.BIO_read(out, scratch.out_ptr, min(sent, OUT))"
    _edit(Engine, "flush", "_lib.BIO_read(out, scratch.out[0], sent)", elsewhere)


def _no_linger() -> None:
    from tlstunnel.connection import bridge

    _set(bridge, "LINGER_S", 0.0)


def _chunk(size: int) -> Callable[[], None]:
    def apply() -> None:
        from tlstunnel._openssl.engine import Scratch
        from tlstunnel.relay import link

        _set(link, "CHUNK", size)
        if size <= link.START_CHUNK:
            link.START_CHUNK, link.PROVEN = size, sys.maxsize  # such a flow has nothing to be promoted to
        Scratch.__init__.__defaults__ = (max(size, 72 * 1024),)  # as much as a ClientHello may need

    return apply


def _big_at_once() -> None:
    from tlstunnel.relay import link

    _set(link, "START_CHUNK", link.CHUNK)


def _always_room() -> None:
    from tlstunnel.relay.reactor import EDGES, EDGES_AND_ROOM, Reactor

    if Reactor.watch.__defaults__ != (EDGES,):
        raise LookupError("Reactor.watch does not watch EDGES unless told otherwise; correct variants.py")
    Reactor.watch.__defaults__ = (EDGES_AND_ROOM,)


def _kept_buffers() -> None:
    from tlstunnel.tls import context

    _edit(context, "_common", "SSL.MODE_RELEASE_BUFFERS | ", "")


def _eager_tickets() -> None:
    from tlstunnel.relay.ends import TLSEnd

    _edit(TLSEnd, "handshake", "if is_complete and self.is_server and self.engine.is_tls13():", "if False:")


def _limited(keys: str) -> Callable[[], None]:
    """The service with limits that it does not reach."""

    def apply() -> None:
        from benchmarks.ladder import subject

        files = "certificate=(_files(arguments),),"
        main = sys.modules["__main__"]  # the subject itself, unless a test asks
        _edit(main if hasattr(main, "_daemon") else subject, "_daemon", files, f"{files} {keys},")

    return apply


VARIANTS: dict[str, Callable[[], None]] = {
    "copied-wire": _copied_wire,
    "two-reads": _two_reads,
    "read-elsewhere": _read_elsewhere,
    "output-in-place": _output_in_place,
    "no-linger": _no_linger,
    "chunk-64": _chunk(64 * 1024),
    "chunk-128": _chunk(128 * 1024),
    "chunk-256": _chunk(256 * 1024),
    "chunk-1024": _chunk(1024 * 1024),
    "big-at-once": _big_at_once,
    "always-room": _always_room,
    "kept-buffers": _kept_buffers,
    "eager-tickets": _eager_tickets,
    "max-connections": _limited("max_connections=9000"),
    "per-address": _limited("max_connections=9000, max_connections_per_ip=9000"),
}
"""By the name that `subject --variant` takes."""
