"""What the service manager hears from us, byte for byte, and what happens when it does not listen."""

from __future__ import annotations

import array
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tlstunnel.daemon.system.sdnotify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        yield sock


@pytest.fixture
def notifier(manager: socket.socket) -> Iterator[Notifier]:
    made = Notifier(manager.getsockname())
    yield made
    made.close()


def heard(manager: socket.socket) -> list[str]:
    return manager.recv(65536, socket.MSG_DONTWAIT).decode().split("\n")


def test_every_message_is_the_protocols(notifier: Notifier, manager: socket.socket) -> None:
    for sent, lines in (
        (notifier.ready("3 services"), ["READY=1", "STATUS=3 services"]),
        (notifier.ready(), ["READY=1"]),
        (notifier.stopping("draining"), ["STOPPING=1", "STATUS=draining"]),
        (notifier.status("17 connections"), ["STATUS=17 connections"]),
        (notifier.watchdog(), ["WATCHDOG=1"]),
        (notifier.extend_timeout(2.5), ["EXTEND_TIMEOUT_USEC=2500000"]),
        (notifier.failed("port in use", 98), ["ERRNO=98", "STATUS=port in use"]),
    ):
        assert sent
        assert heard(manager) == lines
    assert notifier.problem is None


def test_reloading_says_when_in_the_same_datagram(notifier: Notifier, manager: socket.socket) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading("reading")
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    first, stamp, status = heard(manager)
    assert (first, status) == ("RELOADING=1", "STATUS=reading")
    found = re.fullmatch(r"MONOTONIC_USEC=(\d+)", stamp)
    assert found
    assert before <= int(found[1]) <= after


def test_a_status_cannot_smuggle_in_another_message(notifier: Notifier, manager: socket.socket) -> None:
    notifier.status("odd name\nMAINPID=1\r\nREADY=1")
    assert heard(manager) == ["STATUS=odd name MAINPID=1 READY=1"]


def test_an_abstract_socket_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(b"\0tlstunnel-test-%d" % os.getpid())
        notifier = Notifier(f"@tlstunnel-test-{os.getpid()}")
        assert notifier.ready()
        assert heard(manager) == ["READY=1"]
        notifier.close()


def test_the_environment_is_used_once_and_cleared() -> None:
    environ = {
        "NOTIFY_SOCKET": "/nonexistent",
        "WATCHDOG_USEC": "3000000",
        "WATCHDOG_PID": str(os.getpid()),
        "OTHER": "stays",
    }
    notifier = Notifier.from_environment(environ)
    assert environ == {"OTHER": "stays"}
    assert notifier.is_active
    assert notifier.watchdog_s == 3.0
    notifier.close()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"WATCHDOG_USEC": "500000"}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_PID": str(os.getpid())}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_for_the_process_it_names(variables: dict[str, str], expected: float | None) -> None:
    assert Notifier.from_environment(dict(variables)).watchdog_s == expected


def test_without_a_manager_everything_is_silently_not_sent() -> None:
    notifier = Notifier.from_environment({})
    assert not notifier.is_active
    assert not notifier.ready("x")
    assert not notifier.barrier()
    assert notifier.problem is None


def test_a_manager_that_is_gone_is_reported_and_forgotten_when_it_is_back(tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "later"))
    assert not notifier.ready()
    assert notifier.problem == "service manager cannot be told READY: no such file or directory"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "later"))
        assert notifier.ready()
        assert notifier.problem is None
    notifier.close()


def test_an_address_of_another_kind_is_not_used_and_named() -> None:
    notifier = Notifier("vsock:2:1234")
    assert not notifier.is_active
    assert notifier.problem == 'NOTIFY_SOCKET="vsock:2:1234" is no unix socket'


def test_the_barrier_waits_until_the_manager_has_read_everything(notifier: Notifier, manager: socket.socket) -> None:
    order: list[str] = []

    def read() -> None:
        order.extend(heard(manager))
        message, ancillary, _, _ = manager.recvmsg(1024, socket.CMSG_SPACE(4))
        order.append(message.decode())
        (_, _, data), *_ = ancillary
        (descriptor,) = array.array("i", data)
        order.append("closing")
        os.close(descriptor)

    notifier.stopping()
    thread = threading.Thread(target=read)
    thread.start()
    assert notifier.barrier(30)
    order.append("passed")
    thread.join()
    assert order == ["STOPPING=1", "BARRIER=1", "closing", "passed"]


def test_the_barrier_gives_up_on_a_manager_that_does_not_read(notifier: Notifier) -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert not notifier.barrier(0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_child_has_neither_the_socket_nor_the_variable(manager: socket.socket) -> None:
    program = (
        "import os, subprocess, sys; from tlstunnel.daemon.system.sdnotify import Notifier\n"
        "notifier = Notifier.from_environment()\n"
        'child = \'import os; print([n for n in os.environ if n.startswith(("NOTIFY", "WATCHDOG"))], \'\n'
        'child += \'[f for f in os.listdir("/proc/self/fd") if "socket" in \'\n'
        "child += 'os.path.realpath(\"/proc/self/fd/\" + f)])'\n"
        "subprocess.run([sys.executable, '-c', child], close_fds=False)\n"
        "notifier.close()\n"
    )
    environ = {**os.environ, "NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "1000000"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environ,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("[] []\n", "")
