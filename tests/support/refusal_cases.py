"""The ways of being refused that `tests/integration/test_refusals_golden.py` goes through: what is configured, and what
the client does. `$NAME` stands for a file, a folder, or the port of a target there.
"""

from __future__ import annotations

import ipaddress
import socket
import subprocess
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cryptography import x509

from tests.support import backends, certificates, clients, hellos
from tests.support.interop import require
from tests.support.refusals import RESET, Act, heard, openssl, raw
from tlstunnel.proxy_protocol import Endpoint, encode_v1, encode_v2

CA = certificates.ca().certificate
CLIENT = Endpoint("192.0.2.7", 7)
PROXY = Endpoint("192.0.2.8", 8)
HELLO = hellos.recorded("openssl-3.0")

AUTH = 'client_auth = "required"\nclient_ca = "$ca"\n'
ANY = AUTH + "allow_any = true\n"
CLIENT_MODE = 'mode = "client"\nca = "$ca"\n'
PASSTHROUGH = 'mode = "passthrough"\n'
BY_NAME = (
    PASSTHROUGH
    + '''sni_mismatch = "reject"
[[sni]]
names = ["a.example"]
target = "127.0.0.1:$echo"'''
)


@dataclass(frozen=True)
class Case:
    """One way of being refused."""

    title: str
    lines: str
    act: Act
    is_rejected: bool = False


def tls(**how: Any) -> Act:
    """Python's TLS, to see how a connection ends after a handshake that was good."""

    def act(port: int) -> str:
        with clients.connect(port, **how) as client:
            assert client.read_all() == b""
            return "a handshake, then " + ("a proper end (close_notify)" if client.has_close_notify else "a cut")

    return act


def shake_and_leave(*, is_reset: bool = False) -> Act:
    """A client that sees our certificate and leaves."""

    def act(port: int) -> str:
        with clients.raw(port) as sock:
            sock.sendall(HELLO)
            assert sock.recv(1, socket.MSG_PEEK)
            if is_reset:
                backends.reset(sock)
                return "nothing, it has reset the connection"
            sock.shutdown(1)
            return heard(sock)

    return act


def reset_at_once(port: int) -> str:
    with clients.raw(port) as sock:
        sock.sendall(HELLO[:100])
        backends.reset(sock)
    return "nothing, it has reset the connection"


def curl(*options: str) -> Act:
    def act(port: int) -> str:
        command = [require("curl"), "--silent", "--show-error", "--include", "--noproxy", "*", *options]
        done = subprocess.run([*command, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=False)
        answer = "\n".join(line for line in done.stdout.splitlines() if line)
        return f"curl: {answer or done.stderr.strip()}"

    return act


def shown(pair: certificates.Pair, *options: str, name: str | None = "localhost") -> Act:
    """`openssl s_client` with a certificate of its own."""
    return openssl(*options, ca=CA, pair=pair, name=name)


def plain(port: int) -> str:
    """A client without TLS, of client mode."""
    try:
        sock = clients.raw(port)
    except ConnectionResetError:
        return RESET  # which came before this process heard that it is connected
    with sock:
        return heard(sock)


def leaves_while_we_dial(port: int) -> str:
    """Resets a connection once its handshake is done; the target does not answer."""
    with clients.connect(port) as client:
        client.reset()
    return "nothing, it has reset the connection"


def hello_of(*extensions: bytes, **parts: Any) -> bytes:
    return hellos.hello(hellos.server_name(b"localhost"), *extensions, **parts)


OLD_HELLO = hellos.record(hellos.message(hellos.body(version=0x0301, suites=b"\xc0\x09\xc0\x13")[:-2]))
GOOD = certificates.client("billing", ou=("finance",))
ORPHAN = certificates.client("orphan", authority="another CA")
SELF_SIGNED = certificates.client("lonely", self_signed=True)
OLD = certificates.issue(
    "old", purpose="client", not_before=certificates.NOW - timedelta(days=9), not_after=certificates.NOW - timedelta(1)
)
EARLY = certificates.issue(
    "early", purpose="client", not_before=certificates.NOW + timedelta(1), not_after=certificates.NOW + timedelta(9)
)
REVOKED = certificates.client("revoked")
REVOKED_SERVER = certificates.server("localhost", key_type="ECDSA P-384")
FOR_SERVERS = certificates.server("shop.example")
SMALL = certificates.client("small", key_type="RSA 1024")
TWO_LINES = certificates.client("billing\nadmin")
NETWORK = certificates.client(
    "network",
    extensions=(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_network("192.0.2.0/24"))]),),
)

