"""The vocabulary of endings: complete, unambiguous, and fit for labels."""

from __future__ import annotations

import re

import pytest

from tlstunnel.outcome import CloseReason, Fault, Stage


@pytest.mark.parametrize("reason", CloseReason)
def test_a_label_is_fit_for_a_metric_and_a_text_for_a_person(reason: CloseReason) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", reason.label)
    assert reason.text
    assert not reason.text.endswith(".")
    assert "\n" not in reason.text
    assert isinstance(reason.stage, Stage)
    assert isinstance(reason.fault, Fault)


@pytest.mark.parametrize("stage", Stage)
def test_labels_are_unique_within_a_stage(stage: Stage) -> None:
    labels = [reason.label for reason in CloseReason if reason.stage is stage]
    assert len(labels) == len(set(labels))


def test_only_endings_of_links_are_nobodys_fault_or_a_client_that_left() -> None:
    calm = {reason for reason in CloseReason if reason.fault is Fault.NOBODY}
    assert {reason.stage for reason in calm} <= {Stage.LINK, Stage.DIAL}


def test_our_own_fault_is_an_error_a_stop_or_nothing() -> None:
    ours = {reason for reason in CloseReason if reason.fault is Fault.US}
    assert {CloseReason.INTERNAL_ERROR, CloseReason.DRAINED, CloseReason.HANDSHAKE_DRAINED} <= ours


def test_a_reason_is_written_by_its_name() -> None:
    assert repr(CloseReason.FINISHED) == "CloseReason.FINISHED"
