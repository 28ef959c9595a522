"""What the daemon tells a target of its client in version 2 of the PROXY protocol, as Wireshark's dissector reads it.

HAProxy reads addresses, authority, unique id and checksum (`test_proxy_daemon_peers`); the rest only Wireshark shows.
The bytes are those that a target of the running daemon got; text2pcap makes a packet of them.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from tests.support import backends, openssl_ca, services
from tests.support.interop import require
from tests.support.openssl_ca import Authority
from tests.support.services import GREETING, Services, ask

pytestmark = [pytest.mark.interop, pytest.mark.slow]

ALPN, AUTHORITY, CRC32C, UNIQUE_ID, OF_SSL = 1, 2, 3, 5, 0x20
IS_TLS, CERTIFICATE_NOW, CERTIFICATE_IN_SESSION = 1, 2, 4
"""Flags of the SSL TLV's client field (section 2.2.6)."""


class Headers:
    """A backend's handler that keeps the PROXY headers it gets."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    def __call__(self, sock: socket.socket) -> None:
        data = b""
        while len(data) < 16 or len(data) < 16 + int.from_bytes(data[14:16], "big"):
            piece = sock.recv(4096)
            assert piece, data
            data += piece
        self.kept.append(data[: 16 + int.from_bytes(data[14:16], "big")])
        services.greet(sock)


@pytest.fixture(scope="module")
def headers() -> Headers:
    return Headers()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return openssl_ca.make(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, authority: Authority, headers: Headers) -> Iterator[Services]:
    pair = authority.issue("localhost", "subjectAltName=DNS:localhost")
    case = (
        f'certificate = "{pair.certificate}"\nkey = "{pair.key}"\nproxy_protocol = "v2"\nalpn = ["postgresql", "x"]\n'
        f'client_auth = "optional"\nallow_any = true\nclient_ca = "{authority.certificate}"'
    )
    with backends.serve(headers) as backend:
        folder = tmp_path_factory.mktemp("web")
        cases = {"web": case, "six": f'{case}\nlisten = "[::1]:0"', "unix": f'{case}\nlisten = "unix:{folder}/front"'}
        with services.run(folder, backend.port, cases) as found:
            yield found


def dissected(header: bytes, folder: Path, *fields: str) -> dict[str, list[str]]:
    """What tshark reads in the first bytes of a connection."""
    dump, capture = folder / "dump", folder / "capture.pcap"
    dump.write_text(f"000000 {header.hex(' ')}\n")
    subprocess.run(
        [require("text2pcap"), "-q", "-T", "40000,4000", str(dump), str(capture)], check=True, capture_output=True
    )
    command = [require("tshark"), "-r", str(capture), "-o", "tcp.try_heuristic_first:TRUE", "-T", "fields"]
    names = ["proxy.v2.tlv.type", "_ws.malformed", *(f"proxy.{field}" for field in fields)]
    words = [word for name in names for word in ("-e", name)]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=True)
    values = [value.split(",") if value else [] for value in done.stdout.rstrip("\n").split("\t")]
    found = dict(zip(names, values, strict=True))
    assert found["_ws.malformed"] == []
    return {name.removeprefix("proxy."): value for name, value in found.items()}


def _of_proxy(kinds: list[int]) -> list[int]:
    """The TLVs of the header itself. Wireshark 4.0 stops behind the SSL one; 4.4 lists the checksum at the end, too."""
    return [kind for kind in kinds if kind <= OF_SSL and kind != CRC32C]


TLS = ("v2.tlv.ssl.client", "v2.tlv.ssl.verify", "v2.tlv.ssl.version", "v2.tlv.ssl.cn", "v2.tlv.ssl.cipher")


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_wireshark_reads_every_tlv(
    running: Services, authority: Authority, headers: Headers, tmp_path: Path, version: str
) -> None:
    pair = authority.issue("billing", subject="/OU=finance/CN=billing")
    session = str(tmp_path / "session")
    option = "-" + version.lower().replace("v", "").replace(".", "_")
    seen = []
    for words, with_pair in ((("-sess_out", session), True), (("-sess_in", session), True), ((), False)):
        said = ask(
            running.at("web"), authority.certificate, option, "-alpn", "x", *words, pair=pair if with_pair else None
        )
        assert GREETING in said.text
        record = running.record()
        found = dissected(
            headers.kept[-1], tmp_path, "v2.version", "v2.cmd", "v2.addr_family", "v2.protocol", "src.ipv4", "dst.ipv4",
            "srcport", "dstport", "v2.tlv.value", *TLS,
        )  # fmt: skip
        kinds = [int(kind, 0) for kind in found["v2.tlv.type"]]
        assert _of_proxy(kinds) == [ALPN, AUTHORITY, UNIQUE_ID, OF_SSL]
        assert headers.kept[-1][-7:-4] == bytes((CRC32C, 0, 4))
        assert record["server_name"] == "localhost"  # also where the session is resumed
        host, port = record["client"].split(":")
        assert (found["v2.version"], found["v2.cmd"]) == (["2"], ["1"])  # PROXY, not LOCAL
        assert (found["src.ipv4"], found["srcport"]) == ([host], [port])
        assert (found["dst.ipv4"], found["dstport"]) == (["127.0.0.1"], [str(running.at("web"))])
        values = [bytes.fromhex(value.replace(":", "")) for value in found["v2.tlv.value"]]
        assert {b"x", b"localhost", record["id"].encode()} <= set(values)
        assert found["v2.tlv.ssl.version"] == [version] == [record["version"]]
        assert found["v2.tlv.ssl.cipher"] == [record["cipher"]]
        seen.append((
            int(found["v2.tlv.ssl.client"][0], 0), int(found["v2.tlv.ssl.verify"][0], 0) == 0,
            found["v2.tlv.ssl.cn"], record["resumed"],
        ))  # fmt: skip
    assert seen == [
        (IS_TLS | CERTIFICATE_NOW | CERTIFICATE_IN_SESSION, True, ["billing"], False),
        (IS_TLS | CERTIFICATE_IN_SESSION, True, ["billing"], True),
        (IS_TLS, False, [], False),
    ]


def test_of_several_common_names_none_is_told(
    running: Services, authority: Authority, headers: Headers, tmp_path: Path
) -> None:
    """Whoever reads one name takes it for the only one."""
    pair = authority.issue("two", subject="/CN=admin/CN=guest")
    assert GREETING in ask(running.at("web"), authority.certificate, pair=pair).text
    assert running.record()["rule"] == "allow_any"
    found = dissected(headers.kept[-1], tmp_path, *TLS)
    assert found["v2.tlv.ssl.cn"] == []
    assert int(found["v2.tlv.ssl.verify"][0], 0) == 0


def test_ipv6_addresses_are_told_as_such(
    running: Services, authority: Authority, headers: Headers, tmp_path: Path
) -> None:
    sock = socket.create_connection(("::1", running.at("six")), 60)
    here = sock.getsockname()
    with ssl.create_default_context(cafile=authority.certificate).wrap_socket(sock, server_hostname="localhost") as tls:
        assert tls.recv(100).startswith(GREETING.encode())
    running.record()
    found = dissected(headers.kept[-1], tmp_path, "src.ipv6", "dst.ipv6", "srcport", "dstport")
    assert (found["src.ipv6"], found["dst.ipv6"]) == (["::1"], ["::1"])
    assert (found["srcport"], found["dstport"]) == ([str(here[1])], [str(running.at("six"))])


def test_of_a_client_on_a_unix_socket_everything_but_an_address_is_told(
    running: Services, authority: Authority, headers: Headers, tmp_path: Path
) -> None:
    """LOCAL and without a family, as HAProxy 2.6 writes it: a family of unix sockets it refuses."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(str(running.config.parent / "front"))
    with ssl.create_default_context(cafile=authority.certificate).wrap_socket(sock, server_hostname="localhost") as tls:
        assert tls.recv(100).startswith(GREETING.encode())
    record = running.record()
    header = headers.kept[-1]
    assert header[12:14] == b"\x20\0"
    # Wireshark reads no TLVs of a header that is LOCAL; as one of IPv4 it does.
    told = header[:12] + b"\x21\x11" + (len(header) - 4).to_bytes(2, "big") + bytes(12) + header[16:]
    found = dissected(told, tmp_path, "v2.tlv.value", *TLS)
    kinds = [int(kind, 0) for kind in found["v2.tlv.type"]]
    assert _of_proxy(kinds) == [AUTHORITY, UNIQUE_ID, OF_SSL]
    assert found["v2.tlv.ssl.version"] == [record["version"]]