ADMISSION = {
    "network_denied": Case(
        "a client whose address deny_from names", 'deny_from = "127.0.0.0/8"', raw(), is_rejected=True
    ),
    "network_not_allowed": Case(
        "a client whose address allow_from does not name", 'allow_from = "192.0.2.0/24"', raw(), is_rejected=True
    ),
    "max_connections_per_ip": Case(
        "a client with as many connections as one may have",
        "max_connections_per_ip = 1", raw(before=1), is_rejected=True,
    ),
    "connection_rate_per_ip": Case(
        "a client that comes too often", 'connection_rate_per_ip = "1/h"', raw(before=1), is_rejected=True
    ),
    "handshake_rate": Case(
        "clients that come too often, all together", 'handshake_rate = "1/h"', raw(before=1), is_rejected=True
    ),
    "network_denied_behind_a_proxy": Case(
        "a client that its proxy names, and deny_from does too",
        'accept_proxy_protocol = true\ndeny_from = "192.0.2.0/24"', raw(encode_v2(CLIENT, PROXY)),
    ),
    "proxy_header_missing_tls": Case(
        "a client of TLS that comes without a proxy", "accept_proxy_protocol = true", openssl(ca=CA)
    ),
    "proxy_header_missing_http": Case(
        "a client of HTTP that comes without a proxy", "accept_proxy_protocol = true", curl()
    ),
    "proxy_header_malformed": Case(
        "a PROXY line with a port that is none", "accept_proxy_protocol = true",
        raw(b"PROXY TCP4 192.0.2.7 192.0.2.8 70000 8443\r\n"),
    ),
    "proxy_header_untrusted": Case(
        "a proxy that is not among the trusted",
        'accept_proxy_protocol = true\nproxy_trusted = "192.0.2.0/24"', raw(encode_v1(CLIENT, PROXY)),
    ),
    "proxy_header_stalled": Case(
        "a proxy that never finishes its header",
        'accept_proxy_protocol = true\nhandshake_timeout = "300ms"', raw(b"PROXY TCP4 192.0.2.7"),
    ),
    "proxy_header_cut": Case(
        "a proxy that leaves in the middle of its header", "accept_proxy_protocol = true",
        raw(b"PROXY TCP4 192.0.2.7", is_done=True),
    ),
}  # fmt: skip

