"""PostgreSQL and Redis behind the tunnel, with their own clients."""

from __future__ import annotations

import hashlib
import random
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import certificates, peers, tunnel
from tests.support.interop import require

pytestmark = [pytest.mark.interop, pytest.mark.slow]

ROWS = 20_000


def mutual(common_name: str) -> tuple[list[str], list[str]]:
    """Options of a server that admits one client, and of that client."""
    demand = ["--client-auth", "required", "--client-ca", str(certificates.ca().certificate)]
    pair = certificates.client(common_name)
    return [*demand, "--allow-cn", common_name], ["--cert", str(pair.certificate), "--key", str(pair.key)]


# PostgreSQL: its client reaches a tunnel in client mode by a unix socket, and never sees a certificate.


@pytest.fixture(scope="module")
def database() -> Iterator[Path]:
    """A folder with the socket through which psql reaches PostgreSQL, over two tunnels with certificates on both."""
    demand, shown = mutual("app")
    require("psql")
    with ExitStack() as stack:
        folder = stack.enter_context(peers.folder())
        service = stack.enter_context(peers.postgres())
        far = stack.enter_context(tunnel.server(service.port, "--min-version", "1.3", *demand))
        stack.enter_context(tunnel.client(far.port, *shown, listen=(f"unix:{folder}/.s.PGSQL.5432",)))
        yield folder


def psql(folder: Path, *statements: str, stdin: bytes = b"") -> bytes:
    command = [require("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", str(folder), "-U", "tester"]
    words = [word for statement in statements for word in ("-c", statement)]
    done = subprocess.run(
        [*command, "-d", "postgres", *words], input=stdin, capture_output=True, check=False, timeout=peers.PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_psql_asks_and_is_answered(database: Path) -> None:
    assert psql(database, "select 6 * 7") == b"42\n"


def test_psql_copies_a_table_in_and_out_unchanged(database: Path) -> None:
    rows = "".join(f"{number}\t{random.Random(number).randbytes(100).hex()}\n" for number in range(ROWS)).encode()
    psql(database, "create table copied (number int primary key, text text)")
    psql(database, "copy copied from stdin", stdin=rows)
    assert psql(database, "select count(*) from copied") == f"{ROWS}\n".encode()
    out = psql(database, "copy (select * from copied order by number) to stdout")
    assert hashlib.sha256(out).digest() == hashlib.sha256(rows).digest()


def test_psql_sees_an_error_and_the_connection_stays_good(database: Path) -> None:
    command = [require("psql"), "-X", "-A", "-t", "-h", str(database), "-U", "tester", "-d", "postgres"]
    done = subprocess.run(
        command, input=b"select 1/0;\nselect 'still here';\n", capture_output=True, check=False,
        timeout=peers.PATIENCE_S,
    )  # fmt: skip
    assert b"division by zero" in done.stderr
    assert done.stdout == b"still here\n"


def test_psql_over_tcp_with_no_tls_of_its_own() -> None:
    with peers.postgres() as service, tunnel.server(service.port) as far, tunnel.client(far.port) as near:
        url = f"postgresql://tester@127.0.0.1:{near.port}/postgres?sslmode=disable"
        done = subprocess.run([require("psql"), url, "-Atc", "select 1"], capture_output=True, check=True)
        assert done.stdout == b"1\n"
        assert near.record()["reason"] == far.record()["reason"] == "finished"


# Redis: its client speaks TLS itself.


@pytest.fixture(scope="module")
def cache() -> Iterator[tunnel.Tunnel]:
    demand, _ = mutual("cache-user")
    with peers.redis() as service, tunnel.server(service.port, *demand) as daemon:
        yield daemon


def redis(program: str, port: int, *words: str, is_known: bool = True, stdin: bytes = b"") -> bytes:
    _, shown = mutual("cache-user")
    command = [require(program), "-h", "localhost", "-p", str(port), "--tls"]
    command += ["--cacert", str(certificates.ca().certificate), *(shown if is_known else [])]
    done = subprocess.run([*command, *words], input=stdin, capture_output=True, check=False, timeout=peers.PATIENCE_S)
    return done.stdout + done.stderr


def test_redis_cli_speaks_tls_to_the_tunnel(cache: tunnel.Tunnel) -> None:
    assert redis("redis-cli", cache.port, "set", "colour", "green") == b"OK\n"
    assert redis("redis-cli", cache.port, "get", "colour") == b"green\n"
    record = cache.record()
    assert record["reason"] in {"finished", "truncated"}  # redis-cli ends without a close_notify
    assert record["version"] == "TLSv1.3"
    assert "cache-user" in record["identity"]


def test_redis_cli_keeps_a_large_value(cache: tunnel.Tunnel) -> None:
    value = random.Random(4).randbytes(2_000_000).hex().encode()
    assert redis("redis-cli", cache.port, "-x", "set", "large", stdin=value) == b"OK\n"
    assert redis("redis-cli", cache.port, "get", "large") == value + b"\n"


def test_redis_cli_without_a_certificate_gets_nowhere(cache: tunnel.Tunnel) -> None:
    assert b"green" not in redis("redis-cli", cache.port, "get", "colour", is_known=False)


def test_redis_benchmark_pipelines_on_fifty_connections(cache: tunnel.Tunnel) -> None:
    words = ["-n", "4000", "-c", "50", "-P", "4", "-t", "set,get", "--csv"]
    said = redis("redis-benchmark", cache.port, *words).decode()
    assert '"SET",' in said
    assert '"GET",' in said
