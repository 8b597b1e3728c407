"""`testbed tools`: see, build and remove the binaries that a run needs."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from testbed.toolchain.build import Source, Toolchain
from testbed.toolchain.lock import Tool

app = typer.Typer(no_args_is_help=True, help="The pinned binaries: built once from Go modules, kept in a cache.")
Names = Annotated[list[str] | None, typer.Argument(help="Tools by name; all of the lock without one.")]


class BuildProgress:
    """Shows how tools are made ready: bars on a terminal, a line a tool elsewhere."""

    def __init__(self, total: int, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task: TaskID = self.progress.add_task("tools", total=total)

    def __enter__(self) -> BuildProgress:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def building(self, tool: Tool) -> None:
        """A build began."""
        self.progress.update(self.task, description=f"building {tool.name} {tool.version}")
        self._line(f"tools: building {tool.name} {tool.version}")

    def waiting(self, tool: Tool) -> None:
        """Another process builds."""
        self.progress.update(self.task, description=f"waiting for another build of {tool.name}")
        self._line(f"tools: waiting for another process that builds {tool.name}")

    def ready(self, tool: Tool, source: Source, seconds: float, size: int) -> None:
        """A tool is ready."""
        self.progress.advance(self.task)
        if source == "built" or self.console.is_terminal:
            self.progress.console.print(
                f"tools: {tool.name} {tool.version} {source} in {seconds:.1f} s, {size / 1e6:.0f} MB", highlight=False
            )

    def _line(self, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(text, highlight=False)


def build_with_progress(toolchain: Toolchain, names: list[str]) -> None:
    """Make tools ready and show it."""
    with BuildProgress(len(names)) as progress:
        toolchain.ensure(names, listener=progress)


@app.command("list")
def list_tools() -> None:
    """Show every tool: version, whether it is ready, size and build time."""
    table = Table("tool", "version", "state", "MB", "build s", "path")
    for row in Toolchain().status():
        seconds = f"{row.build_seconds:.1f}" if row.build_seconds is not None else ""
        size = f"{row.size / 1e6:.0f}" if row.size else ""
        table.add_row(row.name, row.version, row.source, size, seconds, str(row.path or ""))
    Console().print(table)


@app.command()
def build(names: Names = None) -> None:
    """Build what is missing. Ctrl-C is safe: the next call goes on where this one stopped."""
    toolchain = Toolchain()
    began = time.monotonic()
    wanted = [tool.name for tool in (toolchain.find(names) if names else toolchain.tools())]
    build_with_progress(toolchain, wanted)
    Console(stderr=True).print(f"{len(wanted)} tools ready in {time.monotonic() - began:.1f} s")


@app.command()
def path(name: Annotated[str, typer.Argument(help="A tool by name.")]) -> None:
    """Print the path of a tool's binary, making it ready first."""
    sys.stdout.write(f"{Toolchain().ensure([name])[name]}\n")


@app.command()
def clean(names: Names = None) -> None:
    """Remove tools from the cache."""
    freed = Toolchain().clean(names or [])
    Console().print(f"{freed / 1e6:.0f} MB freed")