NAMED = '[[sni]]\nnames = ["a.example"]'
FIRST_BYTES = {
    "eof": Case("a client that leaves without a word", "", raw(is_done=True)),
    "eof_after_hello": Case("a client that leaves when it has seen our certificate", "", shake_and_leave()),
    "reset": Case("a client that resets the connection in its first message", "", reset_at_once),
    "reset_after_hello": Case(
        "a client that resets the connection when it has seen our certificate", "", shake_and_leave(is_reset=True)
    ),
    "timeout": Case("a client that says nothing", 'handshake_timeout = "300ms"', raw()),
    "timeout_after_hello": Case(
        "a client that stops after its first message", 'handshake_timeout = "300ms"', raw(HELLO),
    ),
    "not_tls_http": Case("a browser told http:// instead of https://", "", curl()),
    "not_tls_http_silent": Case("the same with http_hint = false", "http_hint = false", curl()),
    "not_tls_http_named": Case("the same on a service that looks for names", NAMED, curl()),
    "not_tls_ssh": Case("a client of SSH", "", raw(b"SSH-2.0-OpenSSH_9.2p1\r\n")),
    "not_tls_sslv2": Case(
        "a client from the time of SSLv2", "",
        raw(b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80" + bytes(35)),
    ),
    "not_tls_proxy_v1": Case("a proxy that tells who its client is, unasked", "", raw(encode_v1(CLIENT, PROXY))),
    "not_tls_proxy_v2": Case("the same in version 2", "", raw(encode_v2(CLIENT, PROXY))),
    "not_tls_postgres": Case("PostgreSQL's request for TLS", "", raw(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")),
    "not_tls_unknown": Case("a client that greets a mail server", "", raw(b"EHLO client.example\r\n")),
    "hello_too_long": Case(
        "a ClientHello of more than 64 KiB, on a service that looks for names", NAMED,
        raw(hellos.record(b"\x01\x01\x00\x01" + bytes(16_000))),
    ),
    "hello_malformed": Case(
        "a ClientHello whose lengths do not fit", "", raw(hellos.record(hellos.message(hellos.body()[:-1] + b"\xff")))
    ),
    "no_hello": Case(
        "a server's message as the first one", BY_NAME, raw(hellos.record(hellos.message(b"\x03\x03", kind=2)))
    ),
    "unrecognized_name": Case(
        "a name that nobody has", 'sni_mismatch = "reject"', openssl(ca=CA, name="stranger.example")
    ),
    "unrecognized_name_passthrough": Case(
        "the same in passthrough mode",
        BY_NAME,
        openssl(ca=CA, name="stranger.example"),
    ),
    "no_name_passthrough": Case(
        "no name at all in passthrough mode",
        BY_NAME,
        openssl(ca=CA, name=None),
    ),
}  # fmt: skip

NEGOTIATION = {
    "no_shared_version": Case(
        "a client of TLS 1.2 before min_version 1.3", 'min_version = "1.3"', openssl("-tls1_2", ca=CA),
    ),
    "no_shared_version_old": Case("a client of TLS 1.0", "", raw(OLD_HELLO)),
    "no_shared_cipher": Case(
        "a client of TLS 1.2 that wants an RSA certificate", "",
        openssl("-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384:DHE-RSA-AES256-GCM-SHA384:AES128-SHA", ca=CA),
    ),
    "no_shared_suite": Case(
        "a client with another suite of TLS 1.3", 'ciphersuites = "TLS_AES_128_GCM_SHA256"',
        openssl("-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384", ca=CA),
    ),
    "no_shared_group": Case(
        "a client with another group", 'groups = "X25519"', openssl("-tls1_3", "-groups", "P-384", ca=CA)
    ),
    "no_shared_group_12": Case(
        "the same with TLS 1.2", 'groups = "X25519"', openssl("-tls1_2", "-groups", "P-384", ca=CA)
    ),
    "only_sha1": Case(
        "a client that verifies SHA-1 alone", "",
        openssl("-tls1_2", "-cipher", "ALL:@SECLEVEL=0", "-sigalgs", "ECDSA+SHA1:RSA+SHA1", ca=CA),
    ),
    "no_shared_signature_algorithm": Case(
        "a client that verifies no ECDSA", "", openssl("-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256", ca=CA)
    ),
    "no_shared_alpn": Case(
        "a client of HTTP/1.1 where alpn has another",
        'alpn = ["h2"]', openssl("-alpn", "http/1.1,http/1.0", ca=CA),
    ),
    "no_alpn": Case(
        "a client without ALPN where alpn_required asks for it", 'alpn = ["h2"]\nalpn_required = true', openssl(ca=CA)
    ),
    "no_alpn_by_name": Case(
        "the same on a service that looks for names", 'alpn = ["h2"]\nalpn_required = true\nsni_mismatch = "reject"',
        openssl(ca=CA),
    ),
    "alert": Case(
        "a client that does not know our CA", "",
        openssl("-verify_return_error", ca=certificates.ca("another CA").certificate),
    ),
}  # fmt: skip

CLIENTS = {
    "no_client_certificate": Case("a client without a certificate, where one is required", ANY, openssl(ca=CA)),
    "no_client_certificate_12": Case("the same with TLS 1.2", ANY, openssl("-tls1_2", ca=CA)),
    "anonymous_denied": Case(
        "a client without a certificate, where it is optional and anonymous clients are denied",
        'client_auth = "optional"\nclient_ca = "$ca"\nanonymous = "deny"\nallow_any = true', openssl(ca=CA),
    ),
    "unknown_ca": Case("a certificate of another CA", ANY, shown(ORPHAN)),
    "unknown_ca_self_signed": Case("a certificate that has signed itself", ANY, shown(SELF_SIGNED)),
    "expired_certificate": Case("an expired certificate", ANY, shown(OLD)),
    "not_yet_valid_certificate": Case("a certificate of tomorrow", ANY, shown(EARLY)),
    "revoked": Case("a revoked certificate", f'{ANY}crl = "$crl"', shown(REVOKED)),
    "crl_unusable": Case(
        "a certificate of a CA whose revocation list is missing",
        'client_auth = "required"\nclient_ca = "$both"\nallow_any = true\ncrl = "$crl"', shown(ORPHAN),
    ),
    "wrong_purpose": Case("a certificate for servers", ANY, shown(FOR_SERVERS)),
    "bad_certificate_small_key": Case(
        "a certificate with a key of 1,024 bits", ANY, shown(SMALL, "-cipher", "ALL:@SECLEVEL=0"),
    ),
    "bad_certificate_two_lines": Case("a certificate with a line break in its name", ANY, shown(TWO_LINES)),
    "bad_certificate_network": Case("a certificate for a network", ANY, shown(NETWORK)),
    "denied": Case("a certificate that no rule admits", f'{AUTH}allow_cn = "shop"', shown(GOOD)),
    "denied_12": Case("the same with TLS 1.2", f'{AUTH}allow_cn = "shop"', shown(GOOD, "-tls1_2")),
    "deny_rule": Case(
        "a certificate that a deny rule names",
        f'{AUTH}allow_cn = "billing"\ndeny = [{{ ou = "finance" }}]', shown(GOOD),
    ),
    "denied_by_name": Case(
        "a certificate that the rules of one name do not admit",
        f'{ANY}[[sni]]\nnames = ["a.example"]\nallow_cn = "shop"', shown(GOOD, name="a.example"),
    ),
}  # fmt: skip

DIALS = {
    "refused": Case("a target where nobody listens", 'target = "127.0.0.1:$nobody"', tls()),
    "refused_name": Case("the same with a target that is a name", 'target = "localhost:$nobody"', tls()),
    "all_targets_down": Case(
        "two targets where nobody listens", 'target = ["127.0.0.1:$nobody", "127.0.0.1:$nobody2"]', tls()
    ),
    "connect_timeout": Case(
        "a target that does not accept", 'target = "127.0.0.1:$full"\nconnect_timeout = "300ms"', tls()
    ),
    "connect_timeout_name": Case(
        "the same with a target that is a name", 'target = "localhost:$full"\nconnect_timeout = "300ms"', tls()
    ),
    "unresolvable": Case(
        "a target whose name does not resolve", 'target = "nobody.invalid:80"\nunsafe_target = true', tls()
    ),
    "unreachable": Case(
        "a target to which there is no route", 'target = "224.0.0.1:80"\nunsafe_target = true', tls()
    ),
    "no_socket": Case("a unix socket that is not there", 'target = "unix:$folder/missing"', tls()),
    "permission": Case("a unix socket that is not ours to use", 'target = "unix:$folder/closed/socket"', tls()),
    "no_source": Case("a source_address of another machine", 'source_address = "192.0.2.1"', tls()),
    "client_gone": Case(
        "a client that does not wait for the target",
        'target = "127.0.0.1:$full"\nconnect_timeout = "1m"', leaves_while_we_dial,
    ),
}  # fmt: skip

TARGETS = {
    "target_unknown_ca": Case("a server of another CA", CLIENT_MODE + 'target = "localhost:$orphan"', plain),
    "target_expired_certificate": Case(
        "a server with an expired certificate", CLIENT_MODE + 'target = "localhost:$old"', plain,
    ),
    "target_not_yet_valid_certificate": Case(
        "a server with a certificate of tomorrow", CLIENT_MODE + 'target = "localhost:$early"', plain
    ),
    "target_revoked": Case(
        "a server with a revoked certificate", CLIENT_MODE + 'target = "localhost:$revoked"\ncrl = "$crl"', plain
    ),
    "target_crl_unusable": Case(
        "a server of a CA whose revocation list is missing",
        'mode = "client"\nca = "$both"\ntarget = "localhost:$orphan"\ncrl = "$crl"', plain,
    ),
    "target_wrong_purpose": Case(
        "a server with a client's certificate", CLIENT_MODE + 'target = "localhost:$purpose"', plain,
    ),
    "target_name_mismatch": Case(
        "a server with a certificate for another name",
        CLIENT_MODE + 'target = "localhost:$good"\nserver_name = "db.example"', plain,
    ),
    "target_nameless": Case(
        "a server whose certificate has a common name alone", CLIENT_MODE + 'target = "localhost:$nameless"', plain,
    ),
    "target_bad_certificate": Case(
        "a server with a key of 1,024 bits", CLIENT_MODE + 'target = "localhost:$small"', plain,
    ),
    "target_denied": Case(
        "a server that the rules in verify do not name",
        CLIENT_MODE + 'target = "localhost:$good"\nverify_cn = "db.example"', plain,
    ),
    "target_alert_version": Case(
        "a server of TLS 1.2 before min_version 1.3",
        CLIENT_MODE + 'target = "localhost:$old_version"\nmin_version = "1.3"', plain,
    ),
    "target_alert_alpn": Case(
        "a server that speaks another protocol",
        CLIENT_MODE + 'target = "localhost:$alpn"\nalpn = ["postgresql"]', plain,
    ),
    "target_no_shared_alpn": Case(
        "a server that chooses no protocol where one is required",
        CLIENT_MODE + 'target = "localhost:$good"\nalpn = ["postgresql"]\nalpn_required = true', plain,
    ),
    "target_alert_certificate": Case(
        "a server of TLS 1.2 that wants a certificate", CLIENT_MODE + 'target = "localhost:$demanding_12"', plain
    ),
    "target_alert_certificate_13": Case(
        "a server of TLS 1.3 that wants a certificate, and says so when the handshake is complete",
        CLIENT_MODE + 'target = "localhost:$demanding"', plain,
    ),
    "target_no_shared_version": Case(
        "a server that answers with TLS 1.1", CLIENT_MODE + 'target = "localhost:$version_11"', plain
    ),
    "target_not_tls": Case(
        "a server that greets in plaintext", CLIENT_MODE + 'target = "localhost:$greeting"', plain,
    ),
    "target_eof": Case("a server that closes at once", CLIENT_MODE + 'target = "localhost:$closing"', plain),
    "target_reset": Case(
        "a server that resets the connection", CLIENT_MODE + 'target = "localhost:$resetting"', plain,
    ),
    "target_timeout": Case(
        "a server that says nothing", CLIENT_MODE + 'target = "localhost:$mute"\nhandshake_timeout = "300ms"', plain
    ),
    "target_protocol_error": Case(
        "a server that answers with nonsense", CLIENT_MODE + 'target = "localhost:$nonsense"', plain
    ),
    "target_tls_unknown_ca": Case(
        "a target of another CA, in server mode", 'target = "localhost:$orphan"\ntarget_tls = { ca = "$ca" }', tls()
    ),
    "target_tls_not_tls": Case(
        "a target that greets in plaintext, in server mode",
        'target = "localhost:$greeting"\ntarget_tls = { ca = "$ca" }', tls(),
    ),
}  # fmt: skip

CASES = ADMISSION | FIRST_BYTES | NEGOTIATION | CLIENTS | DIALS | TARGETS