@pytest.mark.parametrize(("size", "is_told"), [(1000, True), (2000, False), (60_000, False)])
def test_a_common_name_that_no_header_can_hold_is_left_out_and_that_is_in_the_log(
    running: Services, authority: Authority, headers: Headers, tmp_path: Path, size: int, is_told: bool
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is too long, indeed
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "n" * size, _validate=False)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer.subject).public_key(key.public_key())
    builder = builder.not_valid_before(issuer.not_valid_before_utc).not_valid_after(issuer.not_valid_after_utc)
    signer = load_pem_private_key((authority.folder / "ca.key").read_bytes(), None)
    signed = builder.serial_number(7).sign(signer, hashes.SHA256())  # type: ignore[arg-type]
    pair = openssl_ca.Pair(tmp_path / "long.pem", tmp_path / "long.key")
    pair.certificate.write_bytes(signed.public_bytes(Encoding.PEM))
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert GREETING in ask(running.at("web"), authority.certificate, pair=pair).text
    record = running.record()
    assert record["stage"] == "link"
    found = dissected(headers.kept[-1], tmp_path, *TLS)
    assert found["v2.tlv.ssl.cn"] == (["n" * size] if is_told else [])
    assert int(found["v2.tlv.ssl.verify"][0], 0) == 0
    detail = f"its common name of {size} characters is too long to be handed to the target"
    assert record["detail"] == (None if is_told else detail)
