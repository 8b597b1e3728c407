"""The table at the end of a run, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from testbed.errors import UsageError
from testbed.report.verdicts import ScenarioResult

REPORT = "report.json"
WIDTH = 150
GOOD = {"held", "incident seen"}


def write_report(folder: Path, scenarios: Mapping[str, ScenarioResult], run: Mapping[str, Any]) -> Path:
    """Write `report.json`: `run` (when, version, platform) and the scenarios by id. Returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {**run, "scenarios": {name: result.model_dump() for name, result in scenarios.items()}}
    path = folder / REPORT
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1))
    part.replace(path)
    return path


def read_report(folder: Path) -> tuple[dict[str, Any], dict[str, ScenarioResult]]:
    """What `write_report` wrote.

    Raises:
        UsageError: There is no report, or it is none of ours.
    """
    path = folder / REPORT
    try:
        run = json.loads(path.read_text())
        scenarios = {name: ScenarioResult.model_validate(entry) for name, entry in run.pop("scenarios").items()}
    except FileNotFoundError:
        raise UsageError(f"there is no report at {path}", fix="run `testbed run` first") from None
    except (OSError, ValueError, KeyError, AttributeError, ValidationError) as error:
        raise UsageError(f"{path} is no report of a run", why=str(error)[:300], fix="run `testbed run` again") from None
    return run, scenarios


def render(scenarios: Mapping[str, ScenarioResult], *, color: bool) -> str:
    """Scenario, both verdicts, what was measured against which limit, what was simulated, and why something failed."""
    table = Table(title="Scenarios", show_lines=False)
    table.add_column("scenario", overflow="fold")
    for name in ("with its guard", "negative control"):
        table.add_column(name, no_wrap=True)
    table.add_column("SLA measured / limit (s)", overflow="fold")
    table.add_column("simulated", no_wrap=True)
    legend: dict[str, str] = {}
    for scenario, result in scenarios.items():
        slas = "\n".join(f"{name} {value}" for name, value in result.slas.items())
        name = scenario.split("/")[-1].removeprefix("test_").replace(".py::test_", ": ").replace("_", " ")
        for text in result.fidelity:
            legend.setdefault(text, str(len(legend) + 1))
        simulated = " ".join(legend[text] for text in result.fidelity) or "nothing"
        # Rich takes [a-word] for a style: names of parameters would be lost.
        table.add_row(escape(name), _colored(result.guard), _colored(result.control), escape(slas), simulated)
    console = Console(width=WIDTH, force_terminal=color, no_color=not color)
    with console.capture() as capture:
        console.print(table)
        for text, number in legend.items():
            console.print(f"simulated, {number}: {text}", highlight=False, markup=False)
        for scenario, result in scenarios.items():
            for mode, reason in result.reasons.items():
                console.print(f"{scenario} [{mode}]: {reason}", highlight=False, markup=False)
                if mode in result.evidence:
                    console.print(f"    evidence: {result.evidence[mode]}", highlight=False, markup=False)
    return capture.get()


def _colored(verdict: str) -> str:
    return f"[green]{verdict}[/]" if verdict in GOOD else f"[bold red]{verdict}[/]"
