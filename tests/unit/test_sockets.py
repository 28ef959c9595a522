"""Listening sockets: what is bound, what is refused and how it is said, and what a reload keeps."""

from __future__ import annotations

import os
import select
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tlstunnel.address import Listen, TCPAddress, parse_listen, parse_target
from tlstunnel.config.model import Admin, Config, Mode, Service
from tlstunnel.errors import StartupError
from tlstunnel.supervisor import binding
from tlstunnel.supervisor.activation import Inherited
from tlstunnel.supervisor.sockets import Listeners, open_listeners

Opener = Callable[..., Listeners]


def config(*listen: str, admin: str | None = None, unix_mode: int = 0o660, **services: str) -> Config:
    """Services by name, each with one address; `listen` are the addresses of a service called web."""
    wanted = {**({"web": listen} if listen else {}), **{name: (text,) for name, text in services.items()}}
    return Config(
        services=tuple(
            Service(
                name=name,
                mode=Mode.SERVER,
                listen=tuple(parse_listen(text) for text in texts),
                unix_mode=unix_mode,
                targets=(parse_target("127.0.0.1:1"),),
            )
            for name, texts in wanted.items()
        ),
        admin=Admin(listen=parse_listen(admin) if admin else None),
    )


@pytest.fixture
def opened() -> Iterator[Opener]:
    """`open_listeners`, with everything closed at the end of the test."""
    all_: list[Listeners] = []

    def open_(*args: object, **kwargs: object) -> Listeners:
        all_.append(open_listeners(*args, **kwargs))  # type: ignore[arg-type]
        return all_[-1]

    yield open_
    for listeners in all_:
        listeners.close()


def refusal(*args: object, **kwargs: object) -> str:
    with pytest.raises(StartupError) as caught:
        open_listeners(*args, **kwargs)  # type: ignore[arg-type]
    return str(caught.value)


def port_of(listeners: Listeners, service: str = "web") -> int:
    return int(listeners.services[service][0].bound.rpartition(":")[2])


def accepts(sockets: tuple[socket.socket, ...]) -> int:
    """How many connections wait on these sockets; they are accepted and closed."""
    count = 0
    while ready := select.select(sockets, [], [], 0)[0]:
        for sock in ready:
            sock.accept()[0].close()
            count += 1
    return count


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- what is bound --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "bound", "reached"),
    [
        ("127.0.0.1:0", "127.0.0.1:{}", ["127.0.0.1"]),
        ("[::1]:0", "[::1]:{}", ["::1"]),
        (":0", ":{}", ["127.0.0.1", "::1"]),
        ("0.0.0.0:0", "0.0.0.0:{}", ["127.0.0.1"]),
        ("[::]:0", "[::]:{}", ["::1"]),
    ],
)
def test_an_address_is_reached_over_every_protocol_it_stands_for(
    text: str, bound: str, reached: list[str], opened: Opener
) -> None:
    listeners = opened(config(text))
    port = port_of(listeners)
    assert [listener.bound for listener in listeners] == [bound.format(port)]
    for host in ("127.0.0.1", "::1"):
        try:
            socket.create_connection((host, port)).close()
        except ConnectionRefusedError:
            assert host not in reached
        else:
            assert host in reached
    assert accepts(listeners.for_slot(0)["web"]) == len(reached)


def test_ipv4_and_ipv6_of_one_port_can_be_listened_on_side_by_side(opened: Opener) -> None:
    port = port_of(opened(config("0.0.0.0:0")))
    opened(config(f"[::]:{port}"))


