"""Unix sockets to listen on, and sockets that systemd brought: modes, owners, what is replaced and what is left."""

from __future__ import annotations

import dataclasses
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.listeners import Opener, accepts, config, opener, refusal
from tlstunnel.address import Listen, SystemdAddress, TCPAddress
from tlstunnel.config.model import Admin, Config, Mode, Service
from tlstunnel.daemon.listen.activation import Inherited


@pytest.fixture
def opened() -> Iterator[Opener]:
    with opener() as open_:
        yield open_


# --- unix sockets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o660, 0o600, 0o666])
def test_a_unix_socket_has_its_mode_whatever_the_umask_is(mode: int, opened: Opener, tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        opened(config(f"unix:{tmp_path}/s", unix_mode=mode))
        assert os.umask(0o002) == 0o002, "the umask is as it was"
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "s").st_mode) == mode


def test_a_unix_socket_is_for_its_owner_and_group_unless_told_otherwise(opened: Opener, tmp_path: Path) -> None:
    opened(config(f"unix:{tmp_path}/s"))
    assert stat.S_IMODE(os.stat(tmp_path / "s").st_mode) == 0o660


def test_a_reload_changes_the_mode_of_a_socket_that_stays(opened: Opener, tmp_path: Path) -> None:
    old = opened(config(f"unix:{tmp_path}/s"))
    new = opened(config(f"unix:{tmp_path}/s", unix_mode=0o666), previous=old)
    assert stat.S_IMODE(os.stat(tmp_path / "s").st_mode) == 0o660, "not before it is known that the reload succeeds"
    new.retire(old)
    assert stat.S_IMODE(os.stat(tmp_path / "s").st_mode) == 0o666


def test_what_a_dead_daemon_left_is_replaced(opened: Opener, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/s")
        dead.listen()
    assert (tmp_path / "s").exists()
    listeners = opened(config(f"unix:{tmp_path}/s"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{tmp_path}/s")
    assert accepts(listeners.for_slot(0)["web"]) == 1


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_living_socket_is_left_alone(kind: int, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, kind) as living:
        living.bind(f"{tmp_path}/s")
        if kind == socket.SOCK_STREAM:
            living.listen()
        inode = os.stat(tmp_path / "s").st_ino
        message = refusal(config(f"unix:{tmp_path}/s"))
    assert "in use" in message
    assert "choose another path" in message
    assert os.stat(tmp_path / "s").st_ino == inode


def test_a_living_socket_whose_queue_is_full_is_left_alone(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as living, socket.socket(socket.AF_UNIX) as first:
        living.bind(f"{tmp_path}/s")
        living.listen(0)
        first.connect(f"{tmp_path}/s")
        assert "in use" in refusal(config(f"unix:{tmp_path}/s"))
    assert (tmp_path / "s").exists()


def test_nothing_but_a_socket_is_ever_removed(tmp_path: Path) -> None:
    precious = tmp_path / "s"
    precious.write_text("precious")
    target = tmp_path / "link"
    target.symlink_to(precious)
    for path in (precious, target, tmp_path):
        assert "exists and is not a socket; remove it or choose another path" in refusal(config(f"unix:{path}"))
    assert precious.read_text() == "precious"


def test_closing_removes_the_file_we_made_and_no_other(opened: Opener, tmp_path: Path) -> None:
    ours, replaced = tmp_path / "ours", tmp_path / "replaced"
    listeners = opened(config(f"unix:{ours}", f"unix:{replaced}"))
    replaced.unlink()
    with socket.socket(socket.AF_UNIX) as another:
        another.bind(str(replaced))
        listeners.close()
        assert not ours.exists()
        assert replaced.exists()


@pytest.mark.root
def test_the_file_can_be_given_to_the_user_that_workers_run_as(opened: Opener, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving files away needs root")
    opened(config(f"unix:{tmp_path}/s"), owner=(65534, 65534))
    assert (os.stat(tmp_path / "s").st_uid, os.stat(tmp_path / "s").st_gid) == (65534, 65534)


# --- systemd's sockets ----------------------------------------------------------------------------------------------


def inherited(**named: Listen) -> Inherited:
    made = {}
    for name, address in named.items():
        assert isinstance(address, TCPAddress)
        sock = socket.create_server((address.host, address.port))
        sock.setblocking(False)
        made[name] = (sock,)
    return Inherited(made)


def test_inherited_sockets_serve_every_slot_and_are_named_with_their_address(opened: Opener) -> None:
    given = inherited(web=TCPAddress("127.0.0.1", 0))
    listeners = opened(config("systemd:web"), 3, inherited=given)
    (listener,) = listeners
    assert listener.bound == f"systemd:web (127.0.0.1:{given.sockets['web'][0].getsockname()[1]})"
    assert [listeners.for_slot(slot)["web"] for slot in range(3)] == [given.sockets["web"]] * 3


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "unix"])
def test_an_inherited_plaintext_listener_may_stay_on_this_machine(opened: Opener, tmp_path: Path, host: str) -> None:
    given = bound(host, tmp_path)
    plain = Service(name="db", mode=Mode.CLIENT, listen=(SystemdAddress("db"),), targets=())
    assert len(list(opened(Config(services=(plain,)), inherited=given))) == 1
    admin = Config(services=(), admin=Admin(listen=SystemdAddress("db")))
    assert len(list(opened(admin, inherited=given))) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_inherited_plaintext_listener_for_others_must_be_called_unsafe(
    opened: Opener, tmp_path: Path, host: str
) -> None:
    given = bound(host, tmp_path)
    plain = Service(name="db", mode=Mode.CLIENT, listen=(SystemdAddress("db"),), targets=())
    assert (
        "is reachable from other machines; let the socket unit listen on loopback or a path, or set unsafe_listen"
        in (refusal(Config(services=(plain,)), inherited=given))
    )
    assert opened(Config(services=(dataclasses.replace(plain, unsafe_listen=True),)), inherited=given)
    tls = dataclasses.replace(plain, mode=Mode.SERVER)
    assert opened(Config(services=(tls,)), inherited=given)
    admin = Admin(listen=SystemdAddress("db"))
    assert "or unsafe_admin" in refusal(Config(services=(), admin=admin), inherited=given)
    pem = Path("a.pem")
    half = dataclasses.replace(admin, certificate=pem)
    assert "or unsafe_admin" in refusal(Config(services=(), admin=half), inherited=given)
    for safe in (dataclasses.replace(admin, unsafe_admin=True), dataclasses.replace(half, client_ca=pem)):
        assert opened(Config(services=(), admin=safe), inherited=given)


def bound(host: str, folder: Path) -> Inherited:
    if host == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(folder / "s"))
        sock.listen()
    else:
        sock = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setblocking(False)
    return Inherited({"db": (sock,)})


def test_an_inherited_socket_that_nobody_takes_or_that_is_missing_is_named() -> None:
    given = inherited(web=TCPAddress("127.0.0.1", 0), spare=TCPAddress("127.0.0.1", 0))
    message = refusal(config("systemd:web", "systemd:wbe"), inherited=given)
    assert message.splitlines() == [
        'service web: cannot listen on systemd:wbe: systemd passed no socket of this name, only "web", "spare"; '
        "set FileDescriptorName=wbe",
        'socket activation: no service listens on the socket named "spare"; '
        'write listen = "systemd:spare" or stop its socket unit',
    ]
    assert all(sock.fileno() >= 0 for sockets in given.sockets.values() for sock in sockets), "not ours to close"
    for sockets in given.sockets.values():
        sockets[0].close()
