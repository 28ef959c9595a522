"""A real systemd as PID 1, to run units on: booted in namespaces of its own, over a throw-away overlay of this machine.

The outside half starts `unshare` and waits until the machine says it is up; commands then enter its namespaces with
`nsenter`. The inside half (this same file, run as a program) is the machine's first process: it mounts a file system
that looks like the machine it runs on, of which nothing written survives, and becomes systemd.

Needs root, overlayfs, util-linux and systemd; two or three seconds. What systemd itself says is in `console`.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

SYSTEMD = "/lib/systemd/systemd"
BOOT_GUARD_S = 40.0  # not a measure of anything: it turns a machine that hangs into a failure that says so
_PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
SHARED = "/opt/shared"  # the machine sees `Machine.shared` here; services that hide /tmp and /home still see it

_UP_UNIT = f"""\
[Unit]
Description=Says that the machine is up
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo up > {SHARED}/up'
"""
_TARGET = """\
[Unit]
Requires=basic.target up.service
After=basic.target
AllowIsolate=yes
"""


class Machine:
    """A booted machine. `shared` is a directory seen from both sides."""

    def __init__(self, work: Path, pid: int) -> None:
        self.shared = work / "shared"
        self.console = work / "console"
        self._pid = pid
        self._enter = ["nsenter", f"--target={pid}", "--all", f"--root=/proc/{pid}/root", "--wd=/"]

    def run(
        self, *command: str, check: bool = True, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root in the machine. With `check` a failure fails the test, showing what was printed."""
        done = subprocess.run(
            [*self._enter, *command], capture_output=True, text=True, check=False, timeout=BOOT_GUARD_S,
            env={**_PATH, **(environ or {})},
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{command} exited {done.returncode}: {done.stdout}{done.stderr}\n{self.tail()}")
        return done

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        """What systemctl printed on either stream."""
        done = self.run("systemctl", "--no-pager", *arguments, check=check)
        return done.stdout + done.stderr

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit."""
        text = self.run("systemctl", "show", unit, *(f"--property={name}" for name in names)).stdout
        return dict(line.split("=", 1) for line in text.splitlines())

    def install(self, name: str, text: str) -> None:
        """Write a unit or drop-in below /etc/systemd/system and make systemd read it."""
        path = Path(f"/proc/{self._pid}/root/etc/systemd/system", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.systemctl("daemon-reload")

    def write(self, path: str, data: str, mode: int = 0o644) -> None:
        """Write a file in the machine."""
        target = Path(f"/proc/{self._pid}/root{path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(data)
        target.chmod(mode)

    def journal(self, unit: str) -> str:
        """What a unit, and systemd about it, has said so far."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", f"--unit={unit}", "--output=cat", "--no-pager").stdout

    def wait_for(self, unit: str, text: str, times: int = 1) -> None:
        """Return when the unit's journal has had this text so many times; follows it, so nothing is polled."""
        follow = ["journalctl", f"--unit={unit}", "--output=cat", "--no-pager", "--lines=all", "--follow"]
        with subprocess.Popen([*self._enter, *follow], stdout=subprocess.PIPE, env=_PATH) as reader:
            assert reader.stdout is not None
            seen = b""
            try:
                while seen.count(text.encode()) < times:
                    ready, _, _ = select.select([reader.stdout], [], [], BOOT_GUARD_S)
                    more = os.read(reader.stdout.fileno(), 65536) if ready else b""
                    assert more, f'"{text}" never came {times} times:\n{seen.decode()}\n{self.tail()}'
                    seen += more
            finally:
                reader.kill()

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command in the machine and talk to it; the caller ends it."""
        return subprocess.Popen(
            [*self._enter, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_PATH
        )

    def processes(self, unit: str) -> dict[int, dict[str, str]]:
        """The processes of a unit, by their pid in the machine: the fields of /proc/PID/status."""
        group = self.show(unit, "ControlGroup")["ControlGroup"]
        found = {}
        for pid in self.run("cat", f"/sys/fs/cgroup{group}/cgroup.procs").stdout.split():
            # A process on its way out is a 0 here, or gone when its turn comes.
            text = self.run("cat", f"/proc/{pid}/status", check=False).stdout
            if not text:
                continue
            found[int(pid)] = {key: value.strip() for key, _, value in (ln.partition(":") for ln in text.splitlines())}
        return found

    def tail(self) -> str:
        """The last words of everything in the machine, for a failure's message."""
        last = ["journalctl", "--no-pager", "--output=short-monotonic", "--lines=60"]
        done = subprocess.run([*self._enter, *last], capture_output=True, text=True, check=False, env=_PATH)
        return done.stdout


