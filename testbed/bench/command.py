"""The command `testbed bench`."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from testbed import __version__
from testbed.bench import CASES, Bench, Figure, render
from testbed.bench.cases import HUB_ADDONS
from testbed.bench.gateway import ADDONS
from testbed.config import PlatformSpec
from testbed.errors import TestbedError, UsageError
from testbed.load import generator as load
from testbed.toolchain import Toolchain
from testbed.toolchain.cli import build_with_progress

PEERS = ["kubectl", "envtest-start", "kwokctl"]


def chosen_cases(only: list[str]) -> list[str]:
    """The names of the wanted cases; all for none.

    Raises:
        UsageError: One is unknown.
    """
    for name in only:
        if name not in CASES:
            near = get_close_matches(name, CASES, n=1)
            raise UsageError(
                f"there is no benchmark {name!r}",
                why=f"did you mean {near[0]!r}?" if near else "",
                fix=f"use of: {', '.join(CASES)}",
            )
    return only or list(CASES)


def run(only: list[str], output: Path, **sizes: int) -> None:
    """Run cases, print the table and write the JSON; `sizes` are those of `Bench`.

    Raises:
        UsageError: A case is unknown, or the output cannot be written; nothing was started.
    """
    names = chosen_cases(only)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.touch()
    except OSError as error:
        raise UsageError(f"{output} cannot be written", why=str(error), fix="give another --json") from None
    toolchain = Toolchain()
    tools = [*PlatformSpec().tools(), *PEERS]
    if "memory" in names:
        tools += PlatformSpec(addons=HUB_ADDONS).tools()
    if "gateway" in names:
        tools += [*PlatformSpec(addons=ADDONS).tools(), load.TOOL]
    build_with_progress(toolchain, list(dict.fromkeys(tools)))
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    figures: list[Figure] = []
    failed: dict[str, TestbedError] = {}
    began = datetime.now(UTC)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks = {name: progress.add_task(name, total=None) for name in names}

        def tick(what: str, done: int, total: int) -> None:
            progress.update(tasks[what], completed=done, total=total)

        bench = Bench(toolchain, **sizes, tick=tick)
        for name in names:
            if not console.is_terminal:
                console.print(f"bench: {name}")
            try:
                figures += CASES[name](bench)
            except TestbedError as error:  # the other cases still tell something
                failed[name] = error
    machine = {
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load": os.getloadavg()[0],
        "kernel": platform.release(),
    }
    content = {
        "version": __version__,
        "started": began.isoformat(timespec="seconds"),
        "machine": machine,
        "failed": {name: error.what for name, error in failed.items()},
        "figures": [figure.model_dump() for figure in figures],
    }
    output.write_text(json.dumps(content, indent=1))
    if figures:
        Console(width=150).print(render(figures))
    Console().print(f"written: {output}", highlight=False)
    for name, reason in failed.items():
        raise TestbedError(f"benchmark {name}: {reason.what}", why=reason.why, fix=reason.fix)
