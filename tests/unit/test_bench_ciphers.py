"""`bench ciphers` measures what it says: every row or the reason why not, in memory, at sizes that cost little."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tlstunnel.tools.bench import ciphers, machine, plot, report
from tlstunnel.tools.bench.advice import Advice, advise
from tlstunnel.tools.bench.cases import BASE_GROUP, BASE_KEY, BASE_SUITE, Bulk, Handshake, chosen_by, every_case
from tlstunnel.tools.bench.ciphers import Effort, Result
from tlstunnel.tools.bench.refusals import UnsupportedError
from tlstunnel.tools.bench.session import Lab

pytestmark = pytest.mark.slow

TINY = Effort(measuring_s=0.0, slice_s=0.0)
DOCS = Path(__file__).parents[2] / "docs" / "reference" / "bench.md"
BASE = Handshake("suite", "1.3", BASE_SUITE, BASE_KEY, BASE_GROUP)


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return ciphers.run(every_case(), TINY)


@pytest.fixture(scope="module")
def advice(results: list[Result]) -> list[Advice]:
    return advise(results, has_aes=True)


def test_every_row_is_measured_in_every_round_or_says_why_it_is_not(results: list[Result]) -> None:
    assert [result.case for result in results] == every_case()
    for result in results:
        if result.unsupported:
            assert not result.rounds
        else:
            assert result.rounds == ciphers.MIN_ROUNDS, result.case.name
            assert all(value > 0 for values in result.samples.values() for value in values), result.case.name


def test_what_tls_1_2_cannot_do_is_listed_as_such(results: list[Result]) -> None:
    reasons = {result.case.name: result.unsupported for result in results}
    cipher = "ECDHE-ECDSA-AES128-GCM-SHA256"
    assert reasons[f"TLS 1.2, {cipher}, ECDSA P-256, X25519MLKEM768, full"] == "TLS 1.2 has no such key exchange"
    assert reasons[f"TLS 1.2, {cipher}, ML-DSA-44, X25519, full"] == "TLS 1.2 has no such signatures"
    assert reasons[f"TLS 1.2, {cipher}, ECDSA P-256, ffdhe2048, full"] == "TLS 1.2 does not use ffdhe2048"
    assert not reasons[f"TLS 1.2, {cipher}, ECDSA P-256, P-521, full"]


def test_what_the_library_does_not_know_is_listed_as_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dataclasses import replace

    lab = Lab(tmp_path)
    unknown_group = replace(BASE, group=replace(BASE_GROUP, name="X9999"))
    unknown_suite = replace(BASE, suite=replace(BASE_SUITE, name="TLS_NO_SUCH"))
    with pytest.raises(UnsupportedError, match="no group X9999"):
        lab.shaker(unknown_group)
    with pytest.raises(UnsupportedError, match="no suite TLS_NO_SUCH"):
        lab.shaker(unknown_suite)

    from tlstunnel.errors import UsageError
    from tlstunnel.tools.pki import authority

    def refuse(*_: object, **__: object) -> None:
        raise UsageError("--key-type", "needs a newer cryptography package")

    monkeypatch.setattr(authority, "create", refuse)
    with pytest.raises(UnsupportedError, match="makes no ECDSA P-256 keys"):
        Lab(tmp_path / "other").shaker(BASE)


def by_name(results: list[Result], case: Handshake) -> Result:
    return next(result for result in results if result.case.name == case.name)


def test_a_handshake_has_the_size_that_its_parts_have(results: list[Result]) -> None:
    from dataclasses import replace

    from tlstunnel.tools.bench.cases import GROUPS, KEYS

    base = by_name(results, BASE)
    hybrid = by_name(results, replace(BASE, group=next(g for g in GROUPS if g.name == "X25519MLKEM768")))
    if not hybrid.unsupported:
        # The ML-KEM-768 key and ciphertext (FIPS 203 table 3) and nothing else, but for the length of a signature.
        assert hybrid.client_bytes - base.client_bytes == 1184
        assert abs(hybrid.server_bytes - base.server_bytes - 1088) <= 8
    rsa = by_name(results, replace(BASE, key=next(k for k in KEYS if k.name == "RSA 4096")))
    assert rsa.client_bytes == base.client_bytes
    assert rsa.server_bytes - base.server_bytes > 2 * 512 - 2 * 72  # two signatures, of the CA and of the handshake
    resumed = by_name(results, replace(BASE, is_resumed=True))
    assert resumed.server_bytes < base.server_bytes - 500  # no certificate


def test_a_resumed_handshake_was_resumed_and_a_full_one_was_not(tmp_path: Path) -> None:
    from dataclasses import replace

    lab = Lab(tmp_path)
    for case in (BASE, replace(BASE, is_resumed=True)):
        shake = lab.shaker(case)
        assert shake().server_s > 0
    contexts = lab.contexts("1.3", BASE_SUITE, BASE_KEY, BASE_GROUP)
    with lab.pair(*contexts) as (server, client, _):
        assert not server.is_resumed()
        assert client.cipher() == BASE_SUITE.name
        session = client.session()
    with lab.pair(*contexts, session) as (server, client, _):
        assert server.is_resumed()
        assert client.is_resumed()


def test_what_is_decrypted_is_what_was_encrypted(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    case = Bulk(BASE_SUITE, BASE_KEY, 1024)
    lab.server_area.plain[:1024] = bytes(range(256)) * 4
    spent_s, size = lab.decrypter(case)(2048)
    assert size >= 2048
    assert spent_s > 0
    assert lab.client_area.plain[:1024] == bytes(range(256)) * 4


def test_progress_goes_up_and_names_the_row() -> None:
    seen: list[tuple[float, str]] = []
    ciphers.run(chosen_by("tls1.3 x25519 ecdsa-p256"), TINY, lambda done, what: seen.append((done, what)))
    ciphers.run(chosen_by("1.2 full x448"), TINY, lambda done, what: seen.append((done, what)))
    assert seen
    shares = [done for done, what in seen if what.startswith("round")]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    assert "X448" in seen[-1][1]


# The report.


def test_the_table_fits_80_columns_and_has_a_line_for_every_row(results: list[Result], advice: list[Advice]) -> None:
    lines = list(report.as_text(results, advice, machine.look()))
    assert max(map(len, lines)) <= report.WIDTH
    text = "\n".join(lines)
    for result in results:
        if isinstance(result.case, Handshake):
            assert report.label_of(result, result.case.axis) in text
    assert text.count("not supported: ") == sum(
        bool(result.unsupported) for result in results if isinstance(result.case, Handshake)
    ) + len({result.case.suite for result in results if isinstance(result.case, Bulk) and result.unsupported})
    assert text.index("Recommendation") > text.index("Data: GiB")


def test_the_cheapest_comes_first_and_what_the_rounds_do_not_tell_apart_is_marked() -> None:
    rows = [Result(BASE, samples={"server": values}) for values in ([5.0, 5.1, 5.2], [1.0, 1.0, 1.0], [1.0, 1.1, 0.9])]
    rows.append(Result(BASE, unsupported="no"))
    found = list(report.ranked(rows, ("server",)))
    assert [rows.index(row) for row, _ in found[2:]] == [0, 3]
    assert [is_same for _, is_same in found] == [False, True, False, False]


def documented(heading: str) -> set[str]:
    """The keys that a section of the reference page lists."""
    section = DOCS.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return {
        key for cell in re.findall(r"^\| (`.+?`) \|", section, re.MULTILINE) for key in re.findall(r"`(\S+?)`", cell)
    }


def keys_of(value: Any) -> set[str]:
    """Every key anywhere in a JSON value."""
    if isinstance(value, dict):
        return set(value).union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()


def test_the_json_has_the_keys_that_its_page_lists(results: list[Result], advice: list[Advice]) -> None:
    found = report.as_json(results, advice, machine.look(), quick=True, words="")
    assert json.loads(json.dumps(found)) == found
    assert keys_of(found) | {"tlstunnel"} == documented("JSON of `bench ciphers`")
    assert len(found["handshakes"]) + len(found["bulk"]) == len(results)
    supported = next(row for row in found["handshakes"] if row["supported"])
    assert supported["server_us"]["low"] <= supported["server_us"]["median"] <= supported["server_us"]["high"]
    assert supported["per_second"]["median"] == pytest.approx(1e6 / supported["server_us"]["median"], rel=1e-3)


def test_the_figure_is_drawn_in_both_formats(results: list[Result], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot.draw(tmp_path / "out.png", results, machine.look())
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    only = [result for result in results if isinstance(result.case, Bulk)]
    plot.draw(tmp_path / "out.svg", only, machine.look())
    assert b"<svg" in (tmp_path / "out.svg").read_bytes()


def test_a_machine_is_described_also_where_proc_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.look()["openssl"].startswith("OpenSSL ")
    monkeypatch.setattr(machine, "_cpu_fields", dict)
    facts = machine.look()
    assert facts["instructions"] == []
    assert not machine.has_aes(facts)
    assert "no special instructions" in "\n".join(report.machine_lines(facts))
