"""Socket activation: what systemd passes in is taken whole, checked, and named when something is wrong with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.interop import require
from tlstunnel.daemon.listen.activation import Inherited, take_inherited
from tlstunnel.errors import StartupError

FIRST = 400  # as if systemd had begun there instead of at 3, which belongs to the test runner

Passer = Callable[..., dict[str, str]]


@pytest.fixture
def passed() -> Iterator[Passer]:
    """Put descriptors where systemd would, and give the environment it would set. They are closed at the end."""
    fds: list[int] = []

    def pass_(*things: socket.socket | int, names: str | None = None) -> dict[str, str]:
        for number, thing in enumerate(things, start=FIRST):
            fd = thing if isinstance(thing, int) else thing.fileno()
            assert fcntl.fcntl(fd, fcntl.F_DUPFD, number) == number
            fds.append(number)
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(things)), "OTHER": "stays"}
        return environ if names is None else {**environ, "LISTEN_FDNAMES": names}

    yield pass_
    for fd in fds:
        with contextlib.suppress(OSError):  # taken, and closed by the socket that took it
            os.close(fd)


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[list[socket.socket]]:
    """Two TCP sockets and a unix socket."""
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "s"))
    unix.listen()
    made = [socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0)), unix]
    yield made
    for sock in made:
        sock.close()


def close(inherited: Inherited) -> None:
    for sockets in inherited.sockets.values():
        for sock in sockets:
            sock.close()


def test_several_sockets_of_one_name_are_one_entry(passed: Passer, listening: list[socket.socket]) -> None:
    environ = passed(*listening, names="web:admin:web")
    inherited = take_inherited(environ, first=FIRST)
    assert {name: [sock.fileno() for sock in sockets] for name, sockets in inherited.sockets.items()} == {
        "web": [FIRST, FIRST + 2],
        "admin": [FIRST + 1],
    }
    assert inherited.sockets["web"][1].family == socket.AF_UNIX
    assert inherited.describe() == '"web", "admin"'
    assert environ == {"OTHER": "stays"}, "no child of ours takes them for its own"
    close(inherited)


def test_sockets_taken_do_not_block_and_are_closed_on_exec(passed: Passer, listening: list[socket.socket]) -> None:
    inherited = take_inherited(passed(listening[0], names="web"), first=FIRST)
    (sock,) = inherited.sockets["web"]
    assert not sock.getblocking()
    assert not os.get_inheritable(sock.fileno())
    close(inherited)


def test_sockets_without_names_have_the_name_that_systemd_gives_them(
    passed: Passer, listening: list[socket.socket]
) -> None:
    inherited = take_inherited(passed(*listening), first=FIRST)
    assert {name: len(sockets) for name, sockets in inherited.sockets.items()} == {"unknown": 3}
    close(inherited)


def test_descriptors_meant_for_another_process_are_left_alone(passed: Passer, listening: list[socket.socket]) -> None:
    environ = {**passed(listening[0], names="web"), "LISTEN_PID": "1"}
    assert not take_inherited(environ, first=FIRST).sockets
    assert environ == {"OTHER": "stays"}
    os.fstat(FIRST)


def test_without_socket_activation_there_is_nothing() -> None:
    assert not take_inherited({}).sockets


def test_every_descriptor_that_is_no_listening_stream_socket_is_named(
    passed: Passer, listening: list[socket.socket], tmp_path: Path
) -> None:
    file = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    datagrams, quiet = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
    quiet.bind(("127.0.0.1", 0))
    environ = passed(listening[0], file, datagrams, quiet, names="web:stored:dns:connection")
    with pytest.raises(StartupError) as caught:
        take_inherited(environ, first=FIRST)
    assert str(caught.value).splitlines() == [
        f'socket activation: descriptor {FIRST + 1} ("stored"): socket operation on non-socket; '
        "pass listening sockets only, with ListenStream=",
        f'socket activation: descriptor {FIRST + 2} ("dns"): not a TCP or unix stream socket; '
        "use ListenStream= in the socket unit",
        f'socket activation: descriptor {FIRST + 3} ("connection"): not listening; use Accept=no in the socket unit',
    ]
    os.close(file)
    datagrams.close()
    quiet.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"LISTEN_FDNAMES": "one:two"}, 'LISTEN_FDNAMES="one:two" has 2 names for 1 descriptors'),
        ({"LISTEN_FDS": "many"}, 'LISTEN_FDS="many" are not both numbers'),
        ({"LISTEN_PID": "-1"}, 'LISTEN_PID="-1" and'),
    ],
)
def test_variables_that_contradict_each_other_stop_the_start(
    change: dict[str, str], says: str, passed: Passer, listening: list[socket.socket]
) -> None:
    with pytest.raises(StartupError) as caught:
        take_inherited({**passed(listening[0], names="web"), **change}, first=FIRST)
    assert says in str(caught.value)
    assert "leave these variables to systemd" in str(caught.value)


@pytest.mark.interop
@pytest.mark.slow
def test_systemds_own_activator_is_understood(tmp_path: Path) -> None:
    program = (
        "import os; from tlstunnel.daemon.listen.activation import take_inherited\n"
        "taken = take_inherited()\n"
        "print([(name, [s.family.name for s in sockets]) for name, sockets in taken.sockets.items()], flush=True)\n"
        "print([name for name in os.environ if name.startswith('LISTEN_')])\n"
        "for sockets in taken.sockets.values():\n"
        "    for sock in sockets: sock.close()\n"
    )
    command = [require("systemd-socket-activate"), f"--listen={tmp_path}/a", f"--listen={tmp_path}/b"]
    command += ["--fdname=web:web", sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as activator:
        assert activator.stderr is not None
        assert activator.stdout is not None
        while "Listening on" in (line := activator.stderr.readline()):
            if f"{tmp_path}/b" in line:
                break
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "b"))
            assert activator.stdout.read() == "[('web', ['AF_UNIX', 'AF_UNIX'])]\n[]\n"
        activator.stderr.read()
