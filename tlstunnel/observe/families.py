"""What a metric is: its family, which stands at the field that has its values.

    active: int = gauge("connections_active{service}", "Connections that are open now.")

The tables are dataclasses. `series` has what is counted; `state` and `processes` have what is known otherwise. The page
of `/metrics`, the counters in shared memory and the reference page are loops over the fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

_PREFIX = "tlstunnel_"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric, as `/metrics` and the reference page show it.

    Args:
        series: its name and labels as the contract writes them, without prefix and `_total`; "" for a counter that
            is for ourselves and not shown.
        kind: counter, gauge or histogram.
        help: what both pages say of it.
        remark: what only the reference page adds.
        keys: of what is counted: the values of the labels after `service`, each with a counter of its own.
        bounds: of a histogram: the upper bounds of its buckets, each inclusive.
        is_float: its counter is a float.
        is_sparse: of its keys are shown those that the configuration foresees, and others once they were counted.
    """

    series: str
    kind: str
    help: str
    remark: str = ""
    keys: tuple[Any, ...] = ()
    bounds: tuple[float, ...] = ()
    is_float: bool = False
    is_sparse: bool = False

    @property
    def name(self) -> str:
        """The name of the family, with its prefix."""
        name = self.series.partition("{")[0]
        return name if name.startswith("process_") else _PREFIX + name

    @property
    def sample_name(self) -> str:
        """The name of its series; a histogram has several, which begin so."""
        return self.name + ("_total" if self.kind == "counter" else "")

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of its labels."""
        return tuple(self.series.partition("{")[2].rstrip("}").split(",")) if "{" in self.series else ()


def counter(series: str, help: str, remark: str = "", **more: Any) -> Any:
    """A field that is a counter."""
    return field(metadata={"family": Family(series, "counter", help, remark, **more)})


def gauge(series: str = "", help: str = "", remark: str = "", **more: Any) -> Any:
    """A field that is a gauge."""
    return field(metadata={"family": Family(series, "gauge", help, remark, **more)})


def histogram(series: str, bounds: tuple[float, ...], help: str, remark: str = "") -> Any:
    """A field that is a histogram."""
    return field(metadata={"family": Family(series, "histogram", help, remark, bounds=bounds)})


def families(table: type) -> Iterator[tuple[str, Family]]:
    """The metrics of a table, by their fields, in the order of `/metrics`."""
    return ((each.name, each.metadata["family"]) for each in fields(table) if "family" in each.metadata)


def shown(table: type) -> Iterator[tuple[str, Family]]:
    """Those that are not for ourselves."""
    return ((name, family) for name, family in families(table) if family.series)
