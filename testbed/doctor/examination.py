"""All checks together, and how they are shown."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from testbed import config
from testbed.doctor.check import Check
from testbed.doctor.demands import demands, needed, on_three_clusters
from testbed.doctor.leftovers import leftover_checks
from testbed.doctor.machine import machine_checks
from testbed.doctor.programs import configured_checks, program_checks
from testbed.doctor.tools import missing_tools, tool_checks
from testbed.errors import TestbedError
from testbed.paths import platforms_folder
from testbed.toolchain import Toolchain

LOG_WIDTH = 160
COLOURS = {"ok": "green", "warn": "yellow", "missing": "red", "optional": "dim"}


def examine(*, network: bool | None = None, state_folder: Path | None = None) -> list[Check]:
    """Look at everything. Builds, installs and changes nothing, except that it makes the folders a run would make.

    Args:
        network: Whether to ask the Go module proxy; None: only when a tool has to be built.
        state_folder: Where platforms live; the user's by default.
    """
    folder = state_folder or platforms_folder()
    try:
        toolchain = Toolchain()
        spec = config.load()
        wanted = demands(spec)
        builds = bool(needed(wanted) & missing_tools(toolchain).keys())
        largest = on_three_clusters(wanted)
        of_programs = [*configured_checks(spec, wanted, toolchain), *program_checks(wanted)]
        of_tools = [*of_programs, *tool_checks(toolchain, wanted, network=network)]
    except TestbedError as error:  # a broken lock or configuration, or a mirror's address that is none
        builds, largest = True, []
        found = f"{error.what}: {error.why}" if error.why else error.what
        of_tools = [Check(name="configuration", state="missing", found=found, fix=error.fix)]
    of_machine = machine_checks(builds=builds, state_folder=folder, largest=largest)
    return [*of_machine, *of_tools, *leftover_checks(folder)]


def ready(checks: Iterable[Check]) -> bool:
    """Whether every scenario can run here."""
    return all(check.state != "missing" for check in checks)


def blocked(checks: Iterable[Check]) -> dict[str, list[str]]:
    """What is missing for a group of scenarios alone, by group."""
    found: dict[str, list[str]] = {}
    for check in checks:
        if check.state == "missing":
            for group in check.only_for:
                found.setdefault(group, []).append(check.name)
    return found


def render_json(checks: list[Check]) -> str:
    """The checks for a program; `blocked` is for whom something is missing where it is not missing for all."""
    said = {"ready": ready(checks), "blocked": blocked(checks)}
    return json.dumps(said | {"checks": [check.model_dump() for check in checks]}, indent=1)


def render(checks: list[Check], console: Console | None = None) -> None:
    """The checks for a person: a table, and the verdict."""
    if console is None:
        console = Console()
        if not console.is_terminal:
            console.width = LOG_WIDTH
    table = Table("what", "state", "found", "what to do")
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    table.columns[2].overflow = "fold"
    for check in checks:
        state = f"[{COLOURS[check.state]}]{check.state}[/]"
        only = f" (only for {', '.join(check.only_for)})" if check.only_for else ""
        table.add_row(escape(check.name), state, escape(check.found + only), escape(check.fix))
    console.print(table)
    for line in verdict(checks):
        console.print(line, highlight=False, markup=False)


def verdict(checks: list[Check]) -> list[str]:
    """What can run here, in a line or a few."""
    missing = [check.name for check in checks if check.state == "missing" and not check.only_for]
    warnings = f"({sum(check.state == 'warn' for check in checks)} warnings)"
    if missing:
        return [f"The scenarios cannot run here yet. Missing: {', '.join(missing)}"]
    if not (groups := blocked(checks)):
        return [f"Every scenario can run here {warnings}"]
    lacking = [f"Scenarios of {group} cannot run yet. Missing: {', '.join(names)}" for group, names in groups.items()]
    return [f"The configured platform can start here {warnings}", *lacking]
