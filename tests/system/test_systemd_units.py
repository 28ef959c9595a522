"""The systemd units keep their promises on a real systemd as PID 1."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import certificates, reachable
from tests.support.systemd_machine import Machine, booted, why_not
from tests.support.units import UNITS
from tlstunnel.cli.systemd_units import system_units

TUNNEL = reachable.tunnel()


PYTHON = str(Path(TUNNEL).with_name("python"))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A booted machine that has the units of this installation, a certificate, and a key that only root can read."""
    missing = why_not()
    if missing and os.environ.get("TLSTUNNEL_REQUIRE_INTEROP") == "1":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    pair = certificates.server("localhost")
    with booted(tmp_path) as machine:
        for name, text in system_units(reachable.installation()).items():
            machine.install(name, text)
        machine.write("/etc/tlstunnel/web.pem", pair.certificate.read_text())
        machine.write("/etc/tlstunnel/keys/web.key", pair.key.read_text(), 0o600)
        yield machine


def config(*listen: str, name: str = "web") -> str:
    addresses = ", ".join(f'"{address}"' for address in listen)
    return (
        f'[services.{name}]\nmode = "server"\nlisten = [{addresses}]\ntarget = "127.0.0.1:9"\n'
        'certificate = "/etc/tlstunnel/web.pem"\nkey = "cred:keys_web.key"\n'
    )


# A backend and a TLS client of it through the tunnel. Told to go on, it keeps the link for twice what the unit allows
# for a stop, and then sends a word around.
LINK = """
import socket, ssl, time
backend = socket.create_server(("127.0.0.1", 9))
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
client = context.wrap_socket(socket.create_connection(("127.0.0.1", 8443)))
client.send(b"hello")
link, _ = backend.accept()
assert link.recv(100) == b"hello"
print("open", flush=True)
input()
time.sleep(2)
link.send(b"still there")
print(client.recv(100).decode())
"""


def connects(machine: Machine, address: str) -> bool:
    """Whether a listening socket takes a connection, from within the machine."""
    program = (
        "import socket, sys; kind, where = sys.argv[1:]\n"
        "sock = socket.socket(socket.AF_UNIX) if kind == 'unix' else socket.socket()\n"
        "sock.connect(where if kind == 'unix' else ('127.0.0.1', int(where)))"
    )
    kind, _, where = address.rpartition(":")
    return machine.run(PYTHON, "-c", program, kind or "tcp", where, check=False).returncode == 0


# --- what they do ---------------------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.slow
def test_started_means_serving_without_root_and_with_nothing_but_its_own_key(machine: Machine) -> None:
    machine.write("/etc/tlstunnel/tlstunnel.toml", config("127.0.0.1:443"))
    machine.systemctl("start", "tlstunnel.service")  # returns when the daemon says that it is ready
    assert connects(machine, "443")
    facts = machine.show("tlstunnel.service", "ActiveState", "StatusText", "MainPID")
    assert facts["ActiveState"] == "active"
    assert facts["StatusText"]
    supervisor = int(facts["MainPID"])
    processes = machine.processes("tlstunnel.service")
    assert len(processes) >= 3, "a supervisor and two workers"
    for pid, status in processes.items():
        uids = {int(uid) for uid in status["Uid"].split()}
        assert min(uids) >= 61184, "a dynamic user"
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        bind_only = 1 << 10
        assert int(status["CapPrm"], 16) == (bind_only if pid == supervisor else 0)
        limits = machine.run("cat", f"/proc/{pid}/limits").stdout
        assert re.search(r"Max open files +(\d+) +\1 ", limits), "the soft limit is the hard one"
        assert re.search(r"Max core file size +0 +0 ", limits)
    assert "-rw------- 1 root" in machine.run("ls", "-l", "/etc/tlstunnel/keys/web.key").stdout


@pytest.mark.root
@pytest.mark.slow
def test_stopping_ends_well_and_leaves_nothing_behind(machine: Machine) -> None:
    machine.write("/etc/tlstunnel/tlstunnel.toml", config("127.0.0.1:8443", "unix:/run/tlstunnel/web.sock"))
    machine.systemctl("start", "tlstunnel.service")
    assert connects(machine, "unix:/run/tlstunnel/web.sock")
    machine.systemctl("stop", "tlstunnel.service")
    facts = machine.show("tlstunnel.service", "ActiveState", "Result", "ExecMainStatus")
    assert facts == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}
    assert not connects(machine, "8443")
    assert not machine.run("ls", "/run/tlstunnel", check=False).stdout


