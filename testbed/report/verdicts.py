"""Verdicts of scenarios and their controls, as properties that travel in pytest's reports (also under xdist)."""

from __future__ import annotations

import json
from typing import Final, Literal

import pytest
from pydantic import BaseModel, Field

GUARD_ON: Final = "guard-on"
CONTROL: Final = "control"
Mode = Literal["guard-on", "control"]
Verdict = Literal["held", "NOT HELD", "error", "incident seen", "blind", "VOID", "skipped"]
"""With the guard: held, NOT HELD (the incident happened), error (something else broke). Of a control: incident seen
(what it must), blind (it saw nothing: the scenario proves nothing), VOID (it broke before it could tell)."""
NOT_RUN = "-"
PREFIX = "testbed."
SLA = "sla."


class Row(BaseModel):
    """One run of a scenario, with its guard or as control."""

    scenario: str
    mode: Mode
    verdict: Verdict
    seconds: float = 0.0
    slas: dict[str, str] = Field(default_factory=dict)
    fidelity: list[str] = Field(default_factory=list)


class ScenarioResult(BaseModel):
    """A scenario with its control, as in the report."""

    guard: str = NOT_RUN
    control: str = NOT_RUN
    slas: dict[str, str] = Field(default_factory=dict)
    """Measured and limit in seconds, by name."""
    seconds: dict[str, float] = Field(default_factory=dict)
    """How long each of the two runs took, by mode."""
    fidelity: list[str] = Field(default_factory=list)
    """What is simulated in the parts that the scenario needs."""


def mode_of(item: pytest.Item) -> Mode | None:
    """How this run of a scenario goes; None for what is no scenario."""
    if item.get_closest_marker("scenario") is None:
        return None
    callspec = getattr(item, "callspec", None)
    return CONTROL if callspec is not None and callspec.params.get("guard") == CONTROL else GUARD_ON


def scenario_of(nodeid: str) -> str:
    """The id of the scenario, the same for both of its runs, and without the group that xdist appends."""
    nodeid = nodeid.split("@")[0]
    for mode in (GUARD_ON, CONTROL):
        nodeid = nodeid.replace(f"[{mode}]", "").replace(f"[{mode}-", "[").replace(f"-{mode}]", "]")
        nodeid = nodeid.replace(f"-{mode}-", "-")
    return nodeid


def record(item: pytest.Item, name: str, value: object) -> None:
    """Set a property of a test; replaces an earlier value."""
    key = name if name.startswith(SLA) else PREFIX + name
    item.user_properties[:] = [*(entry for entry in item.user_properties if entry[0] != key), (key, value)]


def row_of(report: pytest.TestReport) -> Row | None:
    """The row that this report ends: of a test that ran, or whose set-up failed or skipped it."""
    properties = {name: str(value) for name, value in report.user_properties}
    if PREFIX + "scenario" not in properties or report.when == "teardown":
        return None
    mode: Mode = CONTROL if properties[PREFIX + "mode"] == CONTROL else GUARD_ON
    verdict: Verdict
    if report.skipped:
        verdict = "skipped"
    elif report.when == "setup":
        if not report.failed:
            return None
        verdict = "VOID" if mode == CONTROL else "error"
    else:
        verdict = properties[PREFIX + "verdict"]  # type: ignore[assignment] # checked by the model
    return Row(
        scenario=properties[PREFIX + "scenario"],
        mode=mode,
        verdict=verdict,
        seconds=round(report.duration, 2),
        slas={name.removeprefix(SLA): value for name, value in properties.items() if name.startswith(SLA)},
        fidelity=json.loads(properties.get(PREFIX + "fidelity", "[]")),
    )


def merge(rows: list[Row]) -> dict[str, ScenarioResult]:
    """Both runs of each scenario in one result."""
    merged: dict[str, ScenarioResult] = {}
    for row in rows:
        result = merged.setdefault(row.scenario, ScenarioResult())
        if row.mode == CONTROL:
            result.control = row.verdict
        else:
            result.guard, result.slas = row.verdict, row.slas
        result.seconds[row.mode] = row.seconds
        result.fidelity = row.fidelity or result.fidelity
    return merged
