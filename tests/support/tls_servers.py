"""TLS servers we did not write, in configurations of our choice, for a probe to look at.

    with tls_servers.openssl("-tls1_2") as port, tls_servers.nginx("ssl_protocols TLSv1.2;") as other:
        ...

Each listens on a free port of 127.0.0.1 when the block is entered, and still runs when it is left.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

from tests.support import backends, certificates, peers
from tests.support.certificates import Pair
from tests.support.interop import require

ANYTHING_GOES = """
openssl_conf = defaults
[defaults]
ssl_conf = settings
[settings]
system_default = lowest
[lowest]
MinProtocol = TLSv1
CipherString = ALL:eNULL:@SECLEVEL=0
"""
"""Takes from OpenSSL the limits that Debian sets."""


def default_pair() -> Pair:
    """A certificate for localhost with an ECDSA key."""
    return certificates.server("localhost", "127.0.0.1")


def rsa_pair(key_type: str = "RSA 2048") -> Pair:
    """The same with an RSA key."""
    return certificates.server("localhost", "127.0.0.1", key_type=key_type)


@contextlib.contextmanager
def openssl(*options: str, pair: Pair | None = None, settings: str = "") -> Iterator[int]:
    """`openssl s_server`. It serves one connection after the other. `settings` is its configuration file."""
    pair = pair or default_pair()
    with peers.folder() as folder:
        path = folder / "openssl.cnf"
        path.write_text(settings)
        env = {"OPENSSL_CONF": str(path)} if settings else {}
        with peers.s_server("-cert_chain", str(pair.certificate), *options, pair=pair, env=env) as peer:
            peer.drop_the_rest()
            yield peer.port


@contextlib.contextmanager
def gnutls(priority: str, *options: str, pair: Pair | None = None) -> Iterator[int]:
    """`gnutls-serv --echo`."""
    pair = pair or default_pair()
    port = peers.free_port()
    command = [require("gnutls-serv"), "--echo", "--port", str(port), "--priority", priority]
    command += ["--x509certfile", str(pair.certificate), "--x509keyfile", str(pair.key), *options]
    with peers.talking(command) as peer:
        peer.read_until(r"listening on IPv4.*done$")
        peer.drop_the_rest()
        yield port


@contextlib.contextmanager
def nginx(*directives: str, pair: Pair | None = None) -> Iterator[int]:
    """nginx with one HTTPS server."""
    pair = pair or default_pair()

    def http(port: int) -> str:
        return (
            f"server {{ listen 127.0.0.1:{port} ssl http2; {' '.join(directives)}\n"
            f"ssl_certificate {pair.certificate}; ssl_certificate_key {pair.key}; return 204; }}"
        )

    with peers.nginx_with(http) as peer:
        yield peer.port
        assert peer.process.poll() is None, peer.said()


@contextlib.contextmanager
def haproxy(*words: str, pair: Pair | None = None) -> Iterator[int]:
    """HAProxy with one frontend; `words` go to its bind line."""
    pair = pair or default_pair()
    bind = f"ssl crt {pair.combined} {' '.join(words)}"
    with peers.haproxy_with(bind, "http-request return status 204", mode="http") as peer:
        yield peer.port
        assert peer.process.poll() is None, peer.said()


@contextlib.contextmanager
def postgres(pair: Pair | None = None) -> Iterator[int]:
    """PostgreSQL with TLS."""
    with peers.postgres(pair or default_pair()) as peer:
        yield peer.port


@contextlib.contextmanager
def scripted(behave: Callable[[socket.socket], object], *, host: str = "127.0.0.1") -> Iterator[int]:
    """A server of our own: each connection is given to `behave`, in a thread of its own, and closed after it."""
    with backends.serve(behave, host=host) as backend:
        yield backend.port