def test_without_ipv6_all_interfaces_are_all_ipv4_interfaces(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    real = binding._listening

    def no_ipv6(endpoint: binding.Endpoint, *, backlog: int, shares_port: bool) -> socket.socket:
        if endpoint.family == socket.AF_INET6:
            raise OSError(binding.errno.EAFNOSUPPORT, "no IPv6")
        return real(endpoint, backlog=backlog, shares_port=shares_port)

    monkeypatch.setattr(binding, "_listening", no_ipv6)
    listeners = opened(config(":0"), 2)
    assert [listener.bound for listener in listeners] == [f"0.0.0.0:{port_of(listeners)}"]
    assert "this machine has no IPv6; write an IPv4 address" in refusal(config("[::1]:0"))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """A name service of our own: name to addresses."""
    table: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def look_up(host: bytes, port: int, **how: int) -> list[object]:
        how["flags"] |= socket.AI_NUMERICHOST
        return [found for address in table.get(host.decode(), [host.decode()]) for found in real(address, port, **how)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return table


def test_a_name_stands_for_all_its_addresses_on_one_port(opened: Opener, names: dict[str, list[str]]) -> None:
    names["both.example"] = ["127.0.0.1", "::1", "127.0.0.1"]
    listeners = opened(config("both.example:0"), 2)
    port = port_of(listeners)
    assert [listener.bound for listener in listeners] == [f"127.0.0.1:{port}", f"[::1]:{port}"]


def test_addresses_of_a_name_that_are_elsewhere_are_left_out_with_a_warning(
    opened: Opener, names: dict[str, list[str]]
) -> None:
    names["here.example"] = ["203.0.113.9", "127.0.0.1"]
    listeners = opened(config("here.example:0"))
    assert [listener.bound for listener in listeners] == [f"127.0.0.1:{port_of(listeners)}"]
    (warning,) = listeners.warnings
    assert warning.startswith("service web: here.example:0: 203.0.113.9:0 is left out: ")
    names["away.example"] = ["203.0.113.9", "203.0.113.10"]
    assert "not an address of this machine" in refusal(config("away.example:0"))


def test_a_port_that_is_free_on_one_address_only_is_passed_over(
    opened: Opener, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    names["both.example"] = ["127.0.0.1", "127.0.0.2"]
    real = binding._listening
    taken: list[socket.socket] = []

    def crowded(endpoint: binding.Endpoint, **how: object) -> socket.socket:
        sock = real(endpoint, **how)  # type: ignore[arg-type]
        if not taken:  # the first free port of the first address is in use on the second
            taken.append(socket.create_server(("127.0.0.2", sock.getsockname()[1])))
        return sock

    monkeypatch.setattr(binding, "_listening", crowded)
    before = descriptors()
    listeners = opened(config("both.example:0"))
    assert port_of(listeners) != taken[0].getsockname()[1]
    assert len({listener.bound.rpartition(":")[2] for listener in listeners}) == 1
    assert descriptors() == before + 3, "two listeners and the one in the way; the failed attempt is closed"
    taken[0].close()


def test_every_slot_of_a_port_gets_its_share_of_the_connections(opened: Opener) -> None:
    listeners = opened(config("127.0.0.1:0"), 4)
    clients = [socket.create_connection(("127.0.0.1", port_of(listeners))) for _ in range(200)]
    shares = [accepts(listeners.for_slot(slot)["web"]) for slot in range(4)]
    for client in clients:
        client.close()
    assert sum(shares) == 200
    assert min(shares) > 20, shares


def test_a_unix_socket_is_one_descriptor_for_all_slots(opened: Opener, tmp_path: Path) -> None:
    listeners = opened(config(f"unix:{tmp_path}/s"), 3)
    first, *others = (listeners.for_slot(slot)["web"] for slot in range(3))
    assert len(first) == 1
    assert all(sockets == first for sockets in others)
    assert not first[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_sockets_do_not_block_and_are_closed_on_exec(opened: Opener, tmp_path: Path) -> None:
    for listener in opened(config("127.0.0.1:0", f"unix:{tmp_path}/s"), 2):
        for sock in listener.sockets:
            assert not sock.getblocking()
            assert not sock.get_inheritable()


def test_the_admin_endpoint_is_one_socket_however_many_workers_there_are(opened: Opener) -> None:
    (listener,) = opened(config("127.0.0.1:0", admin="127.0.0.1:0"), 4).admin
    assert (listener.owner, len(listener.sockets)) == ("admin", 1)


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_second_daemon_of_the_same_user_is_refused_the_port(opened: Opener) -> None:
    listeners = opened(config("127.0.0.1:0"), 2)
    message = refusal(config(f"127.0.0.1:{port_of(listeners)}"), 2)
    assert message.startswith(f"service web: cannot listen on 127.0.0.1:{port_of(listeners)}: in use")


def test_a_port_in_use_names_the_program_that_has_it() -> None:
    program = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        message = refusal(config(f"127.0.0.1:{port}"))
        other.communicate("\n")
    assert message == (
        f"service web: cannot listen on 127.0.0.1:{port}: in use by {Path(sys.executable).name} (pid {other.pid}); "
        "stop it or choose another port"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("203.0.113.9:8443", "not an address of this machine; write one that is, or :PORT for all of them"),
        ("unix:/nonexistent/s", 'the directory "/nonexistent" does not exist; create it, or name it in'),
        ("[fe80::1]:8443", "a link-local one needs its interface: [fe80::1%eth0]:PORT"),
        ("systemd:web", "not started by a socket unit; start the .socket unit instead, or write HOST:PORT"),
        ("nowhere.invalid:8443", 'the name "nowhere.invalid" does not resolve'),
    ],
)
def test_an_address_that_cannot_be_had_says_what_would_be_right(text: str, says: str) -> None:
    message = refusal(config(text))
    assert message.startswith(f"service web: cannot listen on {text}: ")
    assert says in message
    assert "\n" not in message


def test_every_address_that_fails_is_reported_and_nothing_stays_open(tmp_path: Path) -> None:
    before = descriptors()
    bad = {"a": "203.0.113.9:1", "b": "unix:/nonexistent/s"}
    message = refusal(config(f"unix:{tmp_path}/s", "127.0.0.1:0", admin="203.0.113.9:2", **bad), 3)
    assert [line.partition(":")[0] for line in message.splitlines()] == ["service a", "service b", "admin"]
    assert descriptors() == before
    assert not list(tmp_path.iterdir())


def test_an_address_given_to_two_services_is_refused_by_name(opened: Opener, tmp_path: Path) -> None:
    port = port_of(free := opened(config("127.0.0.1:0")))
    free.close()
    for text in (f"127.0.0.1:{port}", f"unix:{tmp_path}/s"):
        assert refusal(config(a=text, b=text)) == (
            f"service b: cannot listen on {text}: service a listens there already; give each address to one service"
        )
    overlapping = refusal(config(a=f"0.0.0.0:{port}", b=f":{port}"))
    assert "in use by another listen address of this configuration; choose another port" in overlapping


@pytest.mark.root
def test_a_low_port_says_who_may_have_it() -> None:
    if os.geteuid() != 0:
        pytest.skip("giving up root to be refused needs root")
    done = program("""
        os.setuid(65534)
        print(refusal(config("127.0.0.1:443")))
    """)
    assert done == (
        "service web: cannot listen on 127.0.0.1:443: permission denied; ports below 1024 need CAP_NET_BIND_SERVICE "
        '(AmbientCapabilities= in the unit), root with --user, or a socket unit and "systemd:NAME"; '
        "or choose a port from 1024 on\n"
    )


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


def program(body: str) -> str:
    """Run a program that may fork, apart from this process and its threads; what it prints."""
    head = "import os, select, socket, sys\nfrom tests.unit.test_sockets import *\n"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", head + textwrap.dedent(body)],
        capture_output=True, text=True, check=False, cwd=root,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_worker_holds_the_sockets_of_its_slot_and_no_others() -> None:
    printed = program("""
        old = open_listeners(config(a="127.0.0.1:0", b="127.0.0.1:0", admin="127.0.0.1:0"), 2)
        new = open_listeners(config(b="127.0.0.1:0", c="127.0.0.1:0", admin="127.0.0.1:0"), 2, previous=old)
        every = {sock for listeners in (old, new) for listener in listeners for sock in listener.sockets}
        for keep in (lambda: new.keep_slot(1, but=old), lambda: new.keep_admin(but=old)):
            if os.fork() == 0:
                kept = keep()
                open_ = {sock for sock in every if sock.fileno() >= 0}
                wanted = {s for sockets in kept.values() for s in sockets} if isinstance(kept, dict) else set(kept)
                print(open_ == wanted, len(open_), flush=True)
                os._exit(0)
            os.wait()
        print(all(sock.fileno() >= 0 for sock in every), flush=True)
        new.retire(old), new.close()
    """)
    assert printed.splitlines() == ["True 2", "True 1", "True"]


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
