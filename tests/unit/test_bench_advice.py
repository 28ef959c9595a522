"""What `bench ciphers` recommends follows from security first, and from what was measured second."""

from __future__ import annotations

import math

import pytest

from tlstunnel.tls.context import DEFAULT_SUITES
from tlstunnel.tools.bench.advice import Advice, advise
from tlstunnel.tools.bench.cases import Bulk, Case, Handshake, every_case
from tlstunnel.tools.bench.ciphers import Result
from tlstunnel.tools.bench.machine import Machine
from tlstunnel.tools.bench.report import machine_lines
from tlstunnel.tools.bench.stats import percentile, ratio, spread

FAST, SLOW = 0.0001, 0.001


def measured(cost_of: dict[str, float], unsupported: str = "", *, only: str = "") -> list[Result]:
    """Every row at FAST, but those whose words hold a key of `cost_of`, which cost that."""
    results = []
    for case in every_case():
        if only not in case.words:
            continue
        result = Result(case)
        if unsupported and unsupported in case.words:
            result.unsupported = "not here"
        else:
            cost = next((cost for word, cost in cost_of.items() if word in case.words), FAST)
            whats = ("encrypt", "decrypt") if isinstance(case, Bulk) else ("server", "client")
            result.samples = {what: [cost, cost * 1.01, cost * 0.99] for what in whats}
            result.server_bytes = result.client_bytes = 500
            if isinstance(case, Handshake) and case.group.name == "X25519MLKEM768":
                result.server_bytes = result.client_bytes = 1600
        results.append(result)
    return results


def on(what: str, results: list[Result], *, has_aes: bool = True) -> Advice:
    return next(advice for advice in advise(results, has_aes=has_aes) if advice.what == what)


def test_the_key_is_never_one_that_browsers_or_public_cas_refuse_however_cheap() -> None:
    advice = on("key", measured({"ecdsa p-256": 0.0002, "p-384": SLOW, "rsa": SLOW}))
    assert advice.choice == "ECDSA P-256"
    assert "Ed25519 is for networks whose clients you know" in advice.reason


def test_the_key_is_never_one_below_128_bits_however_cheap() -> None:
    advice = on("key", measured({"rsa 2048": FAST / 5, "rsa 3072": SLOW, "p-384": SLOW}))
    assert advice.choice == "ECDSA P-256"
    assert "RSA 2048 costs 0.20 times as much, and with its 112 bits is for old clients only" in advice.reason


def test_among_sound_keys_the_measurement_decides() -> None:
    assert on("key", measured({"ecdsa p-256": SLOW, "rsa": SLOW})).choice == "ECDSA P-384"


def test_post_quantum_key_exchange_comes_first_whatever_it_costs_and_its_cost_is_said() -> None:
    advice = on("groups", measured({"x25519mlkem768": FAST + 0.000050}))
    assert advice.choice.startswith("X25519MLKEM768:X25519:")
    assert "50 µs more CPU and 2,200 more bytes" in advice.reason


def test_a_library_without_post_quantum_groups_is_not_told_to_use_them() -> None:
    advice = on("groups", measured({}, unsupported="mlkem"))
    assert "MLKEM" not in advice.choice
    assert "no post-quantum group" in advice.reason


def test_suites_come_in_the_order_of_their_cost_and_ccm_is_none_of_them() -> None:
    cost = {"aes_256": 0.00011, "chacha20": 0.0003, "ccm": FAST / 2}
    advice = on("ciphersuites", measured(cost))
    names = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
    assert advice.choice == ":".join(names)
    assert "AES-256-GCM costs 1.10 times as much per byte" in advice.reason
    assert "CNSA 2.0" in advice.reason


def test_a_processor_without_aes_gets_chacha20_first() -> None:
    advice = on("ciphersuites", measured({"aes": SLOW}), has_aes=False)
    assert advice.choice.startswith("TLS_CHACHA20_POLY1305_SHA256:")
    assert "no instructions for AES" in advice.reason


def test_what_the_rounds_do_not_tell_apart_costs_as_much() -> None:
    assert "AES-256-GCM costs as much per byte" in on("ciphersuites", measured({"chacha20": SLOW})).reason


def noisily(results: list[Result], word: str, what: str) -> list[Result]:
    """The rows with this word seem cheaper in most rounds, and dearer in more than a quarter of them."""
    for result in results:
        if word in result.case.words and what in result.samples:
            result.samples[what] = [FAST * factor for factor in (0.8, 0.8, 0.8, 1.3, 1.3)]
        elif what in result.samples:
            result.samples[what] = [FAST] * 5
    return results


