"""What a client gets for its first message does not depend on what else is configured: a table of names, which makes us
read the message before OpenSSL does, changes nothing in the answer.
"""

from __future__ import annotations

import concurrent.futures
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support import backends, certificates, clients, services, tunnel
from tests.support.mutants import MUTANTS, NAME
from tests.support.services import Services
from tlstunnel.tls import clienthello
from tlstunnel.tls.firstbytes import HelloError, TooLongError

pytestmark = pytest.mark.slow

TABLE = '[[sni]]\nnames = ["other.example"]\ntarget = "127.0.0.1:{port}"'
CASES = {
    "plain": "",
    "table": TABLE,
    "reject": f'sni_mismatch = "reject"\n{TABLE}',
    "rejects alone": 'sni_mismatch = "reject"',
}
UNRECOGNIZED_NAME = 112
Answer = tuple[object, ...]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    pair = certificates.server(NAME.decode())
    with ExitStack() as stack:
        backend = stack.enter_context(backends.serve(backends.echo))
        path = tmp_path_factory.mktemp("one") / "tunnel.toml"
        cases = {name.replace(" ", "_"): lines.format(port=backend.port) for name, lines in CASES.items()}
        services.write(path, backend.port, cases, f'certificate = "{pair.certificate}"\nkey = "{pair.key}"')
        through = path.read_text() + (
            '[services.through]\nmode = "passthrough"\nlisten = "127.0.0.1:0"\n'
            + f'target = "127.0.0.1:{backend.port}"\n'
        )
        path.write_text(through)
        yield Services(stack.enter_context(tunnel.run(path)), path)


def answer(port: int, sent: bytes) -> Answer:
    """What comes back on these bytes and an end, without what is random in it."""
    with clients.raw(port) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        said, was_reset = clients.read_to_end(sock)
    if was_reset:
        return ("reset",)
    if said[:1] != b"\x16":
        return (said,)
    return _without_chance(said)


def _without_chance(said: bytes) -> Answer:
    """A flight of a server: what it chose in its first message, and the kinds of records behind it."""
    found: list[object] = []
    first = said[5 : 5 + int.from_bytes(said[3:5], "big")]
    session = first[38]
    at = 39 + session
    found += [first[0], first[4:6], session, first[at : at + 3]]
    while said:
        size = int.from_bytes(said[3:5], "big")
        kind = (said[0], said[1:3], said[5 : 5 + size] if said[0] == 21 else b"")
        if kind != found[-1]:
            found.append(kind)
        said = said[5 + size :]
    return tuple(found)


def asked(sent: bytes) -> str | None:
    """The server name that can be read in it."""
    try:
        hello = clienthello.parse(sent)
    except HelloError:
        return None
    return None if hello is None else hello.server_name


def test_a_first_message_gets_the_same_answer_with_and_without_a_table_of_names(running: Services) -> None:
    ports = {name: running.at(name) for name in map(_word, CASES)}
    assert len(MUTANTS) > 400

    def ask(mutant: str) -> str:
        sent = MUTANTS[mutant]
        said = {where: answer(port, sent) for where, port in ports.items()}
        right = said["plain"]
        name = asked(sent)
        for service, found in said.items():
            if service.startswith("reject") and name not in (None, NAME.decode(), "other.example"):
                if found != (bytes((21, 3, 3, 0, 2, 2, UNRECOGNIZED_NAME)),):
                    return f"{mutant}: {service} says {found}"
            elif found != right:
                return f"{mutant}: {service} says {found} and not {right}"[:300]
        return ""

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        wrong = [line for line in pool.map(ask, MUTANTS) if line]
    assert not wrong, "\n".join(wrong)


def _word(case: str) -> str:
    return case.replace(" ", "_")


def test_what_cannot_be_read_gets_the_alert_of_openssl_also_where_we_have_no_session(
    running: Services,
) -> None:
    """Passthrough: nobody else would answer what we cannot route."""
    wrong = []
    for mutant, sent in MUTANTS.items():
        try:
            clienthello.parse(sent)
        except HelloError as exc:
            (said,), (right,) = answer(running.at("through"), sent), answer(running.at("plain"), sent)
            if not right or right.startswith(b"HTTP"):  # type: ignore[attr-defined]
                continue  # OpenSSL waited for more; a hint about HTTP is for servers
            if said[5:] != right[5:] and not isinstance(exc, TooLongError):  # type: ignore[index]
                wrong.append(f"{mutant} ({exc}): {said} and not {right}"[:300])
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("service", [*map(_word, CASES), "through"])
@pytest.mark.parametrize(
    ("mutant", "alert"),
    [
        ("the issue's", 47),
        ("two host names", 50),
        ("a record too long", 22),
        ("message 2", 10),
        ("record 23", 10),
        ("record version 0200 later", 70),
        ("70000 bytes are too many", 47),
        ("the longest length", 47),
        ("one record too many", 10),
    ],
)
def test_a_message_that_cannot_be_read_gets_the_alert_that_says_why(
    running: Services, service: str, mutant: str, alert: int
) -> None:
    """RFC 8446 section 6.2; also where we forward TLS and have no library that would say it."""
    (said,) = answer(running.at(service), MUTANTS[mutant])
    assert isinstance(said, bytes), said
    assert (said[0], said[3:]) == (21, bytes((0, 2, 2, alert))), said


@pytest.mark.parametrize("service", [*map(_word, CASES), "through"])
def test_a_hello_of_64_kib_or_in_128_records_is_taken_everywhere(running: Services, service: str) -> None:
    for mutant in ("60000 bytes of padding", "as many records as there may be", "an empty record in the middle"):
        with clients.raw(running.at(service)) as sock:
            sock.sendall(MUTANTS[mutant])
            sock.shutdown(socket.SHUT_WR)
            said, _ = clients.read_to_end(sock)
        if service == "through":
            assert said == MUTANTS[mutant]  # from the target, which echoes
        else:
            assert (said[0], said[5]) == (22, 2), (mutant, said[:8])  # a ServerHello


def test_what_is_wrong_with_it_is_in_the_log_in_the_same_words_everywhere(running: Services) -> None:
    for mutant, words in {"two host names": "server_name is not one host name", "a record too long": "16 KiB"}.items():
        seen = set()
        for service in map(_word, CASES):
            answer(running.at(service), MUTANTS[mutant])
            seen.add(_logged(running, service, words))
        assert len(seen) == 1, seen
        assert seen.pop()[0] == "protocol_error"


def _logged(running: Services, service: str, words: str) -> tuple[object, object]:
    """Reason and detail of a record of this service in which these words are."""

    def found() -> dict[str, object] | None:
        of_it = [record for record in running.daemon.records if record["service"] == service]
        return next((record for record in of_it if words in str(record.get("detail"))), None)

    running.daemon.until(found, f"a record of {service}")
    record = found()
    assert record is not None
    return record["reason"], record["detail"]
