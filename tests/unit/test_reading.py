"""Files that somebody else names: whatever a name leads to, reading it ends, within bounds of size and time."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import certificates
from tlstunnel import reading
from tlstunnel.config.load import load_file
from tlstunnel.config.model import CertificateFiles, Config
from tlstunnel.daemon.processes.reload_source import Poll, load_config, load_material
from tlstunnel.errors import StartupError, TunnelError
from tlstunnel.observe.admin.tls import tls_context
from tlstunnel.observe.sinks import FileSink
from tlstunnel.reading import UnfitFileError, read_whole
from tlstunnel.tools.pki import files
from tlstunnel.tools.top.client import client_context
from tlstunnel.x509.material import load_credential
from tlstunnel.x509.passphrase import PassphraseSource
from tlstunnel.x509.pem import read_file

LIMIT = 100_000


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pipe is known from another test: their numbers are used again."""
    monkeypatch.setattr(reading, "_pipes", {})


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIPE_PATIENCE_S", 0.05)


def given(data: bytes) -> Iterator[Path]:
    """A pipe as a shell's `<(...)` makes it, whose writer has written all and is gone."""
    ours, theirs = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(theirs, data), os.close(theirs)))
    writer.start()
    yield Path(f"/dev/fd/{ours}")
    writer.join()
    os.close(ours)


@pytest.mark.parametrize("size", [0, 1, LIMIT])
def test_a_file_is_read_up_to_the_limit(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * size)
    (tmp_path / "file").chmod(0o640)
    found = read_whole(tmp_path / "file", LIMIT)
    assert (len(found.data), found.mode & 0o777) == (size, 0o640)


def test_one_byte_more_is_too_much(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * (LIMIT + 1))
    with pytest.raises(UnfitFileError, match="is larger than 97 KiB") as caught:
        read_whole(tmp_path / "file", LIMIT)
    assert not caught.value.is_machine


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for path, what in {
            tmp_path: "is a directory; name a file in it",
            Path("/dev/zero"): "is a device; name a file",
            tmp_path / "socket": "is a socket, or a device that is not there; name a file",
        }.items():
            with pytest.raises(UnfitFileError) as caught:
                read_whole(path, LIMIT)
            assert str(caught.value) == what


@pytest.mark.parametrize("size", [1, LIMIT])
def test_a_pipe_is_read_to_its_end_and_once_for_all_who_name_it(size: int) -> None:
    for path in given(b"x" * size):
        assert [len(read_whole(path, LIMIT).data) for _ in range(3)] == [size] * 3


def test_a_named_pipe_waits_for_its_writer(fifo: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", f"open({str(fifo)!r}, 'w').write('late')"])
    try:
        assert read_whole(fifo, LIMIT).data == b"late"
    finally:
        assert writer.wait() == 0


def test_a_pipe_without_an_end_is_bounded(fifo: Path) -> None:
    writer = subprocess.Popen(["sh", "-c", f"exec cat /dev/zero > {fifo}"], stderr=subprocess.DEVNULL)
    try:
        with pytest.raises(UnfitFileError, match="is larger than"):
            read_whole(fifo, LIMIT)
    finally:
        writer.wait()


@pytest.mark.usefixtures("hurried")
def test_a_pipe_that_nobody_writes_to_is_given_up(fifo: Path) -> None:
    with pytest.raises(UnfitFileError, match="that nobody writes to within"):
        read_whole(fifo, LIMIT)


@pytest.mark.usefixtures("hurried")
def test_a_writer_that_does_not_end_is_given_up(fifo: Path) -> None:
    holder = os.open(fifo, os.O_RDWR)
    try:
        os.write(holder, b"half a k")
        with pytest.raises(UnfitFileError, match="whose writer does not come to an end within"):
            read_whole(fifo, LIMIT)
    finally:
        os.close(holder)


def test_what_a_pipe_gave_is_forgotten_and_not_asked_for_again() -> None:
    for path in given(b"secret"):
        read_whole(path, LIMIT)
        reading.forget_pipes()
        assert b"secret" not in repr(vars(reading)).encode()
        with pytest.raises(UnfitFileError, match="was read to its end at the start; name a file, or restart"):
            read_whole(path, LIMIT)


def test_a_key_out_of_a_pipe_is_as_good_as_one_out_of_a_file() -> None:
    pair = certificates.server("localhost")
    for key in given(pair.key.read_bytes()):
        assert load_credential(CertificateFiles(certificate=pair.certificate, key=key), PassphraseSource())


def test_a_start_reads_pipes_and_a_reload_says_that_it_cannot(tmp_path: Path) -> None:
    pair = certificates.server("localhost")
    for key in given(pair.key.read_bytes()):
        text = f'[services.a]\nlisten = "127.0.0.1:0"\ntarget = "127.0.0.1:1"\ncertificate = "{pair.certificate}"\n'
        (tmp_path / "c.toml").write_text(f'{text}key = "{key}"\n')
        config = load_file(tmp_path / "c.toml")
        loaded = load_material(config, PassphraseSource())
        assert not loaded.poll.check()
        with pytest.raises(TunnelError, match=f"{key}: is a pipe, and was read to its end at the start"):
            load_material(config, PassphraseSource(), config, loaded.inventory.contexts)


def test_a_configuration_out_of_a_pipe_is_read_at_the_start_alone() -> None:
    for path in given(b'[services.a]\nmode = "passthrough"\nlisten = ":0"\ntarget = "127.0.0.1:1"\n'):
        config = load_file(path)
        with pytest.raises(StartupError, match="is a pipe, which gave its configuration at the start; restart"):
            load_config(config)


@pytest.mark.usefixtures("hurried")
def test_no_reader_of_named_files_waits_for_the_writer_of_a_pipe(fifo: Path, tmp_path: Path) -> None:
    admin = Config(services=(), source="x").admin
    pem = certificates.server("localhost").certificate
    for read in (
        lambda: load_file(fifo),
        lambda: read_file(fifo),
        lambda: files.read(fifo),
        lambda: FileSink(fifo),
        lambda: client_context(fifo, None, None),
        lambda: client_context(None, pem, fifo),
        lambda: tls_context(type(admin)(certificate=fifo)),
        lambda: tls_context(type(admin)(certificate=pem, key=pem, client_ca=fifo)),
    ):
        with pytest.raises(TunnelError, match=str(fifo)) as caught:
            read()
        assert "\n" not in str(caught.value)


def test_a_pipe_is_not_opened_to_see_whether_it_can_be_read(fifo: Path, tmp_path: Path) -> None:
    """A writer takes the first opening for its reader, and would lose what it writes after the closing."""
    pem = certificates.server("localhost").certificate
    text = f'[services.a]\nlisten = "127.0.0.1:0"\ntarget = "127.0.0.1:1"\ncertificate = "{pem}"\nkey = "{fifo}"\n'
    (tmp_path / "c.toml").write_text(text)
    config = load_file(tmp_path / "c.toml")
    assert not Poll(config).check()
    with pytest.raises(OSError, match="No such device or address"):
        os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)  # nobody has it open
    assert not reading._pipes


