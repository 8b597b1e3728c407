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
EVIDENCE = "evidence"
SLA = "sla."


class Row(BaseModel):
    """One run of a scenario, with its guard or as control."""

    scenario: str
    mode: Mode
    verdict: Verdict
    seconds: float = 0.0
    slas: dict[str, str] = Field(default_factory=dict)
    fidelity: list[str] = Field(default_factory=list)
    reason: str = ""
    """Why it failed, in a line."""
    evidence: str = ""
    """Where its evidence is."""


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
    reasons: dict[str, str] = Field(default_factory=dict)
    """Why a run of it failed, by mode."""
    evidence: dict[str, str] = Field(default_factory=dict)
    """The folder with the evidence of a run that failed, by mode."""


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
    """The row that this report ends: of a test that ran, or whose set-up failed or skipped it, or that left a mess."""
    properties = {name: str(value) for name, value in report.user_properties}
    if PREFIX + "scenario" not in properties or (report.when != "call" and report.passed):
        return None
    mode: Mode = CONTROL if properties[PREFIX + "mode"] == CONTROL else GUARD_ON
    verdict: Verdict
    if report.skipped:
        verdict = "skipped"
    elif report.when == "call":
        verdict = properties[PREFIX + "verdict"]  # type: ignore[assignment] # checked by the model
    else:
        verdict = "VOID" if mode == CONTROL else "error"
    return Row(
        scenario=properties[PREFIX + "scenario"],
        mode=mode,
        verdict=verdict,
        seconds=round(report.duration, 2),
        slas={name.removeprefix(SLA): value for name, value in properties.items() if name.startswith(SLA)},
        fidelity=json.loads(properties.get(PREFIX + "fidelity", "[]")),
        reason=_reason(report),
        evidence=properties.get(PREFIX + EVIDENCE, ""),
    )


def _reason(report: pytest.TestReport) -> str:
    """The message of what failed, its first line; empty where nothing did."""
    if not report.failed:
        return ""
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = (crash.message if crash is not None else str(report.longrepr)).strip().splitlines()
    where = f"in its {report.when}: " if report.when != "call" else ""
    return f"{where}{lines[0] if lines else 'no message'}"


def merge(rows: list[Row]) -> dict[str, ScenarioResult]:
    """Both runs of each scenario in one result; of two rows of one run the first bad one counts."""
    merged: dict[str, ScenarioResult] = {}
    for row in rows:
        result = merged.setdefault(row.scenario, ScenarioResult())
        result.fidelity = row.fidelity or result.fidelity
        if row.mode in result.reasons:
            continue
        if row.mode == CONTROL:
            result.control = row.verdict
        else:
            result.guard, result.slas = row.verdict, row.slas
        result.seconds.setdefault(row.mode, row.seconds)
        if row.reason:
            result.reasons[row.mode] = row.reason
        if row.evidence:
            result.evidence[row.mode] = row.evidence
    return merged
