"""Listening sockets over time: what a reload keeps, and what forked workers hold."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.listeners import Opener, accepts, config, descriptors, opener, port_of, program, refusal


@pytest.fixture
def opened() -> Iterator[Opener]:
    with opener() as open_:
        yield open_


# --- reload ---------------------------------------------------------------------------------------------------------


def test_a_reload_keeps_every_socket_whose_address_stays(opened: Opener, tmp_path: Path) -> None:
    old = opened(config("127.0.0.1:0", f"unix:{tmp_path}/s", admin="127.0.0.1:0"), 2)
    with socket.create_connection(("127.0.0.1", port_of(old))):
        new = opened(config("127.0.0.1:0", f"unix:{tmp_path}/s", admin="127.0.0.1:0"), 2, previous=old)
        new.retire(old)
        assert [listener.sockets for listener in new] == [listener.sockets for listener in old]
        assert [listener.bound for listener in new] == [listener.bound for listener in old]
        assert sum(accepts(new.for_slot(slot)["web"]) for slot in range(2)) == 1, "also what waited is still there"
    assert (tmp_path / "s").exists()


def test_an_address_that_moves_to_another_service_keeps_its_sockets(opened: Opener) -> None:
    port = port_of(free := opened(config("127.0.0.1:0")))
    free.close()
    old = opened(config(a=f"127.0.0.1:{port}"), 2)
    new = opened(config(b=f"127.0.0.1:{port}"), 2, previous=old)
    new.retire(old)
    assert new.services["b"][0].sockets == old.services["a"][0].sockets
    assert all(sock.fileno() >= 0 for sock in new.services["b"][0].sockets)


def test_a_reload_closes_what_the_new_configuration_lacks(opened: Opener, tmp_path: Path) -> None:
    old = opened(config("127.0.0.1:0", f"unix:{tmp_path}/s", admin="127.0.0.1:0"), 2)
    gone = [sock for listener in old for sock in listener.sockets]
    opened(config("127.0.0.2:0"), 2, previous=old).retire(old)
    assert all(sock.fileno() == -1 for sock in gone)
    assert not (tmp_path / "s").exists()


def test_a_reload_that_fails_leaves_everything_as_it_was(opened: Opener, tmp_path: Path) -> None:
    old = opened(config("127.0.0.1:0", f"unix:{tmp_path}/s"), 2)
    before = descriptors()
    new = config("127.0.0.1:0", f"unix:{tmp_path}/s", "127.0.0.2:0", f"unix:{tmp_path}/new", "203.0.113.9:1")
    refusal(new, 4, previous=old)
    assert descriptors() == before
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    with socket.create_connection(("127.0.0.1", port_of(old))):
        assert sum(accepts(old.for_slot(slot)["web"]) for slot in range(2)) == 1


@pytest.mark.parametrize("text", [":{}", "127.0.0.1:{}"])
def test_a_listener_can_be_widened_or_narrowed_on_its_port_while_it_is_open(text: str, opened: Opener) -> None:
    old = opened(config("127.0.0.1:0" if text.startswith(":") else ":0"), 2)
    port = port_of(old)
    new = opened(config(text.format(port)), 2, previous=old)
    new.retire(old)
    with socket.create_connection(("127.0.0.1", port)):
        assert sum(accepts(new.for_slot(slot)["web"]) for slot in range(2)) == 1


@pytest.mark.parametrize(("before", "after"), [(1, 3), (2, 4), (4, 2), (4, 3), (3, 1)])
def test_changing_the_number_of_workers_loses_no_connection(before: int, after: int, opened: Opener) -> None:
    old = opened(config("127.0.0.1:0"), before)
    clients = [socket.create_connection(("127.0.0.1", port_of(old))) for _ in range(40)]
    new = opened(config("127.0.0.1:0"), after, previous=old)
    new.retire(old)
    clients += [socket.create_connection(("127.0.0.1", port_of(new))) for _ in range(40)]
    shares = [accepts(new.for_slot(slot)["web"]) for slot in range(after)]
    for client in clients:
        client.close()
    assert sum(shares) == 80
    assert all(shares)


# --- in forked processes --------------------------------------------------------------------------------------------


def test_a_worker_holds_the_sockets_of_its_slot_and_no_others() -> None:
    printed = program("""
        old = open_listeners(config(a="127.0.0.1:0", b="127.0.0.1:0", admin="127.0.0.1:0"), 2)
        new = open_listeners(config(b="127.0.0.1:0", c="127.0.0.1:0", admin="127.0.0.1:0"), 2, previous=old)
        every = {sock for listeners in (old, new) for listener in listeners for sock in listener.sockets}
        if os.fork() == 0:
            kept = new.keep_slot(1, but=old)
            open_ = {sock for sock in every if sock.fileno() >= 0}
            print(open_ == {s for sockets in kept.values() for s in sockets}, len(open_), flush=True)
            os._exit(0)
        os.wait()
        print(all(sock.fileno() >= 0 for sock in every), flush=True)
        new.retire(old), new.close()
    """)
    assert printed.splitlines() == ["True 2", "True"]


def test_a_connection_queued_for_a_worker_that_dies_is_served_by_the_next() -> None:
    printed = program("""
        listeners = open_listeners(config("127.0.0.1:0"), 1)
        worker = os.fork()
        if worker == 0:
            listeners.keep_slot(0)
            os.kill(os.getpid(), 9)
        os.waitpid(worker, 0)
        client = socket.create_connection(("127.0.0.1", port_of(listeners)))
        worker = os.fork()
        if worker == 0:
            (sock,) = listeners.keep_slot(0)["web"]
            with sock.accept()[0] as accepted:
                accepted.send(b"served")
            os._exit(0)
        print(client.recv(100).decode())
        os.waitpid(worker, 0)
        client.close(), listeners.close()
    """)
    assert printed == "served\n"


def test_a_worker_that_ends_does_not_unlink_the_supervisors_sockets(tmp_path: Path) -> None:
    printed = program(f"""
        listeners = open_listeners(config("unix:{tmp_path}/s"), 1)
        if os.fork() == 0:
            listeners.close()
            os._exit(0)
        os.wait()
        print(os.path.exists("{tmp_path}/s"), flush=True)
        listeners.close()
        print(os.path.exists("{tmp_path}/s"), flush=True)
    """)
    assert printed.splitlines() == ["True", "False"]