def test_a_key_that_is_cheaper_only_within_the_noise_does_not_displace_the_default() -> None:
    advice = on("key", noisily(measured({}), "p-384", "server"))
    assert advice.choice == "ECDSA P-256"
    assert "cheapest" not in advice.reason
    assert "ECDSA P-384 costs as much" in advice.reason


def test_suites_that_differ_only_within_the_noise_stay_in_the_default_order() -> None:
    results = noisily(noisily(measured({}), "chacha20", "encrypt"), "chacha20", "decrypt")
    advice = on("ciphersuites", results)
    assert advice.choice == DEFAULT_SUITES
    assert "cheapest" not in advice.reason


def test_a_group_is_cheaper_or_dearer_only_where_the_rounds_agree() -> None:
    assert "no more CPU" in on("groups", noisily(measured({}), "full", "server")).reason
    without = [row for row in measured({}) if "mlkem" not in row.case.words]
    assert "cheaper" not in on("groups", noisily(without, "p-256 full", "server")).reason


@pytest.mark.parametrize(("load", "is_warned"), [(0.5, False), (2.0, False), (2.5, True), (15.0, True)])
def test_a_machine_with_more_to_do_than_cores_is_warned_about(load: float, is_warned: bool) -> None:
    machine: Machine = {
        "cpu": "a processor", "cpus": 2, "instructions": [], "kernel": "6.1", "python": "3.11.2",
        "cryptography": "49", "openssl": "OpenSSL 4", "load": load,
    }  # fmt: skip
    lines = list(machine_lines(machine))
    assert any(line.startswith("warning: ") for line in lines) is is_warned
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("words", "whats"),
    [("bulk", {"ciphersuites"}), ("resumed", set()), ("no such words", set())],
)
def test_what_was_not_measured_is_not_spoken_of(words: str, whats: set[str]) -> None:
    assert {advice.what for advice in advise(measured({}, only=words), has_aes=True)} == whats


def test_everything_measured_gives_every_recommendation() -> None:
    found = [advice.what for advice in advise(measured({}), has_aes=True)]
    assert found == ["key", "groups", "ciphersuites", "min_version", "resumption"]


def test_every_row_is_unique_and_every_suite_key_and_group_is_in_one() -> None:
    from tlstunnel.tools.bench import cases

    rows = every_case()
    assert len({(type(case), case.name) for case in rows}) == len(rows)
    shakes = [case for case in rows if isinstance(case, Handshake)]
    assert {case.suite for case in shakes} == set(cases.SUITES)
    assert {case.key for case in shakes} == set(cases.KEYS)
    assert {case.group for case in shakes} == set(cases.GROUPS)
    assert {(case.version, case.is_resumed) for case in shakes} == {(v, r) for v in ("1.2", "1.3") for r in (0, 1)}
    bulk = [case for case in rows if isinstance(case, Bulk)]
    assert {(case.suite, case.size) for case in bulk} == {(s, n) for s in cases.SUITES for n in (1024, 16384, 262144)}


@pytest.mark.parametrize("words", ["bulk chacha20", "TLS1.3 P-256 resumed", "rsa2048", "RSA-2048", "mlkem full"])
def test_a_filter_keeps_the_rows_in_which_all_its_words_occur(words: str) -> None:
    from tlstunnel.tools.bench.cases import chosen_by

    chosen: list[Case] = chosen_by(words)
    assert 0 < len(chosen) < len(every_case())
    assert all(word in case.words for case in chosen for word in words.lower().split())


def test_a_round_that_was_slow_for_both_does_not_change_their_ratio() -> None:
    assert ratio([1.0, 9.0, 1.0], [2.0, 18.0, 2.0]).median == 0.5


def test_a_rate_is_the_inverse_of_a_cost_and_keeps_its_quartiles_in_order() -> None:
    rate = spread([1.0, 2.0, 4.0]).inverse()
    assert (rate.low, rate.median, rate.high) == pytest.approx((1 / 3, 0.5, 1 / 1.5))
    assert rate.rounds == 3
    assert spread([1.0]).percent == 0
    assert spread([0.0, 0.0]).percent == 0


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(1000)]
    assert [percentile(values, share) for share in (0.5, 0.99, 0.999, 1.0)] == [500, 990, 999, 999]
    assert not math.isnan(percentile([7.0], 0.5))
