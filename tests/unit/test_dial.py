"""Reaching a backend: what is begun at once, what takes trio, and what each failure is called."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from tlstunnel.address import parse_target
from tlstunnel.config.model import Keepalive
from tlstunnel.connection.dial import FIRST_REST_S, MAX_REST_S, Dialer, dial_error, set_up
from tlstunnel.connection.refusal import RefusedError
from tlstunnel.outcome import CloseReason

TARGET = parse_target("db.example.org:5432")


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as sock:
        yield sock


def target_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def finish(dialer: Dialer, sock: socket.SocketType) -> None:
    """Wait until a connection that has begun is there."""
    import select

    while not dialer.check(sock):
        select.select([], [sock], [], 60)


def test_a_literal_address_is_dialed_at_once_and_its_small_writes_are_not_held_back(listener: socket.socket) -> None:
    dialer = Dialer(parse_target(target_of(listener)))
    begun = dialer.begin()
    assert begun is not None
    sock = begun[0]
    finish(dialer, sock)
    assert dialer.is_there(sock)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    accepted, _ = listener.accept()
    accepted.close()
    sock.close()


TIMES = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)


@pytest.mark.parametrize(
    ("keepalive", "times"),
    [(Keepalive(), [60, 10, 6]), (Keepalive(idle_s=30, interval_s=5, count=3), [30, 5, 3]), (None, None)],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_target_is_asked_whether_it_is_still_there_at_the_times_of_keepalive(
    host: str, keepalive: Keepalive | None, times: list[int] | None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dialer = Dialer(parse_target(f"{host}:{listener.getsockname()[1]}"), keepalive=keepalive)
        begun = dialer.begin()
        sock = begun[0] if begun is not None else trio.run(dialer.slowly(60))
        with closing(sock):
            assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is (times is not None)
            if times is not None:
                assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in TIMES] == times


@pytest.mark.parametrize(
    ("keepalive", "times"), [(Keepalive(idle_s=30, interval_s=5, count=3), [30, 5, 3]), (None, None)]
)
def test_what_a_listener_is_told_of_keepalive_its_connections_inherit(
    keepalive: Keepalive | None, times: list[int] | None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        set_up(listener, keepalive)
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                assert bool(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is (times is not None)
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                if times is not None:
                    assert [accepted.getsockopt(socket.IPPROTO_TCP, option) for option in TIMES] == times


def test_a_unix_socket_is_dialed_at_once(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        begun = Dialer(parse_target(f"unix:{tmp_path}/s")).begin()
        assert begun is not None
        assert begun[1]
        begun[0].close()


def test_a_unix_socket_whose_queue_is_full_is_tried_until_there_is_room(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        dialer = Dialer(parse_target(f"unix:{tmp_path}/s"))
        taken = []
        while (begun := dialer.begin()) is not None:
            taken.append(begun[0])

        async def both() -> socket.SocketType:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(accept)
                return await dialer.slowly(60)()

        async def accept() -> None:
            await trio.sleep(0.05)
            accepted, _ = listener.accept()
            accepted.close()

        sock = trio.run(both)
        assert dialer.is_there(sock)
        for each in (sock, *taken):
            each.close()


def test_a_name_takes_trio_and_gives_the_same_kind_of_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dialer = Dialer(parse_target(f"localhost:{listener.getsockname()[1]}"))
        assert dialer.begin() is None
        sock = trio.run(dialer.slowly(60))
        assert dialer.is_there(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert type(sock) is socket.SocketType
        sock.close()


def test_a_refusal_is_named_whichever_way_it_comes() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    dialer = Dialer(parse_target(f"127.0.0.1:{port}"))
    with pytest.raises(RefusedError) as error:  # noqa: PT012 - at once, or when it is looked at
        begun = dialer.begin()
        assert begun is not None
        with closing(begun[0]):
            finish(dialer, begun[0])
    assert error.value.refusal.reason is CloseReason.BACKEND_REFUSED
    by_name = Dialer(parse_target(f"localhost:{port}"))
    with pytest.raises(OSError) as raised:  # noqa: PT011 - what it is called is what we look at
        trio.run(by_name.slowly(60))
    assert dial_error(by_name.target, raised.value).refusal.reason is CloseReason.BACKEND_REFUSED


def test_a_name_that_does_not_resolve_is_named() -> None:
    dialer = Dialer(parse_target("no-such-name.localhost.invalid:1"))
    with pytest.raises(OSError) as raised:  # noqa: PT011
        trio.run(dialer.slowly(60))
    assert dial_error(dialer.target, raised.value).refusal.reason is CloseReason.BACKEND_UNRESOLVABLE


def test_who_does_not_accept_in_time_is_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        dialer = Dialer(parse_target(f"unix:{tmp_path}/s"))
        taken = []
        while (begun := dialer.begin()) is not None:
            taken.append(begun[0])
        with pytest.raises(TimeoutError) as raised:
            trio.run(dialer.slowly(0.1))
        assert dial_error(dialer.target, raised.value).refusal.reason is CloseReason.BACKEND_CONNECT_TIMEOUT
        for each in taken:
            each.close()


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ECONNREFUSED, CloseReason.BACKEND_REFUSED),
        (errno.ECONNRESET, CloseReason.BACKEND_REFUSED),
        (errno.ENOENT, CloseReason.BACKEND_NO_SOCKET),
        (errno.ENOTSOCK, CloseReason.BACKEND_NO_SOCKET),
        (errno.EACCES, CloseReason.BACKEND_PERMISSION),
        (errno.EPERM, CloseReason.BACKEND_PERMISSION),
        (errno.ETIMEDOUT, CloseReason.BACKEND_CONNECT_TIMEOUT),
        (errno.EMFILE, CloseReason.BACKEND_NO_DESCRIPTORS),
        (errno.ENFILE, CloseReason.BACKEND_NO_DESCRIPTORS),
        (errno.EADDRNOTAVAIL, CloseReason.BACKEND_NO_PORT),
        (errno.EADDRINUSE, CloseReason.BACKEND_NO_PORT),
        (errno.ENOBUFS, CloseReason.BACKEND_NO_MEMORY),
        (errno.ENOMEM, CloseReason.BACKEND_NO_MEMORY),
        (errno.ENOTDIR, CloseReason.BACKEND_NO_SOCKET),
        (errno.ELOOP, CloseReason.BACKEND_NO_SOCKET),
        (errno.EPROTOTYPE, CloseReason.BACKEND_NO_SOCKET),
        (errno.EAFNOSUPPORT, CloseReason.BACKEND_UNREACHABLE),
        (errno.ENETDOWN, CloseReason.BACKEND_UNREACHABLE),
        (errno.EHOSTDOWN, CloseReason.BACKEND_UNREACHABLE),
        (errno.EINVAL, CloseReason.BACKEND_UNREACHABLE),
        (errno.ENETUNREACH, CloseReason.BACKEND_UNREACHABLE),
        (errno.EHOSTUNREACH, CloseReason.BACKEND_UNREACHABLE),
        (errno.EIO, CloseReason.BACKEND_UNREACHABLE),
    ],
)
def test_what_the_system_says_is_a_reason_and_names_the_target(number: int, reason: CloseReason) -> None:
    error = dial_error(TARGET, OSError(number, os.strerror(number)))
    assert error.refusal.reason is reason
    assert error.refusal.detail == f"db.example.org:5432: {os.strerror(number).lower()}"


def test_an_interface_that_is_not_there_fails_its_connection_alone_and_is_named() -> None:
    dialer = Dialer(parse_target("[fe80::1%nosuch0]:80"))
    with pytest.raises(RefusedError) as error:
        dialer.begin()
    assert error.value.refusal.reason is CloseReason.BACKEND_UNREACHABLE
    assert error.value.refusal.detail == '[fe80::1%nosuch0]:80: there is no interface "nosuch0"'
    from_there = Dialer(parse_target("[::1]:80"), "fe80::1%nosuch0")
    with pytest.raises(RefusedError) as error:
        from_there.begin()
    assert error.value.refusal.reason is CloseReason.BACKEND_NO_SOURCE
    assert error.value.refusal.detail == 'source_address fe80::1%nosuch0: there is no interface "nosuch0"'


def test_an_interface_is_looked_for_at_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        dialer = Dialer(parse_target(f"[::1%vpn7]:{listener.getsockname()[1]}"))
        with pytest.raises(RefusedError):
            dialer.begin()
        there = socket.if_nametoindex("lo")
        monkeypatch.setattr(socket, "if_nametoindex", {"vpn7": there}.__getitem__)
        begun = dialer.begin()
        assert begun is not None
        with closing(begun[0]):
            finish(dialer, begun[0])


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_socket_that_is_connected_to_itself_is_refused(family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        sock.connect(sock.getsockname())
        assert sock.getpeername() == sock.getsockname()
        dialer = Dialer(parse_target(target_of(sock)))
        for look in (dialer.is_there, dialer.check):
            with pytest.raises(RefusedError) as error:
                look(sock)
            assert error.value.refusal.reason is CloseReason.BACKEND_REFUSED
            assert error.value.refusal.detail.endswith(": connection refused")


def test_a_name_that_leads_to_the_connection_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    async def open_tcp_stream(host: str, port: int, **_: object) -> trio.SocketStream:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        opened.append(sock.fileno())
        sock.setblocking(False)
        return trio.SocketStream(trio.socket.from_stdlib_socket(sock))

    monkeypatch.setattr(trio, "open_tcp_stream", open_tcp_stream)
    dialer = Dialer(parse_target("localhost:80"))
    with pytest.raises(OSError) as raised:  # noqa: PT011
        trio.run(dialer.slowly(60))
    assert dial_error(dialer.target, raised.value).refusal.reason is CloseReason.BACKEND_REFUSED
    assert opened
    for fd in opened:
        with pytest.raises(OSError):  # noqa: PT011
            os.fstat(fd)


def attempts(*errors: OSError) -> OSError:
    """As trio reports attempts at several addresses."""
    error = OSError("all attempts to connect to db.example.org:5432 failed")
    error.__cause__ = ExceptionGroup("attempts", errors) if len(errors) > 1 else errors[0]
    return error


def test_among_several_attempts_the_one_with_a_name_of_its_own_counts() -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    unreachable = OSError(errno.ENETUNREACH, "Network is unreachable")
    assert dial_error(TARGET, attempts(unreachable, refused)).refusal.reason is CloseReason.BACKEND_REFUSED
    assert dial_error(TARGET, attempts(unreachable, unreachable)).refusal.reason is CloseReason.BACKEND_UNREACHABLE
    assert dial_error(TARGET, attempts(refused)).refusal.reason is CloseReason.BACKEND_REFUSED
    assert (
        dial_error(TARGET, attempts(socket.gaierror(-2, "?"), refused)).refusal.reason
        is CloseReason.BACKEND_UNRESOLVABLE
    )
    assert dial_error(TARGET, OSError("no words")).refusal.detail == "db.example.org:5432: no words"


def test_a_target_that_failed_rests_longer_each_time_up_to_a_limit_and_wakes_when_reached() -> None:
    dialer = Dialer(TARGET)
    rests = []
    for _ in range(12):
        dialer.rest(100.0)
        rests.append(dialer.rests_until - 100.0)
    assert rests[0] == FIRST_REST_S
    assert rests == sorted(rests)
    assert rests[-1] == MAX_REST_S
    dialer.wake()
    assert dialer.rests_until == 0.0
    dialer.rest(100.0)
    assert dialer.rests_until == 100.0 + FIRST_REST_S


def test_a_race_for_a_name_waits_while_others_have_all_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole worker's descriptors may be taken by races for names with many addresses, and come back as they end."""
    tried = 0
    real = trio.open_tcp_stream

    async def scarce(*args: Any, **kwargs: Any) -> trio.SocketStream:
        nonlocal tried
        tried += 1
        if tried < 4:
            raise OSError("all attempts failed") from ExceptionGroup("", [OSError(errno.EMFILE, "full")] * 2)
        return await real(*args, **kwargs)

    monkeypatch.setattr(trio, "open_tcp_stream", scarce)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dialer = Dialer(parse_target(f"localhost:{listener.getsockname()[1]}"))
        assert dialer.begin() is None
        sock = trio.run(dialer.slowly(30.0))
        assert tried == 4
        sock.close()


def test_a_race_that_never_gets_a_descriptor_says_so_when_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none_left(*args: Any, **kwargs: Any) -> trio.SocketStream:
        raise OSError("all attempts failed") from ExceptionGroup("", [OSError(errno.EMFILE, "full")])

    monkeypatch.setattr(trio, "open_tcp_stream", none_left)
    dialer = Dialer(parse_target("localhost:1"))
    with pytest.raises(OSError, match="all attempts failed") as caught:
        trio.run(dialer.slowly(0.1))
    assert dial_error(dialer.target, caught.value).refusal.reason is CloseReason.BACKEND_NO_DESCRIPTORS
