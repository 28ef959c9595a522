"""Enumerating by elimination: everything is found, in the server's order, and whose order it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import strategies as st

from tests.support.fuzzing import fuzz
from tlstunnel.tools.probe.choices import CutShort, Order, in_turn, order_of
from tlstunnel.tools.probe.groups import IN_TLS12, IN_TLS13, group
from tlstunnel.tools.probe.names import text_of_der
from tlstunnel.tools.probe.suites import SUITES, offered_in, suite
from tlstunnel.tools.probe.trouble import Silent
from tlstunnel.tools.tls13.names import TLS_1_2, TLS_1_3

Choose = Callable[[tuple[int, ...]], int | None]


def with_own_order(*known: int) -> Choose:
    return lambda offered: next((each for each in known if each in offered), None)


def following(*known: int) -> Choose:
    return lambda offered: next((each for each in offered if each in known), None)


@fuzz(st.lists(st.integers(0, 20), unique=True))
def test_a_server_with_an_order_is_found_out_completely(known: list[int]) -> None:
    choose = with_own_order(*known)
    taken = in_turn(range(21), choose)
    assert taken == known
    assert order_of(taken, choose) is (Order.SERVER if len(known) > 1 else None)


@fuzz(st.lists(st.integers(0, 20), unique=True))
def test_a_server_that_follows_the_client_is_found_out_completely(known: list[int]) -> None:
    choose = following(*known)
    taken = in_turn(range(21), choose)
    assert taken == sorted(known)
    assert order_of(taken, choose) is (Order.CLIENT if len(known) > 1 else None)


def test_a_server_that_yields_chacha_has_an_order_all_the_same() -> None:
    aes, chacha, other = 1, 2, 3

    def choose(offered: tuple[int, ...]) -> int | None:
        return chacha if offered[0] == chacha else with_own_order(aes, other, chacha)(offered)

    taken = in_turn((aes, chacha, other), choose)
    assert order_of(taken, choose, unfit=lambda each: each == chacha) is Order.SERVER


def test_a_server_that_chooses_what_was_not_offered_does_not_keep_us() -> None:
    assert in_turn((1, 2, 3), lambda _: 1) == [1]


def test_a_server_that_rolls_dice_has_no_order() -> None:
    assert order_of([1, 2, 3], lambda _: 2) is None
    assert order_of([1, 2, 3], lambda _: None) is None


def test_a_server_that_stops_answering_leaves_what_it_took() -> None:
    def choose(offered: tuple[int, ...]) -> int:
        if len(offered) < 3:
            raise Silent("the server said nothing", 0)
        return offered[0]

    with pytest.raises(CutShort, match="after 3 answers: the server said nothing") as caught:
        in_turn((1, 2, 3, 4, 5), choose)
    assert caught.value.taken == (1, 2, 3)
    assert order_of([1, 2], choose) is None


@pytest.mark.parametrize("version", [TLS_1_3, TLS_1_2, 0x0302, 0x0301, 0x0300])
def test_each_version_is_asked_for_its_own_suites(version: int) -> None:
    offered = offered_in(version)
    assert len(offered) == len(set(offered)) > 8
    assert all(suite(each).is_tls13 == (version == TLS_1_3) for each in offered)
    assert version >= TLS_1_2 or not any(suite(each).is_aead for each in offered)
    assert suite(offered[0]).is_forward_secret
    assert suite(offered[0]).bits == 256


def test_every_suite_has_a_name_of_its_own() -> None:
    names = [each.name for each in SUITES.values()]
    assert len(names) == len(set(names)) == 320
    assert suite(0xFFFF).name == "unknown 0xffff"


def test_groups_have_names_sizes_and_the_mark_of_the_quantum() -> None:
    found = {number: group(number) for number in (*IN_TLS13, *IN_TLS12)}
    assert all("unknown" not in each.name for each in found.values())
    assert {each.name for each in found.values() if each.is_post_quantum} >= {"X25519MLKEM768", "SecP256r1MLKEM768"}
    assert found[0x1D].bits == 255
    assert found[0x0100].bits == 2048
    weak = {each.name for each in found.values() if each.is_weak}
    assert {"secp192r1", "sect163k1"} <= weak
    assert not weak & {"x25519", "secp256r1", "ffdhe2048", "X25519MLKEM768", "secp224r1"}
    assert group(0xFEFE).bits is None


def test_a_name_without_a_certificate_around_it_is_read() -> None:
    long = bytes.fromhex("3081bc3181b93081b60603550403 0c81ae".replace(" ", "")) + b"x" * 174
    assert text_of_der(bytes.fromhex("300d310b3009060355040a0c024578")) == "O=Ex"
    assert text_of_der(long) == "CN=" + "x" * 174
    assert text_of_der(b"\x30\x05abc") == "0x3005616263"
    assert text_of_der(b"") == "0x"


@fuzz(st.binary(max_size=80), examples=200)
def test_no_name_crashes_its_reader(name: bytes) -> None:
    assert isinstance(text_of_der(name), str)
