"""OCSP stapling with responses and a responder of openssl(1), judged by the eyes of `openssl s_client -status`."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import openssl_ca, peers, tunnel
from tests.support.backends import echo
from tests.support.interop import require
from tests.support.openssl_ca import Authority, Pair
from tests.support.traffic import backend

pytestmark = [pytest.mark.interop, pytest.mark.slow]

PORT = "127.0.0.1:0"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return openssl_ca.make(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("localhost", "subjectAltName=DNS:localhost", with_issuer=True)


@pytest.fixture(scope="module")
def service() -> Iterator[int]:
    with backend(echo) as running:
        yield running.port


def status(port: int, authority: Authority, *options: str) -> str:
    """What `openssl s_client -status` sees of the staple: "good", "revoked" or "none"; it verifies the signature."""
    command = [require("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-status"]
    done = subprocess.run(
        [*command, "-CAfile", str(authority.certificate), "-verify_return_error", *options],
        input="", capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "Verify return code: 0 (ok)" in done.stdout, done.stdout + done.stderr
    if "OCSP response: no response sent" in done.stdout:
        return "none"
    assert "OCSP Response Status: successful" in done.stdout, done.stdout
    return re.findall(r"Cert Status: (\w+)", done.stdout)[0]


def metrics(daemon: tunnel.Tunnel, port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as page:
        lines = [line.decode().rpartition(" ") for line in page if line.startswith(b"tlstunnel_ocsp")]
    return {name: float(value) for name, _, value in lines}


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_response_from_a_file_is_stapled_for_clients_that_ask(
    authority: Authority, pair: Pair, service: int, version: str
) -> None:
    answer = authority.answer(pair, "-ndays", "7")
    with tunnel.server(service, "--ocsp-response", str(answer), pair=pair) as daemon:  # type: ignore[arg-type]
        assert status(daemon.port, authority, version) == "good"
        assert daemon.record()["reason"] == "finished"


def test_a_delegate_of_the_issuer_may_sign(authority: Authority, pair: Pair, service: int) -> None:
    delegate = authority.issue("delegate", "extendedKeyUsage=OCSPSigning", "keyUsage=digitalSignature")
    answer = authority.answer(pair, "-ndays", "7", signer=delegate, name="delegated")
    with tunnel.server(service, "--ocsp-response", str(answer), pair=pair) as daemon:  # type: ignore[arg-type]
        assert status(daemon.port, authority) == "good"


def refusal(service: int, pair: Pair, answer: Path) -> str:
    command = [
        "server", "--listen", PORT, "--target", f"127.0.0.1:{service}", "--cert", str(pair.certificate),
        "--key", str(pair.key), "--ocsp-response", str(answer),
    ]  # fmt: skip
    done = subprocess.run(
        [tunnel.sys.executable, "-m", "tlstunnel", *command], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2, done.stderr
    return done.stderr.replace(str(answer), "FILE").replace(str(pair.certificate), "CERT").strip()


def test_what_is_no_proof_stops_the_start_with_one_line(
    authority: Authority, pair: Pair, service: int, tmp_path: Path
) -> None:
    said = {}
    other = authority.issue("other", with_issuer=True)
    said["for another"] = refusal(service, pair, authority.answer(other, "-ndays", "7", name="other"))
    stranger = authority.issue("stranger")
    forged = authority.answer(pair, "-ndays", "7", signer=stranger, name="forged")
    said["signed by a stranger"] = refusal(service, pair, forged)
    broken = tmp_path / "broken"
    broken.write_bytes(authority.answer(pair, "-ndays", "7", "-resp_no_certs").read_bytes()[:-9] + bytes(9))
    said["broken signature"] = refusal(service, pair, broken)
    broken.write_bytes(b"<html>not found</html>")
    said["no response"] = refusal(service, pair, broken)
    alone = authority.issue("localhost", "subjectAltName=DNS:localhost")
    said["no issuer"] = refusal(service, alone, authority.answer(alone, "-ndays", "7", name="alone"))
    authority.revoke(other)
    said["revoked"] = refusal(service, other, authority.answer(other, "-ndays", "7", name="revoked"))
    golden = Path(__file__).parent.parent / "golden" / "refusals" / "ocsp.txt"
    text = "".join(f"{name}: {line}\n" for name, line in said.items())
    if tunnel.os.environ.get("UPDATE_GOLDEN") == "1":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


def test_a_new_response_is_used_after_a_reload_and_a_bad_one_changes_nothing(
    authority: Authority, pair: Pair, service: int, tmp_path: Path
) -> None:
    answer = tmp_path / "response"
    answer.write_bytes(authority.answer(pair, "-nmin", "1", name="short").read_bytes())
    fresh = authority.answer(pair, "-ndays", "7", name="fresh").read_bytes()
    with tunnel.server(service, "--ocsp-response", str(answer), pair=pair) as daemon:  # type: ignore[arg-type]
        assert status(daemon.port, authority) == "good"
        answer.write_bytes(fresh)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.message("reload", "reloaded")
        assert status(daemon.port, authority) == "good"
        answer.write_bytes(b"nonsense")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.message("reload", "reload failed, nothing changed")
        assert status(daemon.port, authority) == "good"


@pytest.fixture
def named(authority: Authority) -> tuple[Pair, int]:
    """A certificate that names a responder at a port where nobody answers yet."""
    port = peers.free_port()
    access = f"authorityInfoAccess=OCSP;URI:http://127.0.0.1:{port}/"
    return authority.issue("localhost", "subjectAltName=DNS:localhost", access, with_issuer=True), port


def test_a_response_is_fetched_stapled_cached_and_shown(
    authority: Authority, named: tuple[Pair, int], service: int, tmp_path: Path
) -> None:
    pair, port = named
    admin = peers.free_port()
    options = ["--ocsp-staple", "auto", "--ocsp-cache", str(tmp_path), "--admin", f"127.0.0.1:{admin}"]
    with (
        authority.responder("-ndays", "2", port=port),
        tunnel.server(service, *options, "--workers", "2", pair=pair) as daemon,  # type: ignore[arg-type]
    ):
        said = daemon.message("ocsp", "good, until")["message"]
        assert said.startswith(f"{pair.certificate}: http://127.0.0.1:{port}/ says that it is good, until ")
        assert {status(daemon.port, authority) for _ in range(4)} == {"good"}
        shown = metrics(daemon, admin)
        assert shown['tlstunnel_ocsp_staple_failures_total{service="server"}'] == 0
        until = shown[
            f'tlstunnel_ocsp_staple_next_update_timestamp_seconds{{file="{pair.certificate}",service="server"}}'
        ]
        left_s = until - tunnel.time.time()
        assert 2 * 86400 - 300 < left_s <= 2 * 86400
        # A worker that is replaced has it from the start, and so has a reload's.
        daemon.process.send_signal(signal.SIGHUP)
        daemon.message("reload", "reloaded")
        assert status(daemon.port, authority) == "good"
    assert len(list(tmp_path.glob("*.ocsp"))) == 1
    # Nobody answers now: what was kept is used from the first connection on.
    with tunnel.server(service, *options, pair=pair) as daemon:  # type: ignore[arg-type]
        assert status(daemon.port, authority) == "good"
        assert not [message for message in daemon.messages if message["event"] == "ocsp"]


def test_a_silent_responder_is_counted_and_the_tunnel_works_without_it(
    authority: Authority, named: tuple[Pair, int], service: int
) -> None:
    pair, port = named
    admin = peers.free_port()
    options = ["--ocsp-staple", "auto", "--admin", f"127.0.0.1:{admin}"]
    with tunnel.server(service, *options, pair=pair) as daemon:  # type: ignore[arg-type]
        said = daemon.message("ocsp")["message"]
        assert said == (
            f"{pair.certificate}: http://127.0.0.1:{port}/: no answer (connection refused); "
            "there is no OCSP response to staple; asking again in 60 s"
        )
        assert status(daemon.port, authority) == "none"
        shown = metrics(daemon, admin)
        assert shown['tlstunnel_ocsp_staple_failures_total{service="server"}'] == 1
        gauge = f'tlstunnel_ocsp_staple_next_update_timestamp_seconds{{file="{pair.certificate}",service="server"}}'
        assert shown[gauge] == 0


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "the answer is not an OCSP response in DER, or damaged"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "no answer (answered 404)"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(70_000), "no answer (answered more than 65536 bytes)"),
        (b"SSH-2.0-OpenSSH\r\n", "no answer (ssh-2.0-openssh"),
        (b"", "no answer (remote end closed connection without response)"),
    ],
)
def test_nonsense_of_a_responder_is_named_and_nothing_is_stapled(
    authority: Authority, named: tuple[Pair, int], service: int, answer: bytes, why: str
) -> None:
    pair, port = named

    def respond(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(answer)

    with (
        socket.create_server(("127.0.0.1", port)) as listener,
        tunnel.server(service, "--ocsp-staple", "auto", pair=pair) as daemon,  # type: ignore[arg-type]
    ):
        listener.settimeout(60)
        sock, _ = listener.accept()
        with sock:
            respond(sock)
        assert why in daemon.message("ocsp")["message"]
        assert status(daemon.port, authority) == "none"


def test_a_revoked_certificate_is_told_and_not_stapled(
    authority: Authority, named: tuple[Pair, int], service: int
) -> None:
    pair, port = named
    authority.revoke(pair)
    with (
        authority.responder(port=port),
        tunnel.server(service, "--ocsp-staple", "auto", pair=pair) as daemon,  # type: ignore[arg-type]
    ):
        said = daemon.message("ocsp")["message"]
        assert "the answer says that the certificate is revoked; replace the certificate" in said
        assert status(daemon.port, authority) == "none"


def test_a_must_staple_certificate_without_a_response_is_warned_of(authority: Authority, service: int) -> None:
    pair = authority.issue("localhost", "subjectAltName=DNS:localhost", "tlsfeature=status_request", with_issuer=True)
    with tunnel.server(service, pair=pair) as daemon:  # type: ignore[arg-type]
        said = daemon.message("config", "must-staple")["message"]
        assert said == (
            f"{pair.certificate}: demands a stapled OCSP response (must-staple) and none is given; "
            'set ocsp_staple to "auto"'
        )
    answer = authority.answer(pair, "-ndays", "7", name="must")
    with tunnel.server(service, "--ocsp-response", str(answer), pair=pair) as daemon:  # type: ignore[arg-type]
        assert status(daemon.port, authority) == "good"
        assert "must-staple" not in daemon.text


def test_the_asker_holds_no_descriptor_but_its_three_and_no_privilege(
    authority: Authority, named: tuple[Pair, int], service: int
) -> None:
    """It talks to strangers: what it does not have it cannot lose."""
    pair, port = named
    with (
        socket.create_server(("127.0.0.1", port)) as listener,
        tunnel.server(service, "--ocsp-staple", "auto", pair=pair) as daemon,  # type: ignore[arg-type]
    ):
        listener.settimeout(60)
        sock, _ = listener.accept()
        with sock:
            asker = next(pid for pid in daemon.children() if "responder.py" in Path(f"/proc/{pid}/cmdline").read_text())
            fds = {fd.name: fd.readlink() for fd in Path(f"/proc/{asker}/fd").iterdir()}
            kinds = sorted(str(target).partition(":")[0] for target in fds.values())
            assert kinds == ["/dev/null", "/dev/null", "/memfd", "socket"], fds
            facts = Path(f"/proc/{asker}/status").read_text()
            assert re.search(r"^CapEff:\s+0+$", facts, re.MULTILINE)
            assert re.search(r"^NoNewPrivs:\s+1$", facts, re.MULTILINE)
            assert Path(f"/proc/{asker}/environ").read_bytes() == b""