@pytest.mark.root
@pytest.mark.slow
def test_an_instance_runs_its_own_configuration(machine: Machine) -> None:
    for name, port in (("one", 8441), ("two", 8442)):
        machine.write(f"/etc/tlstunnel/{name}.toml", config(f"127.0.0.1:{port}", f"unix:/run/tlstunnel-{name}/s"))
        machine.systemctl("start", f"tlstunnel@{name}.service")
    assert connects(machine, "8441")
    assert connects(machine, "unix:/run/tlstunnel-two/s")
    machine.systemctl("stop", "tlstunnel@one.service")
    assert not connects(machine, "8441")
    assert connects(machine, "8442")


@pytest.mark.root
@pytest.mark.slow
def test_reload_takes_the_new_configuration_in_the_same_process(machine: Machine) -> None:
    machine.write("/etc/tlstunnel/tlstunnel.toml", config("127.0.0.1:8443"))
    machine.systemctl("start", "tlstunnel.service")
    before = machine.show("tlstunnel.service", "MainPID")
    machine.write("/etc/tlstunnel/tlstunnel.toml", config("127.0.0.1:8444"))
    machine.systemctl("reload", "tlstunnel.service")
    machine.wait_for("tlstunnel.service", "127.0.0.1:8444")
    assert connects(machine, "8444")
    assert machine.show("tlstunnel.service", "MainPID") == before


@pytest.mark.root
@pytest.mark.slow
def test_reload_of_a_wrong_configuration_fails_says_why_and_changes_nothing(machine: Machine) -> None:
    machine.write("/etc/tlstunnel/tlstunnel.toml", config("127.0.0.1:8443"))
    machine.systemctl("start", "tlstunnel.service")
    before = set(machine.processes("tlstunnel.service"))
    machine.write("/etc/tlstunnel/tlstunnel.toml", "[services\n")
    assert machine.run("systemctl", "reload", "tlstunnel.service", check=False).returncode == 1
    assert "/etc/tlstunnel/tlstunnel.toml: " in machine.journal("tlstunnel.service")
    assert machine.show("tlstunnel.service", "ActiveState")["ActiveState"] == "active"
    assert set(machine.processes("tlstunnel.service")) == before
    assert connects(machine, "8443")


@pytest.mark.root
@pytest.mark.slow
def test_with_notify_reload_systemctl_returns_when_the_reload_is_over(machine: Machine) -> None:
    version = int(machine.systemctl("--version").split()[1])
    if version < 253:
        pytest.skip(f"systemd {version} has no Type=notify-reload; that of Debian 13 has")
    machine.install("tlstunnel.service.d/notify-reload.conf", (UNITS / "examples/notify-reload.conf").read_text())
    machine.write("/etc/tlstunnel/tlstunnel.toml", config("127.0.0.1:8443"))
    machine.systemctl("start", "tlstunnel.service")
    before = machine.show("tlstunnel.service", "Type", "MainPID", "CanReload")
    assert before.pop("CanReload") == "yes"
    assert before["Type"] == "notify-reload"
    for port in ("8444", "8445", "8446"):
        machine.write("/etc/tlstunnel/tlstunnel.toml", config(f"127.0.0.1:{port}"))
        machine.systemctl("reload", "tlstunnel.service")
        assert connects(machine, port), "nobody had to wait after the command"
        assert machine.show("tlstunnel.service", "ActiveState")["ActiveState"] == "active"
    machine.write("/etc/tlstunnel/tlstunnel.toml", "[services\n")
    machine.systemctl("reload", "tlstunnel.service")
    assert "/etc/tlstunnel/tlstunnel.toml: " in machine.journal("tlstunnel.service")
    assert connects(machine, "8446")
    after = machine.show("tlstunnel.service", "ActiveState", "StatusText", "Type", "MainPID")
    assert after.pop("ActiveState") == "active"
    assert "reload failed" in after.pop("StatusText")
    assert after == before, "the same process all along"


@pytest.mark.root
@pytest.mark.slow
def test_a_wrong_configuration_is_not_started_again_and_again(machine: Machine) -> None:
    machine.write("/etc/tlstunnel/tlstunnel.toml", "[services\n")
    assert "failed" in machine.systemctl("start", "tlstunnel.service", check=False)
    facts = machine.show("tlstunnel.service", "ActiveState", "ExecMainStatus", "NRestarts")
    assert facts == {"ActiveState": "failed", "ExecMainStatus": "2", "NRestarts": "0"}


