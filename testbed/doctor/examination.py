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
from testbed.doctor.leftovers import leftover_checks
from testbed.doctor.machine import machine_checks
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
        needed = set(config.load().tools())
        missing = needed & missing_tools(toolchain).keys()
        of_tools = list(tool_checks(toolchain, needed, network=network))
    except TestbedError as error:  # a broken lock or configuration, or a mirror's address that is none
        missing = {"unknown"}
        found = f"{error.what}: {error.why}" if error.why else error.what
        of_tools = [Check(name="configuration", state="missing", found=found, fix=error.fix)]
    of_machine = machine_checks(builds=bool(missing), state_folder=folder)
    return [*of_machine, *of_tools, *leftover_checks(folder)]


def ready(checks: Iterable[Check]) -> bool:
    """Whether the scenarios can run here."""
    return all(check.state != "missing" for check in checks)


def render_json(checks: list[Check]) -> str:
    """The checks for a program."""
    return json.dumps({"ready": ready(checks), "checks": [check.model_dump() for check in checks]}, indent=1)


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
        table.add_row(escape(check.name), state, escape(check.found), escape(check.fix))
    console.print(table)
    missing = [check.name for check in checks if check.state == "missing"]
    warned = sum(check.state == "warn" for check in checks)
    if missing:
        console.print(f"The scenarios cannot run here yet. Missing: {', '.join(missing)}", highlight=False)
    else:
        console.print(f"The scenarios can run here ({warned} warnings)", highlight=False)
