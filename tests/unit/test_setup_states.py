"""The table of states that a connection goes through before it relays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tlstunnel.config.model import Mode
from tlstunnel.connection import setup
from tlstunnel.connection.connection import ACCEPTED, OVER, State
from tlstunnel.connection.runtime import ServiceRuntime

ROWS = [each for each in vars(setup).values() if isinstance(each, State)]
"""In the order of the file: from accept to the relay."""

KINDS: list[dict[str, Any]] = [
    {"mode": mode, "accept_proxy_protocol": proxy, "target_tls": tls, "names": names}
    for mode in Mode
    for proxy in (False, True)
    for tls in (None, object())
    for names in (False, True)
    if (mode is not Mode.CLIENT or tls is not None) and (mode is not Mode.PASSTHROUGH or tls is None)
]


def states_of(kind: dict[str, Any]) -> list[State]:
    service = SimpleNamespace(**{key: value for key, value in kind.items() if key != "names"})
    runtime = SimpleNamespace(service=service, routes=SimpleNamespace(is_needed=kind["names"]))
    path = setup.path_of(cast("ServiceRuntime", runtime))
    found = [ACCEPTED]
    while found[-1] in path:
        found.append(path[found[-1]])
        assert len(found) <= len(ROWS), "a circle"
    assert len(found) == len(path) + 1, "a state that nothing leads to"
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_path_leads_from_accept_to_the_relay_in_the_order_of_the_table(kind: dict[str, Any]) -> None:
    found = states_of(kind)
    assert (found[0], found[-1]) == (ACCEPTED, setup.RELAYING)
    assert found == sorted(found, key=ROWS.index)


def test_every_state_is_on_some_path() -> None:
    assert {state for kind in KINDS for state in states_of(kind)} == set(ROWS)


def test_nobody_is_waited_for_without_a_reason_to_give_up() -> None:
    assert [state for state in ROWS if state.late is None] == [setup.DIALING], "the dial keeps its own time"
    assert OVER not in ROWS


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind["mode"] is Mode.SERVER])
def test_in_server_mode_nothing_is_dialled_for_a_client_that_is_not_authorized(kind: dict[str, Any]) -> None:
    found = states_of(kind)
    assert found.index(setup.AUTHORIZATION) < found.index(setup.DIALING)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind["target_tls"] is not None])
def test_nothing_is_relayed_to_a_target_whose_certificate_was_not_authorized(kind: dict[str, Any]) -> None:
    assert states_of(kind)[-2] is setup.TARGET_AUTHORIZATION