HOSTILE = {
    "arrays": b"a = " + b"[" * 100_000,
    "closed arrays": b"a = " + b"[" * 100 + b"]" * 100,
    "tables": b"a = " + b"{a=" * 100_000,
    "a dotted key": b"a" + b".a" * 20_000 + b" = 1",
    "a dotted table": b"[a" + b".a" * 20_000 + b"]",
    "dotted service": b"[services.a" + b".a" * 50 + b"]",
    "a decimal number": b"[process]\nworkers = " + b"9" * 10_000,
    "a hexadecimal number": b"[process]\nworkers = 0x" + b"f" * 10_000,
    "a hexadecimal duration": b"[process]\nreload_poll = 0x" + b"f" * 10_000,
    "a hexadecimal word": b"[services.a]\nalpn = [0x" + b"f" * 10_000 + b"]\n[services.b.x]\ny = 0x" + b"f" * 10_000,
    "a number with an exponent": b"[process]\nreload_poll = 1e999999",
    "no number": b"[process]\nworkers = nan\nmax_connections = inf\nreload_poll = nan",
    "zeros": b"\0" * 100_000,
    "a long line": b"a = " + b" " * 1_000_000 + b"y",
    "a string without an end": b'a = "' + b"\\u0041" * 100_000,
    "unknown keys": b"".join(b"listem%d = 1\n" % number for number in range(2_000)),
    "a surrogate": b'a = "\xed\xa0\x80"',
    "a date": b"[process]\nworkers = 9999-12-31T23:59:60Z",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_configuration_gets_an_answer(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "c.toml").write_bytes(text)
    with pytest.raises(TunnelError) as caught:
        load_file(tmp_path / "c.toml")
    assert str(caught.value).startswith(str(tmp_path / "c.toml"))


def test_an_endless_configuration_is_refused() -> None:
    with pytest.raises(TunnelError, match=r"^/dev/zero: is a device; name a file$"):
        load_file(Path("/dev/zero"))


def test_a_configuration_of_many_megabytes_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "c.toml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TunnelError, match="is larger than 16 MiB"):
        load_file(tmp_path / "c.toml")


def test_a_log_in_a_pipe_goes_to_its_reader_and_waits_for_none(fifo: Path) -> None:
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    sink = FileSink(fifo)
    try:
        assert sink.write(b"a line\n")
        assert os.read(reader, 100) == b"a line\n"
        while sink.write(b"x" * 4096):
            pass  # until the pipe is full: a write that would wait is none
    finally:
        sink.close()
        os.close(reader)


@pytest.mark.usefixtures("hurried")
def test_an_error_tells_the_machine_from_the_name(fifo: Path) -> None:
    for path, exit_code in ((Path("/dev/zero"), 2), (fifo, 1)):
        for read in (read_file, files.read, load_file):
            with pytest.raises(TunnelError) as caught:
                read(path)
            assert caught.value.exit_code == exit_code


OPENS_BY_ITSELF = {
    # The kernel's files.
    "tools.bench.processes", "tools.bench.machine", "tools.bench.process", "observe.processes",
    "daemon.processes.launch", "daemon.system.limits",
    "daemon.processes.liveness", "daemon.system.privileges", "daemon.listen.bind_errors", "daemon.system.memory",
    # /dev/null, what we are installed with, our own units, locks, and files of our own making.
    "cli.app", "cli.entry", "cli.files", "cli.systemd", "tools.pki.files", "daemon.ocsp.stapling",
    "config.files",  # looks whether a file can be opened, and not into it
    "x509.apart",  # a pipe between two processes of ours
    "tools.top.client",  # memory, which `ssl` reads as a file
    "observe.sinks", "tls.context",  # what is written to, without waiting
    "reading",
}  # fmt: skip


def test_what_somebody_else_names_is_read_in_one_place() -> None:
    """Whoever opens files by itself is known, and why; everybody else asks `reading`."""
    package = Path(reading.__file__).parent
    openers = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if name in ("open", "os.open", "io.open") or name.endswith((".read_bytes", ".read_text")):
                    openers.add(".".join(path.relative_to(package).with_suffix("").parts))
    assert openers <= OPENS_BY_ITSELF, openers - OPENS_BY_ITSELF