@pytest.mark.root
@pytest.mark.slow
def test_a_worker_that_hangs_makes_the_watchdog_start_everything_over(machine: Machine) -> None:
    machine.install("tlstunnel.service.d/impatient.conf", "[Service]\nWatchdogSec=4s\nRestartSec=0\n")
    machine.write("/etc/tlstunnel/tlstunnel.toml", config("127.0.0.1:8443"))
    machine.systemctl("start", "tlstunnel.service")
    supervisor = int(machine.show("tlstunnel.service", "MainPID")["MainPID"])
    worker = next(pid for pid in machine.processes("tlstunnel.service") if pid != supervisor)
    machine.run("kill", "-STOP", str(worker))
    machine.wait_for("tlstunnel.service", "Watchdog timeout")
    machine.wait_for("tlstunnel.service", "127.0.0.1:8443", times=2)
    assert int(machine.show("tlstunnel.service", "NRestarts")["NRestarts"]) >= 1
    assert connects(machine, "8443")


@pytest.mark.root
@pytest.mark.slow
def test_a_drain_longer_than_the_stop_timeout_is_not_cut_short(machine: Machine) -> None:
    machine.install("tlstunnel.service.d/impatient.conf", "[Service]\nTimeoutStopSec=1s\n")
    machine.write("/etc/tlstunnel/tlstunnel.toml", config("127.0.0.1:8443"))
    machine.systemctl("start", "tlstunnel.service")
    with machine.start(PYTHON, "-c", LINK) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == "open\n"
        machine.systemctl("stop", "--no-block", "tlstunnel.service")
        machine.wait_for("tlstunnel.service", "draining")
        said, _ = client.communicate("go on\n")
    assert said == "still there\n"
    machine.wait_for("tlstunnel.service", "Stopped tlstunnel.service")
    assert machine.show("tlstunnel.service", "Result")["Result"] == "success"


@pytest.mark.root
@pytest.mark.slow
def test_a_connection_to_the_socket_unit_starts_the_service_and_survives_its_restart(machine: Machine) -> None:
    machine.install("tlstunnel.service.d/own.conf", (UNITS / "examples/socket-activated.conf").read_text())
    machine.write("/etc/tlstunnel/tlstunnel.toml", config("systemd:https"))
    machine.systemctl("start", "tlstunnel.socket")
    assert machine.show("tlstunnel.service", "ActiveState")["ActiveState"] == "inactive"
    assert connects(machine, "443")
    machine.wait_for("tlstunnel.service", "systemd:https")
    assert machine.show("tlstunnel.service", "ActiveState")["ActiveState"] == "active"
    for status in machine.processes("tlstunnel.service").values():
        assert (int(status["CapPrm"], 16), int(status["CapBnd"], 16)) == (0, 0)
    machine.systemctl("stop", "tlstunnel.service")
    assert connects(machine, "443"), "the queue is systemd's: nobody is refused while the service is down"


@pytest.mark.root
@pytest.mark.slow
def test_several_sockets_of_one_name_are_all_served_and_their_paths_stay(machine: Machine) -> None:
    socket = (
        "[Socket]\nListenStream=127.0.0.1:8441\nListenStream=127.0.0.1:8442\n"
        "ListenStream=/run/web.sock\nFileDescriptorName=https\n"
    )
    machine.install("tlstunnel.socket", socket)
    machine.write("/etc/tlstunnel/tlstunnel.toml", config("systemd:https"))
    machine.systemctl("start", "tlstunnel.socket", "tlstunnel.service")
    for address in ("8441", "8442", "unix:/run/web.sock"):
        assert connects(machine, address)
        assert address.removeprefix("unix:") in machine.journal("tlstunnel.service")
    machine.systemctl("stop", "tlstunnel.service")
    assert connects(machine, "unix:/run/web.sock"), "the path is systemd's, and still there"


@pytest.mark.root
@pytest.mark.slow
def test_a_socket_that_no_service_takes_stops_the_start_and_is_named(machine: Machine) -> None:
    machine.write("/etc/tlstunnel/tlstunnel.toml", config("127.0.0.1:8443"))
    machine.systemctl("start", "tlstunnel.socket")
    machine.systemctl("start", "tlstunnel.service", check=False)
    assert 'socket activation: no service listens on the socket named "https"' in machine.journal("tlstunnel.service")


