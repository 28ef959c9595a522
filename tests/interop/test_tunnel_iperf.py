"""iperf3 through a tunnel in client mode and one in server mode, in series.

Not with `--bidir`: its server tells the two connections apart by the order in which they arrive, and what sets several
connections up at once may hand them on in another one. Both directions of one connection: test_tunnel_integrity.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import peers, tunnel
from tests.support.interop import require

pytestmark = [pytest.mark.interop, pytest.mark.slow]

SIZE = 64 << 20


@pytest.fixture(scope="module")
def series() -> Iterator[tuple[tunnel.Tunnel, tunnel.Tunnel]]:
    with peers.iperf3() as service, tunnel.server(service.port) as far, tunnel.client(far.port) as near:
        yield near, far


def iperf3(port: int, *options: str) -> dict[str, Any]:
    command = [require("iperf3"), "-c", "127.0.0.1", "-p", str(port), "-J", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=peers.PATIENCE_S)
    report: dict[str, Any] = json.loads(done.stdout)
    assert "error" not in report, report["error"]
    return report["end"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("direction", [[], ["--reverse"]], ids=["forward", "reverse"])
def test_iperf3_moves_its_bytes_through_two_tunnels(
    series: tuple[tunnel.Tunnel, tunnel.Tunnel], direction: list[str]
) -> None:
    near, far = series
    end = iperf3(near.port, "-n", str(SIZE), *direction)
    assert end["sum_sent"]["bytes"] >= SIZE
    assert end["sum_received"]["bytes"] > 0
    for daemon in (near, far):
        records = [daemon.record() for _ in range(2)]  # one connection talks about the other
        assert {record["fault"] for record in records} == {"nobody"}
        way = "bytes_reverse" if direction else "bytes_forward"
        # It stops to count when the other side is done, so it may have counted less than came.
        assert max(record[way] for record in records) >= end["sum_received"]["bytes"]


def test_iperf3_with_several_streams_at_once(series: tuple[tunnel.Tunnel, tunnel.Tunnel]) -> None:
    near, far = series
    end = iperf3(near.port, "-n", str(SIZE // 4), "-P", "8")
    assert len(end["streams"]) == 8
    assert end["sum_sent"]["bytes"] >= SIZE // 4  # shared by them as they come, from iperf 3.16 on
    for daemon in (near, far):
        assert {daemon.record()["fault"] for _ in range(9)} == {"nobody"}
