"""Sessions resume whichever worker gets them and whatever was renewed, until it changes who is trusted."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import backends, certificates, clients
from tests.support.load import bid_farewell, dial, read_exactly, visit
from tests.support.site import Site, kill_and_wait, reload
from tests.support.tunnel import Tunnel
from tests.support.wire_peers import client_context

pytestmark = pytest.mark.slow


@pytest.fixture
def echo() -> Iterator[backends.Backend]:
    with backends.serve(backends.echo) as backend:
        yield backend


class Client:
    """A client with one session, which it offers again and again."""

    def __init__(self, daemon: Tunnel, site: Site, context: ssl.SSLContext) -> None:
        self._daemon, self._site, self.context = daemon, site, context
        self.session: ssl.SSLSession | None = None
        self.session = self._talk()[1]

    def _talk(self) -> tuple[bool, ssl.SSLSession | None, int]:
        """Connect once: whether it was resumed, the session, and the worker's row."""
        with dial(self._daemon.port, self.context, session=self.session) as sock:
            sock.sendall(b"x")
            read_exactly(sock, 1)  # and with it the ticket
            found = bool(sock.session_reused), sock.session, self._site.rows_by_port()[sock.getsockname()[1]]
            bid_farewell(sock)
        return found

    def assert_resumes_everywhere(self) -> None:
        """Connect until each of the two workers had it, resumed every time."""
        seen: set[int] = set()
        for _ in range(60):
            was_resumed, _, row = self._talk()
            assert was_resumed
            seen.add(row)
            if len(seen) == 2:
                return
        raise AssertionError(f"only workers {seen} were reached")

    def is_resumed(self) -> bool:
        """Whether the session is still good."""
        return self._talk()[0]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_session_resumes_in_every_worker_and_survives_whatever_is_renewed(
    version: str, tmp_path: Path, echo: backends.Backend
) -> None:
    site = Site(tmp_path, echo.port)
    with site.run(is_clean=False) as daemon:
        client = Client(daemon, site, client_context(version))
        client.assert_resumes_everywhere()
        site.install(certificates.server("localhost", key_type="RSA 2048"))
        assert reload(daemon).startswith("reloaded certificates")
        client.assert_resumes_everywhere()
        kill_and_wait(daemon, site.workers()[0])
        site.until(lambda metrics: metrics["tlstunnel_workers"] == 2, "two workers")
        client.assert_resumes_everywhere()
        site.write(idle_timeout='"2h"')
        assert reload(daemon).endswith("generation 2")
        client.assert_resumes_everywhere()
        kill_and_wait(daemon, site.workers()[0])
        site.until(lambda metrics: metrics["tlstunnel_workers"] == 2, "two workers")
        client.assert_resumes_everywhere()
        records = [record for record in daemon.records if record["reason"] == "finished"]
        assert [record["resumed"] for record in records] == [False] + [True] * (len(records) - 1)


def authenticated(folder: Path, backend: int, **options: str) -> Site:
    """A site that admits the client `billing` of the test CA."""
    site = Site(folder, backend)
    site.put("clients.pem", certificates.ca().certificate.read_bytes())
    site.write(
        client_auth='"required"', client_ca='"clients.pem"', allow='[{ cn = "billing" }, { cn = "audit" }]', **options
    )
    return site


def as_client(name: str) -> ssl.SSLContext:
    return client_context(pair=certificates.client(name))


def test_access_rules_are_evaluated_on_resumed_sessions(tmp_path: Path, echo: backends.Backend) -> None:
    site = authenticated(tmp_path, echo.port)
    with site.run() as daemon:
        client = Client(daemon, site, as_client("billing"))
        assert client.is_resumed()
        records = [daemon.record(), daemon.record()]
        assert [record["resumed"] for record in records] == [False, True]
        assert records[0]["identity"] == records[1]["identity"] != ""
        assert records[0]["rule"] == records[1]["rule"]
        assert "billing" in records[1]["rule"]