@pytest.mark.root
@pytest.mark.slow
def test_a_permanent_user_of_the_same_name_is_used_so_that_keys_can_be_its_group_s(machine: Machine) -> None:
    machine.write("/usr/lib/sysusers.d/tlstunnel.conf", (UNITS / "sysusers-tlstunnel.conf").read_text())
    machine.run("systemd-sysusers", "tlstunnel.conf")
    machine.write("/etc/tlstunnel/tlstunnel.toml", config("127.0.0.1:8443"))
    machine.systemctl("start", "tlstunnel.service")
    uid = machine.run("id", "-u", "tlstunnel").stdout.strip()
    assert all(status["Uid"].split() == [uid] * 4 for status in machine.processes("tlstunnel.service").values())


@pytest.mark.root
@pytest.mark.slow
def test_installing_writes_units_that_systemd_can_start_and_says_what_to_do_next(machine: Machine) -> None:
    machine.run("rm", "-r", "/etc/tlstunnel/keys")
    machine.write("/etc/systemd/system/tlstunnel.socket", "# edited\n")
    refused = machine.run(TUNNEL, "systemd", "install", check=False)
    assert refused.returncode == 1
    assert "/etc/systemd/system/tlstunnel.socket: exists and differs; --force overwrites it" in refused.stderr
    done = machine.run(TUNNEL, "systemd", "install", "--force")
    assert done.stdout.splitlines() == [
        *(f"/etc/systemd/system/tlstunnel{kind}" for kind in (".service", "@.service", ".socket")),
        "/etc/tlstunnel/keys",
    ]
    assert machine.run("stat", "--format=%A %U", "/etc/tlstunnel/keys").stdout == "drwx------ root\n"
    assert "systemctl daemon-reload && systemctl enable --now tlstunnel.service" in done.stderr
    machine.systemctl("daemon-reload")
    assert f"ExecStart={TUNNEL} run /etc/tlstunnel/tlstunnel.toml" in machine.systemctl("cat", "tlstunnel.service")
    machine.write(
        "/etc/tlstunnel/tlstunnel.toml",
        '[services.db]\nmode = "client"\nlisten = "unix:/run/tlstunnel/s"\ntarget = "localhost:9"\n',
    )
    machine.systemctl("enable", "--now", "tlstunnel.service")
    assert connects(machine, "unix:/run/tlstunnel/s"), "an empty key directory is enough"
    assert machine.run(TUNNEL, "systemd", "install").returncode == 0, "the same again changes nothing"


@pytest.mark.root
@pytest.mark.slow
def test_a_users_own_manager_runs_it_too(machine: Machine) -> None:
    home = {"HOME": "/root", "XDG_RUNTIME_DIR": "/run/user/0"}
    manager = "[Service]\nType=notify\nDelegate=yes\nExecStart=/lib/systemd/systemd --user\nEnvironment="
    machine.install("manager.service", manager + " ".join(f"{name}={value}" for name, value in home.items()))
    machine.run("mkdir", "-p", home["XDG_RUNTIME_DIR"])
    text = config("127.0.0.1:8443", "unix:/run/user/0/tlstunnel/web.sock")
    text = text.replace("cred:keys_web.key", "/etc/tlstunnel/keys/web.key")
    machine.write("/root/.config/tlstunnel/tlstunnel.toml", text)
    machine.run(TUNNEL, "systemd", "install", "--user", environ=home)
    machine.systemctl("start", "manager.service")
    machine.run("systemctl", "--user", "start", "tlstunnel.service", environ=home)
    assert connects(machine, "8443")
    assert connects(machine, "unix:/run/user/0/tlstunnel/web.sock")
    machine.run("systemctl", "--user", "reload", "tlstunnel.service", environ=home)
    machine.run("systemctl", "--user", "stop", "tlstunnel.service", environ=home)
    assert not connects(machine, "8443")


def test_a_dry_run_prints_every_unit_and_writes_nothing(tmp_path: Path) -> None:
    command = [TUNNEL, "systemd", "install", "--dry-run", "--directory", str(tmp_path / "units")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for name, text in system_units(reachable.installation()).items():
        assert f"# {tmp_path}/units/{name}\n{text}" in done.stdout
    assert not (tmp_path / "units").exists()
