"""The state document: whole or not at all, from any process."""

from __future__ import annotations

import os
import time

import pytest

from tlstunnel.observe.state import (
    CertificateState,
    ReloadState,
    ServiceState,
    StateBlob,
    TunnelState,
    WorkerState,
    state_from,
)

STATE = TunnelState(
    version="1.0",
    supervisor_pid=1,
    started_at=1.5,
    phase="ready",
    services=(ServiceState(name="a", mode="server", listeners=("127.0.0.1:1",), targets=("127.0.0.1:2",)),),
    workers=(WorkerState(pid=2, row=1, generation=1, started_at=2.0),),
    certificates=(
        CertificateState(
            service="a", file="/c", subject="CN=ü\n", not_before=2, not_after=3, loaded_at=1, names=("x",)
        ),
    ),
    last_reload=ReloadState(at=4.0, ok=False, errors=("tunnel.toml: no",)),
)


def test_what_was_published_is_read() -> None:
    blob = StateBlob()
    assert blob.read() is None
    blob.publish(STATE)
    assert blob.read() == STATE


def test_a_state_without_anything_optional_survives_too() -> None:
    blob = StateBlob()
    empty = TunnelState(version="1.0", supervisor_pid=1, started_at=0.0)
    blob.publish(empty)
    assert blob.read() == empty
    assert not empty.is_ready


def test_a_state_that_has_no_room_leaves_the_old_one() -> None:
    blob = StateBlob()
    blob.publish(STATE)
    with pytest.raises(ValueError, match="its place has"):
        blob.publish(TunnelState(version="x" * (5 << 20), supervisor_pid=1, started_at=0.0))
    assert blob.read() == STATE


def test_an_unknown_key_is_refused_instead_of_ignored() -> None:
    with pytest.raises(TypeError):
        state_from(
            {"services": [], "workers": [], "certificates": [], "staples": [], "last_reload": None, "surprise": 1}
        )


def test_a_reader_never_sees_half_a_document_while_another_process_writes() -> None:
    blob = StateBlob()
    blob.publish(TunnelState(version="0" * 2000, supervisor_pid=0, started_at=0.0))
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        for number in range(1, 3001):
            blob.publish(TunnelState(version=str(number % 10) * 2000, supervisor_pid=number, started_at=time.time()))
        os.close(write)
        os._exit(0)
    os.close(write)
    seen = set()
    try:
        while True:
            state = blob.read()
            assert state is not None
            assert state.version == str(state.supervisor_pid % 10) * 2000
            seen.add(state.supervisor_pid)
            if state.supervisor_pid == 3000:
                break
    finally:
        os.read(read, 1)
        os.close(read)
        os.waitpid(pid, 0)
    assert len(seen) > 1