def test_a_session_of_one_name_opens_no_door_of_another(tmp_path: Path, echo: backends.Backend) -> None:
    site = authenticated(tmp_path, echo.port)
    names = ("localhost", "vault.example")
    site.install(certificates.server(*names))
    with site.config.open("a") as file:
        file.write(f'[[services.web.sni]]\nnames = ["{names[1]}"]\nallow = [{{ cn = "audit" }}]\n')
    with site.run() as daemon:
        context = as_client("billing")
        client = Client(daemon, site, context)
        assert client.is_resumed()
        with pytest.raises((OSError, EOFError)):
            visit(daemon.port, b"x", context, session=client.session, server_hostname=names[1])
        daemon.record(), daemon.record()
        denied = daemon.record()
        assert (denied["reason"], denied["server_name"]) == ("denied", names[1])
        assert client.is_resumed(), "where it was made it is still good"


@pytest.mark.parametrize("change", ["another CA", "a revocation list", "other access rules"])
def test_a_change_of_trust_ends_resumption_and_is_enforced(change: str, tmp_path: Path, echo: backends.Backend) -> None:
    site = authenticated(tmp_path, echo.port)
    with site.run() as daemon:
        billing = Client(daemon, site, as_client("billing"))
        audit = Client(daemon, site, as_client("audit"))
        assert billing.is_resumed()
        assert audit.is_resumed()
        ca = certificates.ca().certificate.read_bytes()
        if change == "another CA":
            # Both are still trusted, yet nothing that was decided under other CAs counts any more.
            site.put("clients.pem", ca + certificates.ca("a second CA").certificate.read_bytes())
        elif change == "a revocation list":
            site.put("revoked.pem", certificates.crl(certificates.client("billing").leaf).read_bytes())
            site.write(crl='"revoked.pem"')
        else:
            site.write(allow='[{ cn = "audit" }]')
        assert reload(daemon).startswith("reloaded")
        assert not audit.is_resumed()
        if change == "another CA":
            assert not billing.is_resumed()
            return
        with pytest.raises((OSError, EOFError)):
            billing.is_resumed()
        reason = "revoked" if change == "a revocation list" else "denied"
        daemon.until(lambda: [record for record in daemon.records if record["reason"] == reason], "the refusal")


def test_a_revocation_list_that_gets_longer_ends_resumption_in_every_worker(
    tmp_path: Path, echo: backends.Backend
) -> None:
    site = authenticated(tmp_path, echo.port)
    site.put("revoked.pem", certificates.crl().read_bytes())
    site.write(crl='"revoked.pem"')
    with site.run() as daemon:
        billing = Client(daemon, site, as_client("billing"))
        billing.assert_resumes_everywhere()
        site.put("revoked.pem", certificates.crl(certificates.client("billing").leaf).read_bytes())
        assert reload(daemon).startswith("reloaded certificates")
        for _ in range(12):
            with pytest.raises((OSError, EOFError)):
                billing.is_resumed()


def test_in_client_mode_a_change_of_trust_ends_resumption_with_the_backend(tmp_path: Path) -> None:
    pair = certificates.server("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(backends.serve(backends.echo, context=context))
        site = Site(tmp_path, backend.port, process_workers="1")
        site.put("ca.pem", certificates.ca().certificate.read_bytes())
        keys = {"mode": '"client"', "target": f'"localhost:{backend.port}"', "ca": '"ca.pem"'}
        site.write({"web": keys | {"certificate": "", "key": ""}})
        daemon = stack.enter_context(site.run())
        for was_resumed in (False, True):
            talk_in_plaintext(daemon.port)
            assert daemon.record()["resumed"] is was_resumed
        site.put("ca.pem", certificates.ca("somebody else").certificate.read_bytes())
        assert reload(daemon).startswith("reloaded certificates")
        with pytest.raises((OSError, EOFError, AssertionError)):
            talk_in_plaintext(daemon.port)
        assert daemon.record()["reason"] == "unknown_ca"


def talk_in_plaintext(port: int) -> None:
    with clients.raw(port) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        sock.shutdown(1)
        assert sock.recv(1) == b""
