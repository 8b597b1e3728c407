"""What a benchmark measured: samples with a unit, beside the target where there is one."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from pydantic import BaseModel, Field, computed_field
from rich.table import Table


class Figure(BaseModel):
    """One measured quantity."""

    name: str
    unit: str
    samples: list[float] = Field(min_length=1)
    target: float | None = None
    """The most that it should be; a benchmark reports, it does not fail."""
    note: str = ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def median(self) -> float:
        """The median of the samples."""
        return round(statistics.median(self.samples), 3)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def met(self) -> bool | None:
        """Whether the median is within the target."""
        return None if self.target is None else self.median <= self.target


def render(figures: Iterable[Figure]) -> Table:
    """Figures as a table: median, spread, target."""
    table = Table("figure", "median", "min", "max", "n", "target", "note", title="Benchmark")
    for one in figures:
        target = "" if one.target is None else f"≤ {one.target:g} {'✓' if one.met else '✗'}"
        table.add_row(
            one.name,
            f"{one.median:g} {one.unit}",
            f"{min(one.samples):.3g}",
            f"{max(one.samples):.3g}",
            str(len(one.samples)),
            target,
            one.note,
        )
    return table
