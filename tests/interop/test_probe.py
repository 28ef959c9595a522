"""`tlstunnel probe` against servers we did not write, beside what sslscan and testssl find on the same servers."""

from __future__ import annotations

import contextlib
import json
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import certificates, tls_servers, tunnel
from tests.support.interop import require
from tlstunnel.address import TCPAddress
from tlstunnel.tools.probe import suites
from tlstunnel.tools.probe.findings import Findings, Severity
from tlstunnel.tools.probe.survey import Request, probe
from tlstunnel.tools.tls13.names import version_name

pytestmark = [pytest.mark.interop, pytest.mark.slow]
Start = Callable[[], contextlib.AbstractContextManager[int]]
_WEAK = "ALL:eNULL:@SECLEVEL=0"
_VERSIONS = {
    ("ssl", "2"): "SSL 2.0", ("ssl", "3"): "SSL 3.0", ("tls", "1.0"): "TLS 1.0", ("tls", "1.1"): "TLS 1.1",
    ("tls", "1.2"): "TLS 1.2", ("tls", "1.3"): "TLS 1.3",
}  # fmt: skip


def look(port: int, **what: Any) -> Findings:
    """Probe localhost, trusting the test CA."""
    request = {"target": TCPAddress("localhost", port), "ca": certificates.ca().certificate} | what
    found = probe(Request(**request))
    assert not found.incomplete, found.incomplete
    return found


def ids(found: Findings) -> dict[str, Severity]:
    """The weaknesses by name."""
    return {each.id: each.severity for each in found.weaknesses}


def offered(found: Findings) -> set[str]:
    return {each.name for each in found.versions if each.offered}


SERVERS: dict[str, Start] = {
    "OpenSSL as it comes": tls_servers.openssl,
    "OpenSSL with everything": lambda: tls_servers.openssl(
        "-cipher", _WEAK, "-serverpref", settings=tls_servers.ANYTHING_GOES, pair=tls_servers.rsa_pair()
    ),
    "OpenSSL, TLS 1.2 alone": lambda: tls_servers.openssl("-tls1_2", pair=tls_servers.rsa_pair()),
    "OpenSSL, TLS 1.0 alone": lambda: tls_servers.openssl(
        "-tls1", "-cipher", _WEAK, settings=tls_servers.ANYTHING_GOES, pair=tls_servers.rsa_pair("RSA 1024")
    ),
    "OpenSSL, TLS 1.3 alone": lambda: tls_servers.openssl("-tls1_3"),
    "nginx": lambda: tls_servers.nginx("ssl_protocols TLSv1.2 TLSv1.3; ssl_prefer_server_ciphers on;"),
    "HAProxy": lambda: tls_servers.haproxy("alpn h2,http/1.1", pair=tls_servers.rsa_pair()),
    "GnuTLS": lambda: tls_servers.gnutls("NORMAL:+VERS-TLS1.0:+VERS-TLS1.1:+3DES-CBC", pair=tls_servers.rsa_pair()),
}


