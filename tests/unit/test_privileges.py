"""What a worker gives up is gone for good, and a worker that could not give it up does not start."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tlstunnel.daemon.system.privileges import Identity, capabilities, resolve_identity
from tlstunnel.errors import StartupError

needs_root = pytest.mark.root


@pytest.fixture
def root() -> None:
    if os.geteuid() != 0:
        pytest.skip("giving up root needs root")


def program(body: str) -> list[str]:
    """Run a program of its own, because there is no way back; the lines it prints."""
    head = (
        "import os\nfrom tlstunnel.daemon.system.privileges import *\nfrom tlstunnel.daemon.system import privileges\n"
    )
    command = [sys.executable, "-X", "dev", "-c", head + textwrap.dedent(body)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


# --- whom to become -------------------------------------------------------------------------------------------------


def test_nothing_configured_is_nobody_to_become() -> None:
    assert resolve_identity(None, None) is None


@needs_root
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    ("user", "group", "expected"),
    [
        ("nobody", None, Identity("nobody", 65534, 65534, (65534,))),
        ("65534", "nogroup", Identity("nobody", 65534, 65534, (65534,))),
        ("nobody", "daemon", Identity("nobody", 65534, 1, (1,))),
    ],
)
def test_names_and_numbers_are_looked_up(user: str, group: str | None, expected: Identity) -> None:
    assert resolve_identity(user, group) == expected


@pytest.mark.parametrize(
    ("user", "group", "says"),
    [
        ("no-such-user", None, 'this machine has no user "no-such-user"; create it with: useradd --system'),
        ("4294967299", None, 'this machine has no user "4294967299"'),
        ("nobody", "no-such-group", 'this machine has no group "no-such-group"; create it with: groupadd --system'),
        ("root", None, '"root" gives up nothing'),
        ("0", None, "gives up nothing"),
        ("nobody", "root", "the workers would be in root's group"),
        (None, "nogroup", "a group alone leaves the workers root"),
    ],
)
def test_an_identity_that_makes_no_sense_is_refused(user: str | None, group: str | None, says: str) -> None:
    with pytest.raises(StartupError) as caught:
        resolve_identity(user, group)
    assert says in str(caught.value)


@needs_root
@pytest.mark.usefixtures("root")
def test_only_root_can_become_somebody_else_and_being_it_already_is_fine() -> None:
    assert program("""
        drop(resolve_identity("nobody", None))
        print(resolve_identity("nobody", None))
        try:
            resolve_identity("daemon", None)
        except Exception as exc:
            print(exc)
    """) == ["None", 'process.user: only root can become "daemon"; start as root or leave user and group out']


# --- becoming it ----------------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.usefixtures("root")
def test_after_dropping_nothing_of_root_is_left_and_nothing_comes_back() -> None:
    printed = program("""
        import signal
        os.setgroups([0, 4, 27])
        drop(resolve_identity("nobody", "daemon"))
        print(os.getresuid(), os.getresgid(), os.getgroups(), capabilities())
        for attempt in (
            lambda: os.setuid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setgroups([0]), lambda: os.setgid(0),
            lambda: os.kill(1, 0), lambda: open("/etc/shadow"), lambda: open("/proc/self/mem", "rb"),
        ):
            try:
                attempt()
                print("came back")
            except PermissionError:
                pass
        with open("/proc/self/status") as status:
            print(*(line.split()[1] for line in status if line.startswith("NoNewPrivs")))
    """)
    assert printed == [
        "(65534, 65534, 65534) (1, 1, 1) [1] {'CapInh': 0, 'CapPrm': 0, 'CapEff': 0, 'CapAmb': 0}",
        "1",
    ]


@needs_root
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    ("sabotage", "says"),
    [
        # Each stands for a kernel, a sandbox or a mistake that leaves a privilege behind.
        ("os.setresuid = lambda *ids: None", "user ids are (0, 0, 0)"),
        ("real = os.setresuid; os.setresuid = lambda *ids: real(ids[0], ids[1], 0)", "user ids are (65534, 65534, 0)"),
        ("os.setgroups = lambda ids: None", "supplementary groups are {"),
        ("os.setresgid = lambda *ids: None", "group ids are (0, 0, 0)"),
        # SECBIT_NO_SETUID_FIXUP: capabilities survive the change of user.
        ("import ctypes; assert ctypes.CDLL(None).prctl(28, 4) == 0", "capabilities are left"),
    ],
)
def test_a_drop_that_did_not_work_is_noticed(sabotage: str, says: str) -> None:
    printed = program(f"""
        identity = resolve_identity("nobody", None)
        os.setgroups([4])
        {sabotage}
        try:
            drop(identity)
            print("dropped")
        except Exception as exc:
            print(type(exc).__name__, exc)
    """)
    assert printed[0].startswith("StartupError")
    assert says in printed[0]


@needs_root
@pytest.mark.usefixtures("root")
def test_a_worker_without_a_user_to_become_still_gives_up_its_capabilities() -> None:
    assert program("""
        shed()
        print(capabilities())
        try:
            os.setuid(1)
        except PermissionError:
            print("refused")
        shed()
    """) == ["{'CapInh': 0, 'CapPrm': 0, 'CapEff': 0, 'CapAmb': 0}", "refused"]


@needs_root
@pytest.mark.usefixtures("root")
def test_a_supervisor_keeps_what_it_needs_for_its_workers_and_for_keys(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    key.chmod(0o400)
    os.chown(key, 65534, 65534)
    printed = program(f"""
        import signal, socket
        narrow()
        print(*(hex(capabilities()[name]) for name in ("CapPrm", "CapEff")))
        with open("{key}") as key, socket.socket() as low:
            print(key.read())
            low.bind(("127.0.0.77", 1))
        dropped, say = os.pipe()
        child = os.fork()
        if child == 0:
            drop(resolve_identity("nobody", None))
            os.write(say, b"x")
            signal.pause()
        os.read(dropped, 1)
        os.kill(child, signal.SIGKILL)
        print(os.waitpid(child, 0)[1])
        for attempt in (lambda: open("{key}", "a"), lambda: socket.sethostname("x"), lambda: os.chroot("/")):
            try:
                attempt()
                print("still may")
            except PermissionError:
                pass
        print(end="", flush=True)
        # An exec by root gives everything back, unless that was forbidden.
        os.execv("/bin/sh", ["sh", "-c", "grep CapEff /proc/self/status"])
    """)
    kept = sum(1 << bit for bit in (0, 2, 5, 6, 7, 10)) & capabilities()["CapPrm"]
    assert printed == [f"{kept:#x} {kept:#x}", "secret", "9", f"CapEff:\t{kept:016x}"]
