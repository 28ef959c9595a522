"""Rates, sparklines and the keys of `tlstunnel top`."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from tlstunnel.cli.top import obey
from tlstunnel.cli.top_view import ViewState, plain_line, screen, talkers_to_show
from tlstunnel.tools.top.rates import HISTORY, Totals, Watch, rates_between, sparkline


def status(
    ended: int = 0, reverse: int = 0, names: tuple[str, ...] = ("orders", "mail"), **trouble: int
) -> dict[str, Any]:
    return {
        "phase": "ready",
        "ready": True,
        "version": "1.0.0",
        "started_at": "2026-11-19T00:00:00Z",
        "uptime_s": 61.0,
        "worker_restarts": 0,
        "workers": [{}],
        "certificates": [
            {
                "service": "orders",
                "subject": "CN=\x1b[2Jx",
                "not_before": "2026-08-24T00:00:00Z",
                "not_after": "2026-11-22T00:00:00Z",
                "days_left": 2,
                "role": "certificate",
            }
        ],
        "services": [
            {
                "name": name,
                "connections": {"active": 2, "ended": ended},
                "handshakes": {"succeeded": ended, "failed": 0},
                "bytes": {"forward": 0, "reverse": reverse},
                "trouble": trouble,
            }
            for name in names
        ],
    }


def connection(identifier: str, moved: int, **about: Any) -> dict[str, Any]:
    return {
        "id": identifier, "bytes_forward": 0, "bytes_reverse": moved, "age_s": 1.0, "client": "192.0.2.7:1",
        "real_client": None, "server_name": None, "identity": None, "target": None, "service": "orders", **about,
    }  # fmt: skip


def draw(watch: Watch, view: ViewState, *, width: int = 80, height: int = 24, **more: Any) -> list[str]:
    console = Console(width=width, height=height, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(screen(status(), watch, view, width=width, height=height, address="127.0.0.1:9464", **more))
    return captured.get().splitlines()


def test_rates_are_differences_over_time() -> None:
    rates = rates_between(Totals(5, 10, 20, 1, 100, 1000), Totals(7, 14, 24, 3, 300, 5000), 2.0)
    assert (rates.open, rates.new, rates.handshakes, rates.failed) == (7, 3.0, 2.0, 1.0)
    assert (rates.forward, rates.reverse) == (100.0, 2000.0)


def test_a_restarted_tunnel_has_no_negative_rates() -> None:
    rates = rates_between(Totals(5, 1000, 1000, 9, 9, 9), Totals(1, 0, 0, 0, 0, 0), 1.0)
    assert (rates.new, rates.handshakes, rates.failed, rates.forward) == (0, 0, 0, 0)


def test_two_looks_give_rates_for_services_talkers_and_trouble() -> None:
    watch = Watch()
    watch.look(status(10, 1000, not_tls=1), [connection("a", 100)], 0.0)
    assert watch.current.new == 0
    watch.look(status(30, 5000, not_tls=5), [connection("a", 600), connection("b", 50)], 2.0)
    assert watch.services["mail"].new == 10
    assert watch.current.new == 20
    assert watch.current.reverse == 4000
    assert [(talker.about["id"], talker.rate, talker.total) for talker in watch.talkers] == [
        ("a", 250.0, 600),
        ("b", 0.0, 50),
    ]
    assert watch.trouble["mail", "not_tls"] == (5, 2.0)


def test_a_service_that_appears_between_two_looks_starts_at_no_rate() -> None:
    watch = Watch()
    watch.look(status(names=("orders",)), [], 0.0)
    watch.look(status(100, names=("orders", "new")), [], 1.0)
    assert watch.services["new"].new == 0


def test_history_is_bounded() -> None:
    watch = Watch()
    for number in range(HISTORY * 2):
        watch.look(status(number), [], float(number))
    assert len(watch.history) == HISTORY


def test_sparklines_show_the_last_values_against_the_highest() -> None:
    assert sparkline([0.0, 1.0, 2.0, 4.0], 4) == "▁▂▄█"
    assert sparkline([4.0, 0.0, 4.0], 2) == "▁█"
    assert sparkline([1.0], 3) == "  █"
    assert sparkline([], 2) == "  "
    assert sparkline([0.0, 0.0], 2) == "▁▁"


def watched() -> Watch:
    watch = Watch()
    many = [connection(f"{number:02}", number * 100, age_s=float(50 - number)) for number in range(40)]
    special = connection("ff", 1, identity="CN=Billing", service="mail", age_s=99.0)
    watch.look(status(), many, 0.0)
    watch.look(status(10, 1 << 30, not_tls=3, eof=1, refused=2, denied=9), [*many, special], 1.0)
    return watch


@pytest.mark.parametrize(("width", "height"), [(80, 24), (132, 50), (80, 20)])
def test_the_screen_fits_the_terminal(width: int, height: int) -> None:
    lines = draw(watched(), ViewState(), width=width, height=height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    for word in ("orders", "192.0.2.7:1", "denied", "days left", "q quit"):
        assert any(word in line for line in lines), word


@pytest.mark.parametrize("height", [13, 20, 24, 50, 90])
@pytest.mark.parametrize("names", [1, 3, 70])
@pytest.mark.parametrize("talkers", [0, 2, 40])
def test_the_screen_shows_all_it_has_room_for_and_says_what_it_hides(height: int, names: int, talkers: int) -> None:
    watch, trouble = Watch(), {f"reason_{number}": number for number in range(9)}
    busy = status(names=tuple(f"s{number}" for number in range(names)), **trouble)
    busy["certificates"] = [
        {**busy["certificates"][0], "service": f"s{number}", "subject": f"CN=c{number}"} for number in range(names)
    ]
    watch.look(busy, [connection(f"{number:02}", number, service="s0") for number in range(talkers)], 0.0)
    console = Console(width=120, height=height, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(screen(busy, watch, ViewState(), width=120, height=height, address="127.0.0.1:9464"))
    lines = [line.rstrip() for line in captured.get().splitlines()]
    assert len(lines) <= height
    titles = {
        word: next(line for line in lines if line.startswith(word))
        for word in ("service", "client", "trouble", "certificate")
    }
    hides = [word for word, line in titles.items() if f"{word}, and " in line]
    # Not every open connection is in the list, so clients may be more than it has lines for.
    assert len(lines) == height or set(hides) <= {"client"}
    for word, (total, starts) in {"service": (names, "s"), "trouble": (9 * names, "reason_")}.items():
        shown = sum(line.startswith(starts) and line != titles["service"] for line in lines)
        assert shown == total or titles[word].startswith(f"{word}, and {total - shown:,} more")


def test_what_peers_chose_cannot_move_the_cursor() -> None:
    assert not any("\x1b" in line for line in draw(watched(), ViewState()))


def test_the_screen_says_when_the_endpoint_is_gone() -> None:
    assert (
        "no tunnel's admin endpoint answers"
        in draw(watched(), ViewState(), note="no tunnel's admin endpoint answers")[0]
    )


def test_talkers_are_sorted_and_filtered_as_wished() -> None:
    watch = watched()
    assert talkers_to_show(watch, ViewState(sort="age"))[0].about["id"] == "ff"
    assert talkers_to_show(watch, ViewState(sort="total"))[0].about["id"] == "39"
    assert [each.about["id"] for each in talkers_to_show(watch, ViewState(text="billing"))] == ["ff"]
    assert [each.about["id"] for each in talkers_to_show(watch, ViewState(service="mail"))] == ["ff"]


def test_keys_sort_filter_pause_help_and_quit() -> None:
    view, services = ViewState(), ["mail", "orders"]
    assert obey("s", view, services)
    assert view.sort == "total"
    assert obey("ff", view, services)
    assert view.service == "orders"
    assert obey("f", view, services)
    assert view.service is None
    assert obey("p?", view, services)
    assert (view.is_paused, view.shows_help) == (True, True)
    assert not obey("q", view, services)


def test_a_typed_filter_may_hold_the_letters_of_keys() -> None:
    view = ViewState()
    for key in "/qsx\x7f":
        assert obey(key, view, [])
    assert (view.text, view.is_typing) == ("qs", True)
    obey("\r", view, [])
    assert (view.text, view.is_typing) == ("qs", False)
    obey("/", view, [])
    obey("\x1b", view, [])
    assert (view.text, view.is_typing) == ("", False)


def test_special_keys_are_ignored() -> None:
    view = ViewState()
    assert obey("\x1b[A", view, [])
    assert view == ViewState()


def test_a_filtered_service_that_is_gone_leads_back_to_the_first() -> None:
    view = ViewState(service="gone")
    obey("f", view, ["mail"])
    assert view.service == "mail"


def test_help_and_typing_are_shown() -> None:
    assert any("pause" in line for line in draw(watched(), ViewState(shows_help=True)))
    assert draw(watched(), ViewState(is_typing=True, text="ab"))[-1].startswith("/ab_")
    assert "PAUSED" in draw(watched(), ViewState(is_paused=True), width=100)[-1]


def test_a_plain_line_says_it_all() -> None:
    line = plain_line(status(), watched(), "12:00:00")
    assert line == ("12:00:00 ready open=4 new/s=20.0 handshakes/s=20.0 failed/s=0.0 forward=0 B/s reverse=2.0 GiB/s")