@pytest.mark.parametrize("start", SERVERS.values(), ids=SERVERS.keys())
def test_versions_suites_and_groups_are_those_sslscan_finds(start: Start) -> None:
    program = require("sslscan")
    with start() as port:
        found = look(port)
        command = [program, "--xml=-", "--no-colour", "--no-heartbleed", "--sni-name=localhost", f"127.0.0.1:{port}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    theirs = ET.fromstring(done.stdout)  # noqa: S314 - it is written by a program we started
    protocols = {_VERSIONS[each.attrib["type"], each.attrib["version"]]: each for each in theirs.iter("protocol")}
    assert offered(found) == {name for name, each in protocols.items() if each.attrib["enabled"] == "1"}
    seen: dict[str, dict[int, ET.Element]] = {}
    for each in theirs.iter("cipher"):
        name = each.attrib["sslversion"].replace("TLSv", "TLS ")
        seen.setdefault(name, {})[int(each.attrib["id"], 16)] = each
    assert {each.version: {suite.id for suite in each.suites} for each in found.ciphers} == {
        name: set(listed) for name, listed in seen.items()
    }
    for listed in found.ciphers:
        for suite in listed.suites:
            their = seen[listed.version][suite.id]
            bits = int(their.attrib["bits"])
            # From 3.2 on OpenSSL counts the suites with CCM_8 by their tag.
            assert suite.bits in (bits, 56, 112) or (suite.name.endswith("CCM_8") and bits == 64), suite
            if "dhebits" in their.attrib:
                assert suite.key_exchange == f"DH {their.attrib['dhebits']}"
    their_groups: dict[str, set[int]] = {}
    for each in theirs.iter("group"):
        name = each.attrib["sslversion"].replace("TLSv", "TLS ")
        their_groups.setdefault(name, set()).add(int(each.attrib["id"], 16))
    for listed_groups in found.groups:
        ours = {each.id for each in listed_groups.groups}
        theirs_here = their_groups.get(listed_groups.version, ours)
        if listed_groups.version == "TLS 1.2" and found.chains[0].certificates[0]["key"].startswith("ECDSA"):
            # sslscan offers each group alone, so that a server with a key on P-256 refuses all others.
            assert theirs_here == {23}
            assert theirs_here < ours
        else:
            # Making a key in ffdhe8192 takes so long that sslscan gives up on it where the machine is busy, and it asks
            # for no post-quantum group.
            assert ours - theirs_here <= {260, 0x11EC}
            assert theirs_here <= ours
    renegotiation = theirs.find(".//renegotiation")
    if renegotiation is not None and renegotiation.attrib["secure"] == "1":
        # Its "0" also stands for a server that renegotiates for nobody.
        assert found.features.secure_renegotiation


def test_versions_order_and_protocols_are_those_testssl_finds(tmp_path: Path) -> None:
    program = require("testssl")
    ciphers = "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:AES128-SHA"
    directives = f"ssl_protocols TLSv1.2 TLSv1.3; ssl_prefer_server_ciphers on; ssl_ciphers {ciphers};"
    report = tmp_path / "testssl.json"
    with tls_servers.nginx(directives, pair=tls_servers.rsa_pair()) as port:
        found = look(port)
        command = [program, "--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--mapping", "iana"]
        command += ["--jsonfile", str(report), "-p", "-P", f"127.0.0.1:{port}"]
        subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL)
    theirs = {each["id"]: each["finding"] for each in json.loads(report.read_text())}
    names = {"SSLv2": "SSL 2.0", "SSLv3": "SSL 3.0", "TLS1": "TLS 1.0", "TLS1_1": "TLS 1.1", "TLS1_2": "TLS 1.2"}
    assert {ours for name, ours in names.items() if theirs[name].startswith("offered")} == offered(found) - {"TLS 1.3"}
    assert theirs["TLS1_3"].startswith("offered")
    assert theirs["cipher_order"] == "server"
    assert [each.order for each in found.ciphers] == ["server", "server"]
    for listed in found.ciphers:
        key = f"cipherorder_{listed.version.replace(' ', 'v').replace('.', '_')}"
        assert [suite.name for suite in listed.suites] == theirs[key].split()
    assert theirs["ALPN_HTTP2"] == "h2"
    assert found.alpn.protocols[0] == "h2"
    assert found.alpn.refuses_others


def test_our_own_tunnel_has_no_weakness_and_a_post_quantum_group() -> None:
    with tunnel.server("127.0.0.1:9") as daemon:
        found = look(daemon.port)
    assert found.weaknesses == []
    assert offered(found) == {"TLS 1.3", "TLS 1.2"}
    assert found.groups[0].groups[0].name == "X25519MLKEM768"
    assert found.groups[0].groups[0].post_quantum
    assert found.resumption.psk
    assert found.resumption.ticket
    assert found.client_certificate.requested is False
    assert found.chains[0].verifies
    assert found.timings_ms.handshake is not None


@pytest.mark.parametrize("auth", ["optional", "required"])
def test_our_own_tunnel_says_whose_certificates_it_wants(auth: str) -> None:
    ca = str(certificates.ca().certificate)
    with tunnel.server("127.0.0.1:9", "--client-auth", auth, "--client-ca", ca, "--allow-any") as daemon:
        found = look(daemon.port)
    wanted = found.client_certificate
    assert wanted.requested
    assert wanted.required is (auth == "required")
    assert wanted.authorities == ["CN=tlstunnel test CA"]


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("how", ["-verify", "-Verify"])
def test_a_request_for_a_client_certificate_is_seen_in_every_version(version: str, how: str) -> None:
    ca = str(certificates.ca().certificate)
    with tls_servers.openssl(version, how, "1", "-CAfile", ca, "-verify_return_error") as port:
        found = look(port)
    wanted = found.client_certificate
    assert wanted.requested
    assert wanted.required is (how == "-Verify")
    assert wanted.authorities == ["CN=tlstunnel test CA"]


def test_weak_servers_are_called_weak() -> None:
    pair = certificates.server("localhost", "127.0.0.1", key_type="RSA 1024")
    settings = tls_servers.ANYTHING_GOES
    groups = ("-groups", "P-256:P-384")  # OpenSSL 3.5 has a post-quantum group as it comes
    with tls_servers.openssl("-cipher", _WEAK, "-serverpref", *groups, settings=settings, pair=pair) as port:
        found = look(port)
    weak = ids(found)
    assert weak["cipher-null"] is Severity.CRITICAL
    assert weak["cipher-anonymous"] is Severity.CRITICAL
    assert weak["key-weak"] is Severity.HIGH
    assert weak["tls1.0"] is Severity.MEDIUM
    assert weak["tls1.1"] is Severity.MEDIUM
    assert weak["dh-weak"] is Severity.HIGH
    assert {"no-forward-secrecy", "cipher-cbc", "cipher-md5", "sha1-signature", "no-post-quantum"} <= set(weak)
    severities = [each.severity for each in found.weaknesses]
    assert severities == sorted(severities, reverse=True)


