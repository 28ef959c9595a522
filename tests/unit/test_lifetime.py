"""One certificate, one number of days: every command that tells how long it is good for says the same."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from rich.console import Console

from tests.support.admin_rig import config
from tlstunnel import lifetime
from tlstunnel.cli.cert import render
from tlstunnel.cli.colours import URGENCY_STYLES
from tlstunnel.cli.status import problems_of
from tlstunnel.observe.admin.page import page
from tlstunnel.observe.counters import Counters
from tlstunnel.observe.series import series_for
from tlstunnel.observe.state import CertificateState, TunnelState
from tlstunnel.observe.status import status_document
from tlstunnel.observe.words import days_cell, time_left, urgency
from tlstunnel.tools.pki import describe
from tlstunnel.tools.probe import weaknesses
from tlstunnel.x509.checks import _dates

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)


@pytest.mark.parametrize(
    ("ahead", "days", "said"),
    [
        (90 * DAY, 90, "90 days left"),
        (90 * DAY - SECOND, 89, "89 days left"),
        (3650 * DAY, 3650, "3,650 days left"),
        (2 * DAY - SECOND, 1, "1 day left"),
        (DAY - SECOND, 0, "23 hours left"),
        (HOUR, 0, "1 hour left"),
        (SECOND, 0, "less than a minute left"),
        (0 * SECOND, 0, "less than a minute left"),
        (-SECOND, -1, "expired less than a minute ago"),
        (-7 * HOUR, -1, "expired 7 hours ago"),
        (-DAY, -1, "expired 1 day ago"),
        (-2 * DAY - SECOND, -3, "expired 2 days ago"),
    ],
)
def test_what_is_said_to_be_left_is_never_more_than_there_is(ahead: timedelta, days: int, said: str) -> None:
    assert lifetime.days_left(NOW + ahead, NOW) == days
    assert lifetime.left(NOW + ahead, NOW) == said


def status_of(end: datetime, life: timedelta = 100 * DAY) -> dict[str, object]:
    """The status document of a tunnel with one certificate."""
    settings = config()
    series = series_for(settings)
    shown = CertificateState(
        service="orders",
        file="a.pem",
        subject="CN=a",
        not_before=(end - life).timestamp(),
        not_after=end.timestamp(),
        loaded_at=NOW.timestamp(),
    )
    counters = Counters(series.layout, rows=1)
    counters.row(0)
    state = TunnelState(
        version="0", supervisor_pid=1, started_at=NOW.timestamp() - 60, phase="ready", certificates=(shown,)
    )
    return status_document(counters, series, state, now=NOW.timestamp())


@pytest.mark.parametrize("ahead", [13 * DAY + 23 * HOUR, DAY, 5 * HOUR, -5 * HOUR, -3 * DAY])
def test_cert_show_status_and_probe_say_the_same_of_one_certificate(ahead: timedelta) -> None:
    end = NOW + ahead
    found = certificate(end)
    facts = describe.certificate(found, now=NOW)
    document = status_of(end)
    [shown] = document["certificates"]  # type: ignore[misc]
    assert shown["days_left"] == facts["days_left"] == lifetime.days_left(end, NOW)
    words = lifetime.left(end, NOW)
    assert time_left(document, shown) == words
    assert problems_of(document, 14) == [f"orders: a.pem: certificate of CN=a: {words}"]
    remarks = [remark for remark in facts["remarks"] if "expire" in remark]
    judged = weaknesses_of_dates(facts)
    if ahead > 0 * SECOND:
        span = words.removesuffix(" left")
        assert remarks == [f"expires in {span}; renew it"]
        assert judged == [f"it expires in {span}"]
    else:
        assert len(remarks) == len(judged) == 1


def test_cert_show_says_days_in_the_words_of_the_one_function() -> None:
    facts = describe.certificate(certificate(datetime.now(UTC) + 30 * DAY + HOUR))
    out = io.StringIO()
    console = Console(file=out, width=200)
    render._item(console, facts, short=True)
    assert "30 days left" in out.getvalue()


def test_a_column_of_days_holds_numbers_and_words_where_a_number_says_nothing() -> None:
    column = []
    for ahead in (3650 * DAY, DAY, 5 * HOUR, -5 * HOUR):
        document = status_of(NOW + ahead)
        [shown] = document["certificates"]  # type: ignore[misc]
        column.append(days_cell(document, shown))
    assert column == ["3,650", "1", "5 hours left", "expired 5 hours ago"]


LIVES = [6 * HOUR, DAY, 7 * DAY, 47 * DAY, 90 * DAY, 3650 * DAY]


@pytest.mark.parametrize("life", LIVES)
def test_what_was_just_made_is_never_about_to_expire_and_is_before_it_has(life: timedelta) -> None:
    begin, end = NOW, NOW + life
    levels = [lifetime.urgency(begin, end, begin + life * share / 1000) for share in range(1002)]
    order = list(lifetime.Urgency)
    assert levels == sorted(levels, key=order.index)
    assert levels[0] is lifetime.Urgency.NONE
    assert levels[700] is lifetime.Urgency.NONE
    assert set(levels) == set(order)
    assert levels[1001] is lifetime.Urgency.PAST


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("passed", [0.0, 0.7, 0.9, 0.999])
def test_every_command_warns_of_an_end_at_the_same_time(life: timedelta, passed: float) -> None:
    end = NOW + life * (1 - passed)
    found, document = certificate(end, life), status_of(end, life)
    facts = describe.certificate(found, now=NOW)
    [shown] = document["certificates"]  # type: ignore[misc]
    is_due = lifetime.urgency(end - life, end, NOW) is not lifetime.Urgency.NONE
    assert bool(problems_of(document, None)) is is_due
    assert bool(weaknesses_of_dates(facts)) is is_due
    assert any("expires in" in remark for remark in facts["remarks"]) is is_due
    assert bool(_dates("", end - life, end, NOW)) is is_due
    assert (' class="soon"' in page(document) or ' class="bad"' in page(document)) is is_due
    style = URGENCY_STYLES[urgency(document, shown)]
    assert bool(style) is is_due


def weaknesses_of_dates(facts: dict[str, Any]) -> list[str]:
    return [weakness.what for weakness in weaknesses._dates(facts, "it", NOW)]


def certificate(end: datetime, life: timedelta = 100 * DAY) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.not_valid_before(end - life).not_valid_after(end).serial_number(4711)
    return builder.sign(key, hashes.SHA256())
