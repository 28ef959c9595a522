"""The files a configuration names: where paths start, credentials, and what is the machine's fault."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.config_texts import SERVER, Load, loader, service
from tlstunnel.address import UnixAddress
from tlstunnel.config.files import FileTroubleError, find_file, is_hidden
from tlstunnel.config.load import load_file
from tlstunnel.config.source import FilesError
from tlstunnel.errors import ConfigError


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    return loader(tmp_path, monkeypatch)


def test_relative_paths_start_at_the_file_not_at_the_current_folder(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(f"[services.web]\n{SERVER}")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load_file(Path("../tunnel.toml"))
    (files,) = service(config).certificate
    assert files.certificate is not None
    assert files.certificate.is_absolute()
    assert files.certificate.samefile(tmp_path / "server.pem")


def test_relative_unix_sockets_start_at_the_file_too(load: Load, tmp_path: Path) -> None:
    text = SERVER.replace(":8443", "unix:in.sock").replace("127.0.0.1:8080", "unix:run/out.sock")
    config = load(f'[admin]\nlisten = "unix:admin.sock"\n[services.web]\n{text}')
    assert service(config).listen == (UnixAddress(f"{tmp_path}/in.sock"),)
    assert service(config).targets == (UnixAddress(f"{tmp_path}/run/out.sock"),)
    assert config.admin.listen == UnixAddress(f"{tmp_path}/admin.sock")


def test_a_symlink_to_a_file_is_not_resolved_so_that_it_can_be_swapped(load: Load, tmp_path: Path) -> None:
    (tmp_path / "current.pem").symlink_to("server.pem")
    web = service(load(f"[services.web]\n{SERVER}".replace("server.pem", "current.pem")))
    assert web.certificate[0].certificate == tmp_path / "current.pem"


def test_a_credential_is_a_file_that_systemd_brought(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "creds").mkdir()
    (tmp_path / "creds" / "web.pem").touch()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "creds"))
    web = service(load(f"[services.web]\n{SERVER}".replace("server.pem", "cred:web.pem")))
    assert web.certificate[0].certificate == tmp_path / "creds" / "web.pem"
    with pytest.raises(FilesError, match="does not exist; check the path"):
        load(f"[services.web]\n{SERVER}".replace("server.pem", "cred:other.pem"))


@pytest.mark.parametrize("name", ["..", ".", "a/b", ""])
def test_a_credential_cannot_name_a_file_elsewhere(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(ConfigError, match="names no credential"):
        load(f"[services.web]\n{SERVER}".replace("server.pem", f"cred:{name}"))


def test_a_file_that_may_not_be_read_is_the_machines_fault(tmp_path: Path) -> None:
    path = tmp_path / "server.pem"
    path.touch(mode=0)
    user = os.geteuid()
    try:
        if user == 0:  # root reads everything; somebody else cannot even enter the folder
            os.seteuid(65534)
        with pytest.raises(FileTroubleError, match="permission denied for user nobody; let its group"):
            find_file("server.pem", tmp_path)
    finally:
        os.seteuid(user)


def test_credentials_that_systemd_shows_to_the_daemon_alone_are_not_missing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "web.key").touch(mode=0)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        with pytest.raises(FileTroubleError, match="permission denied"):  # in the daemon itself
            find_file("cred:web.key", tmp_path)
        monkeypatch.setenv("MAINPID", "1")
        assert find_file("cred:web.key", tmp_path) == tmp_path / "web.key"
        with pytest.raises(FileTroubleError, match="permission denied"):  # a file of ours, not a credential
            find_file(str(tmp_path.parent / "web.key"), tmp_path)
    finally:
        os.seteuid(user)
    with pytest.raises(FileTroubleError, match="does not exist; check the path"):
        find_file("cred:other.key", tmp_path)
    (tmp_path / "web.key").chmod(0o600)
    assert not is_hidden(tmp_path / "web.key")


def test_a_loop_of_symlinks_is_the_machines_fault(load: Load, tmp_path: Path) -> None:
    (tmp_path / "server.pem").unlink()
    (tmp_path / "server.pem").symlink_to("server.pem")
    with pytest.raises(ConfigError, match="too many levels of symbolic links") as caught:
        load(f"[services.web]\n{SERVER}")
    assert caught.value.exit_code == 1


def test_missing_files_alone_exit_1_and_with_anything_else_2(load: Load) -> None:
    text = f"[services.web]\n{SERVER}".replace("server.pem", "missing.pem")
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert caught.value.exit_code == 1
    with pytest.raises(ConfigError) as caught:
        load(text + "idle_timeout = 5")
    assert caught.value.exit_code == 2
    assert len(caught.value.problems) == 2


def test_a_configuration_file_that_is_not_there_exits_1(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_file(tmp_path / "missing.toml")
    assert caught.value.exit_code == 1
    assert str(caught.value).startswith(f"{tmp_path}/missing.toml: does not exist; check the path")


def test_a_named_pipe_does_not_hold_the_loader_up(load: Load, tmp_path: Path) -> None:
    (tmp_path / "server.pem").unlink()
    os.mkfifo(tmp_path / "server.pem")
    assert service(load(f"[services.web]\n{SERVER}")).certificate


def test_a_byte_order_mark_does_no_harm(load: Load) -> None:
    assert service(load("\ufeff[services.web]\n" + SERVER)).name == "web"


def test_a_folder_nobody_may_write_to_is_the_machines_fault(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(FilesError, match="nothing can be written to "):
        load(f'[services.web]\n{SERVER}ocsp_staple = "auto"\nocsp_cache = "."')


def test_cas_may_be_in_a_folder_and_nothing_else_may(tmp_path: Path) -> None:
    folder = tmp_path / "cas"
    folder.mkdir()
    assert find_file("cas", tmp_path, may_be_folder=True) == folder
    with pytest.raises(ValueError, match="is a directory; name a file in it"):
        find_file("cas", tmp_path)


def test_a_link_that_leads_nowhere_is_not_called_absent(tmp_path: Path) -> None:
    (tmp_path / "link.pem").symlink_to("gone.pem")
    with pytest.raises(FileTroubleError, match="is a symbolic link to a file that does not exist; link it to another"):
        find_file("link.pem", tmp_path)