def test_resumption_of_either_kind_is_told_apart() -> None:
    with tls_servers.openssl("-tls1_2", "-no_ticket") as port:
        by_id = look(port).resumption
    with tls_servers.openssl("-tls1_2", "-no_cache") as port:
        by_ticket = look(port).resumption
    assert (by_id.session_id, by_id.ticket, by_id.psk) == (True, False, None)
    assert (by_ticket.session_id, by_ticket.ticket) == (False, True)


def test_early_data_and_tickets_of_tls13_are_seen() -> None:
    with tls_servers.openssl("-tls1_3", "-early_data", "-num_tickets", "3", "-no_anti_replay") as port:
        found = look(port)
    assert found.resumption.tickets == 3
    assert found.resumption.early_data == 16384
    assert "early-data" in ids(found)
    with tls_servers.openssl("-tls1_3", "-num_tickets", "0") as port:
        assert look(port).resumption.psk is False


def test_every_certificate_of_a_server_is_seen() -> None:
    ecdsa, rsa = tls_servers.default_pair(), tls_servers.rsa_pair()
    for version in ("-tls1_2", "-tls1_3"):
        with tls_servers.openssl(version, "-dcert", str(rsa.certificate), "-dkey", str(rsa.key), pair=ecdsa) as port:
            found = look(port)
        assert {chain.certificates[0]["key"] for chain in found.chains} == {"ECDSA P-256", "RSA 2048"}


def test_expired_wrong_and_untrusted_certificates_are_told_apart(tmp_path: Path) -> None:
    with tls_servers.openssl(pair=certificates.expired("localhost")) as port:
        assert ids(look(port))["expired"] is Severity.HIGH
    with tls_servers.openssl(pair=certificates.server("other.example")) as port:
        found = look(port)
        assert ids(found)["name-mismatch"] is Severity.HIGH
        assert "name-mismatch" not in ids(look(port, name="other.example"))
        other = certificates.ca("another CA").certificate
        assert ids(look(port, ca=other))["untrusted"] is Severity.HIGH
    with tls_servers.openssl(pair=certificates.server("localhost", through_intermediate=True)) as port:
        found = look(port)
        assert found.chains[0].verifies
        assert len(found.chains[0].certificates) >= 2


def test_a_stapled_response_is_read(tmp_path: Path) -> None:
    pair = tls_servers.default_pair()
    staple = tmp_path / "staple.der"
    staple.write_bytes(certificates_ocsp(pair))
    for version in ("-tls1_2", "-tls1_3"):
        with tls_servers.openssl(version, "-status_file", str(staple), pair=pair) as port:
            found = look(port)
        assert found.chains[0].staple is not None
        assert found.chains[0].staple["status"] == "good"
        assert found.chains[0].staple["is_for"]


def certificates_ocsp(pair: certificates.Pair) -> bytes:
    """An OCSP response of the test CA that says good."""
    from datetime import timedelta

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509 import ocsp

    ca = certificates.ca()
    builder = ocsp.OCSPResponseBuilder().add_response(
        pair.leaf, ca.leaf, hashes.SHA1(), ocsp.OCSPCertStatus.GOOD, certificates.NOW,  # noqa: S303
        certificates.NOW + timedelta(days=1), None, None,
    )  # fmt: skip
    response = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, ca.leaf).sign(ca.private_key, hashes.SHA256())
    return response.public_bytes(serialization.Encoding.DER)


def test_postgres_is_probed_behind_its_own_request() -> None:
    with tls_servers.postgres() as port:
        found = look(port, starttls="postgres")
    assert offered(found) == {"TLS 1.3", "TLS 1.2"}
    assert found.chains[0].verifies
    assert found.timings_ms.starttls is not None


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_the_first_byte_of_a_web_server_is_timed(version: str) -> None:
    with tls_servers.nginx(f"ssl_protocols {version};") as port:
        assert look(port).timings_ms.first_byte is not None


def test_suites_have_the_names_and_numbers_openssl_gives_them() -> None:
    command = [require("openssl"), "ciphers", "-V", "-stdname", f"{_WEAK}:COMPLEMENTOFALL"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    known = {}
    for line in lines:
        numbers, _, rest = line.strip().partition(" - ")
        high, low = numbers.split(",")
        known[int(high, 16) << 8 | int(low, 16)] = rest.split(" - ")[0].strip()
    assert len(known) > 100
    left_out = {number for number, name in known.items() if "SRP" in name or "GOST" in name}
    assert {number: suites.suite(number).name for number in known if number not in left_out} == {
        number: name for number, name in known.items() if number not in left_out
    }


def test_suites_have_the_names_and_numbers_wireshark_gives_them() -> None:
    done = subprocess.run([require("tshark"), "-G", "values"], capture_output=True, text=True, check=True)
    known = {}
    for line in done.stdout.splitlines():
        parts = line.split("\t")
        if parts[:2] == ["V", "tls.handshake.ciphersuite"]:
            known.setdefault(int(parts[2], 0), parts[3])
    for number, suite in suites.SUITES.items():
        assert suite.name == known[number], version_name(number)
