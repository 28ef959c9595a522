"""Files that change are noticed without a word, and used only when they are whole and fit together."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import backends, certificates
from tests.support.load import dial, visitors
from tests.support.site import Site, reload, reloads
from tests.support.tunnel import Tunnel
from tests.support.wire_peers import client_context

pytestmark = pytest.mark.slow

OLD = certificates.server("localhost", "127.0.0.1")


def new_pair() -> certificates.Pair:
    return certificates.server("localhost", key_type="ECDSA P-384")


@pytest.fixture
def echo() -> Iterator[backends.Backend]:
    with backends.serve(backends.echo) as backend:
        yield backend


def served(daemon: Tunnel) -> str:
    """The fingerprint of the certificate that is shown."""
    with dial(daemon.port, client_context()) as sock:
        shown = sock.getpeercert(True)
    assert shown
    return hashlib.sha256(shown).hexdigest()


def fingerprint(pair: certificates.Pair) -> str:
    return hashlib.sha256(pair.leaf_der).hexdigest()


def wait_for_reload(daemon: Tunnel) -> str:
    daemon.until(lambda: reloads(daemon), "a reload")
    return reloads(daemon)[0]


def test_new_certificates_are_noticed_and_used(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port, process_reload_poll='"200ms"')
    with site.run() as daemon, visitors(daemon.port, count=1) as crowd:
        assert served(daemon) == fingerprint(OLD)
        site.install(new_pair())
        assert wait_for_reload(daemon) == "reloaded certificates, keys, CAs and revocation lists"
        assert served(daemon) == fingerprint(new_pair())
        crowd.wait_for(2)
        metrics = site.metrics()
        assert metrics['tlstunnel_config_reloads_total{result="success"}'] == 1
        assert metrics['tlstunnel_config_reloads_total{result="failure"}'] == 0


def test_a_swapped_symlink_is_noticed_as_kubernetes_does_it(tmp_path: Path, echo: backends.Backend) -> None:
    """There the files are links to links: `web.pem -> ..data/web.pem`, `..data -> ..2026_1`, and `..data` swapped."""
    site = Site(tmp_path, echo.port, process_reload_poll='"200ms"')
    for number, pair in ((1, OLD), (2, new_pair())):
        folder = tmp_path / f"..2026_{number}"
        folder.mkdir()
        shutil.copy(pair.certificate, folder / "web.pem")
        shutil.copy(pair.key, folder / "web.key")
    (tmp_path / "..data").symlink_to("..2026_1")
    for name in ("web.pem", "web.key"):
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to(f"..data/{name}")
    with site.run() as daemon:
        assert served(daemon) == fingerprint(OLD)
        (tmp_path / "..data_tmp").symlink_to("..2026_2")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        shutil.rmtree(tmp_path / "..2026_1")
        assert wait_for_reload(daemon).startswith("reloaded certificates")
        assert served(daemon) == fingerprint(new_pair())


def test_a_file_seen_half_written_is_waited_for(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port, process_reload_poll='"100ms"')
    both = new_pair().combined.read_bytes()
    site.put("web.pem", OLD.combined.read_bytes())
    site.write(key='"web.pem"')
    with site.run() as daemon:
        with (tmp_path / "web.pem").open("wb") as file:
            file.write(both[:100])
            file.flush()
            assert "web.pem" in daemon.message("reload", "files have changed and cannot be used yet")["message"]
            assert served(daemon) == fingerprint(OLD)
            file.write(both[100:])
        assert wait_for_reload(daemon).startswith("reloaded certificates")
        assert served(daemon) == fingerprint(new_pair())
        assert site.metrics()['tlstunnel_config_reloads_total{result="failure"}'] == 0


@pytest.mark.parametrize("first", ["web.pem", "web.key"])
def test_a_certificate_and_its_key_change_together_or_not_at_all(
    first: str, tmp_path: Path, echo: backends.Backend
) -> None:
    site = Site(tmp_path, echo.port, process_reload_poll='"100ms"')
    files = {"web.pem": new_pair().certificate.read_bytes(), "web.key": new_pair().key.read_bytes()}
    with site.run() as daemon:
        site.put(first, files.pop(first))
        daemon.message("reload", "files have changed and cannot be used yet")
        assert served(daemon) == fingerprint(OLD)
        for name, content in files.items():
            site.put(name, content)
        assert wait_for_reload(daemon).startswith("reloaded certificates")
        assert served(daemon) == fingerprint(new_pair())


def test_a_pair_that_stays_mismatched_is_reported_once_and_the_old_one_served(
    tmp_path: Path, echo: backends.Backend
) -> None:
    site = Site(tmp_path, echo.port, process_reload_poll='"100ms"')
    with site.run() as daemon:
        site.put("web.key", new_pair().key.read_bytes())
        assert wait_for_reload(daemon).startswith("reload failed, nothing changed: ")
        assert served(daemon) == fingerprint(OLD)
        assert site.metrics()["tlstunnel_config_last_reload_successful"] == 0
        site.install(new_pair())
        daemon.until(lambda: len(reloads(daemon)) > 1, "a second reload")
        assert reloads(daemon)[1].startswith("reloaded certificates"), "and nothing in between"
        assert served(daemon) == fingerprint(new_pair())


def test_a_configuration_is_never_taken_up_unasked(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port, process_reload_poll='"100ms"')
    with site.run() as daemon:
        site.write({"web": {}, "unfinished": {}})
        site.install(new_pair())
        assert wait_for_reload(daemon).startswith("reloaded certificates")
        assert [each["name"] for each in site.status()["services"]] == ["web"]
        assert reload(daemon).endswith("generation 2"), "SIGHUP is how one asks"
        assert [each["name"] for each in site.status()["services"]] == ["web", "unfinished"]


def test_a_new_generation_s_files_are_watched_too(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port, process_reload_poll='"100ms"')
    with site.run() as daemon:
        site.install(OLD, "second")
        site.write(certificate='"second.pem"', key='"second.key"')
        assert reload(daemon).endswith("generation 2")
        site.install(new_pair(), "second")
        daemon.until(lambda: len(reloads(daemon)) > 1, "a second reload")
        assert served(daemon) == fingerprint(new_pair())