def why_not() -> str | None:
    """What this machine lacks to boot another, or None."""
    if os.geteuid() != 0:
        return "booting a systemd needs root"
    for program in (SYSTEMD, "unshare", "nsenter", "mount"):
        if shutil.which(program) is None:
            return f"booting a systemd needs {program}"
    # Root in a container may lack what it takes, or be kept from it.
    probe = ["unshare", "--mount", "--pid", "--cgroup", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    return f"booting a systemd needs namespaces and mounts: {done.stderr.strip()}" if done.returncode else None


@contextlib.contextmanager
def booted(work: Path) -> Iterator[Machine]:
    """Boot a machine that keeps its files in `work`, and throw it away at the end.

    Raises:
        RuntimeError: with systemd's last words, when it does not come up.
    """
    shared = work / "shared"
    shared.mkdir()
    (work / "layers").mkdir()
    (work / "console").touch()
    os.mkfifo(shared / "up")
    # Read-write, so that opening does not wait for the other side.
    with open(os.open(shared / "up", os.O_RDWR | os.O_NONBLOCK), "rb", buffering=0) as up:
        spaces = ["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--propagation=private"]
        command = ["unshare", *spaces, "--fork", "--kill-child", "--", sys.executable, "-I", __file__, str(work)]
        with open(work / "console", "ab") as console, subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True
        ) as outer:  # fmt: skip
            try:
                ended = os.pidfd_open(outer.pid)
                try:
                    ready, _, _ = select.select([up, ended], [], [], BOOT_GUARD_S)
                finally:
                    os.close(ended)
                if up not in ready:
                    text = (work / "console").read_text(errors="replace")
                    raise RuntimeError(f"systemd did not come up: {text[-3000:]}")
                children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
                yield Machine(work, int(children[0]))
            finally:
                outer.send_signal(signal.SIGKILL)  # takes the machine's PID 1 along, and that everything in it


def _become_systemd(work: Path) -> None:
    """The inside half: mount everything, then exec systemd."""
    layers = work / "layers"
    _mount("tmpfs", layers, kind="tmpfs")
    for name in ("upper", "scratch", "root"):
        (layers / name).mkdir()
    root = layers / "root"
    options = f"lowerdir=/,upperdir={layers}/upper,workdir={layers}/scratch"
    _mount("overlay", root, kind="overlay", options=options)
    _mount("proc", root / "proc", kind="proc")
    _mount("sysfs", root / "sys", kind="sysfs", options="ro")
    _mount("cgroup2", root / "sys/fs/cgroup", kind="cgroup2")
    for name in ("run", "dev", "tmp"):
        _mount("tmpfs", root / name, kind="tmpfs")
    for device in ("null", "zero", "full", "random", "urandom", "tty"):
        _bind(Path("/dev", device), root / "dev" / device)
    for name in ("pts", "shm"):
        (root / "dev" / name).mkdir()
    _mount("devpts", root / "dev/pts", kind="devpts", options="newinstance,ptmxmode=0666")
    (root / "dev/ptmx").symlink_to("pts/ptmx")
    (root / "dev/fd").symlink_to("/proc/self/fd")
    _bind(work / "console", root / "dev/console")
    shared = root / SHARED.lstrip("/")
    shared.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", work / "shared", shared], check=True)
    checkout = Path(__file__).parents[2]
    seen = root / checkout.relative_to("/")
    if not (seen / "tests").exists():  # it lies on another file system, of which the overlay shows nothing
        seen.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", "-o", "ro", checkout, seen], check=True)
    units = root / "etc/systemd/system"
    for wants in units.glob("*.wants"):
        shutil.rmtree(wants)  # what this machine starts at boot is not what the test machine should
    (units / "up.service").write_text(_UP_UNIT)
    (units / "machine.target").write_text(_TARGET)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # Not chroot: a process whose root is not its mount namespace's root may not have user namespaces (PrivateUsers=).
    (root / "old").mkdir()
    os.chdir(root)
    subprocess.run(["pivot_root", ".", "old"], check=True)
    os.chroot(".")
    subprocess.run(["umount", "--lazy", "/old"], check=True)
    # In what it takes for a container systemd leaves this to whoever made it. Without it credentials, which a helper
    # process mounts, never reach the service.
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    environ = {"container": "unshare", **_PATH}
    options_ = ["--log-target=journal-or-kmsg", "--log-level=info", "--show-status=1", "--unit=machine.target"]
    os.execve(SYSTEMD, [SYSTEMD, "--system", *options_], environ)  # noqa: S606  no shell is meant


def _mount(source: str, target: Path, *, kind: str, options: str = "") -> None:
    extra = ["-o", options] if options else []
    subprocess.run(["mount", "-t", kind, *extra, source, target], check=True)


def _bind(source: Path, target: Path) -> None:
    target.touch()
    subprocess.run(["mount", "--bind", source, target], check=True)


if __name__ == "__main__":
    os.environ.update(_PATH)  # pivot_root(8) is not in everybody's
    _become_systemd(Path(sys.argv[1]))
