"""`testbed tools`: see, build, share and remove the binaries that a run needs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from testbed.errors import UsageError
from testbed.toolchain.build import Toolchain
from testbed.toolchain.export import fill_mirror
from testbed.toolchain.progress import build_with_progress

app = typer.Typer(no_args_is_help=True, help="The pinned binaries: built once from Go modules, kept in a cache.")
Names = Annotated[list[str] | None, typer.Argument(help="Tools by name; all of the lock without one.")]
LOG_WIDTH = 160

__all__ = ["app", "build_with_progress"]


@app.command("list")
def list_tools() -> None:
    """Show every tool: version, whether it is ready, size, and the time and Go of its build.

    `only for` names what alone needs an optional tool, one that `testbed tools build` without names leaves out.
    """
    toolchain = Toolchain()
    table = Table("tool", "version", "state", "only for", "MB", "build s", "Go", "path")
    table.columns[0].no_wrap = True
    table.columns[-1].overflow = "fold"
    for row in toolchain.status():
        seconds = f"{row.build_seconds:.1f}" if row.build_seconds is not None else ""
        size = f"{row.size / 1e6:.0f}" if row.size else ""
        path = str(row.path or "").removeprefix(f"{toolchain.cache}/")
        table.add_row(row.name, row.version, row.source, row.optional, size, seconds, row.go or "", path)
    console = Console()
    if not console.is_terminal:
        console.width = LOG_WIDTH
    console.print(table)
    console.print(f"cache: {toolchain.cache}", highlight=False, markup=False, soft_wrap=True)
    if toolchain.mirror is not None:
        console.print(f"mirror: {toolchain.mirror.describe()}", highlight=False, markup=False, soft_wrap=True)
    if stale := toolchain.stale_bytes():
        console.print(f"{stale / 1e6:.0f} MB of other versions: `testbed tools clean --stale` removes them")


@app.command()
def build(
    names: Annotated[
        list[str] | None, typer.Argument(help="Tools by name; without one all that scenarios and tests need.")
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="The optional ones of `testbed tools list`, too: 20 minutes more on two cores."),
    ] = False,
) -> None:
    """Make ready what is missing. Ctrl-C is safe: the next call goes on where this one stopped."""
    if everything and names:
        raise UsageError("--all takes no names", fix="leave one of the two out")
    toolchain = Toolchain()
    began = time.monotonic()
    chosen = toolchain.find(names) if names else toolchain.tools()
    wanted = [tool.name for tool in chosen if names or everything or not tool.optional]
    build_with_progress(toolchain, wanted)
    console = Console(stderr=True)
    console.print(f"{len(wanted)} tools ready in {time.monotonic() - began:.1f} s")
    if left_out := [f"{tool.name} ({tool.optional})" for tool in chosen if tool.name not in wanted]:
        text = f"left out, as nothing else needs them: {', '.join(left_out)}; --all builds them"
        console.print(text, highlight=False, markup=False, soft_wrap=True)


@app.command()
def path(name: Annotated[str, typer.Argument(help="A tool by name.")]) -> None:
    """Print the path of a tool's binary, making it ready first."""
    toolchain = Toolchain()
    build_with_progress(toolchain, [name])
    sys.stdout.write(f"{toolchain.ensure([name])[name]}\n")


@app.command()
def mirror(
    folder: Annotated[Path, typer.Argument(help="The folder of the mirror: new, or one to add to.")],
    names: Names = None,
) -> None:
    """Add this machine's ready tools to a mirror for others, and print the digest to pin.

    Tools that are named are made ready first; without names, those that are ready are taken.
    """
    toolchain = Toolchain()
    wanted = toolchain.find(names) if names else toolchain.tools()
    if names:
        build_with_progress(toolchain, names)
    ready = [(tool, entry) for tool in wanted if (entry := toolchain.entry(tool)) is not None]
    missing = {tool.name for tool in wanted} - {tool.name for tool, _ in ready}
    if not ready:
        raise UsageError("no tool is ready in the cache", fix="run `testbed tools build` first, or name the tools")
    digest = fill_mirror(folder, ready)
    console = Console(stderr=True)
    console.print(f"{len(ready)} tools are in {folder}", highlight=False, markup=False, soft_wrap=True)
    if missing:
        console.print(f"not in it, since not built here: {', '.join(sorted(missing))}", highlight=False, soft_wrap=True)
    sys.stdout.write(f"TESTBED_MIRROR_SHA256={digest}\n")


@app.command()
def clean(
    names: Names = None,
    stale: Annotated[bool, typer.Option("--stale", help="Only what other versions of the lock or Go left.")] = False,
) -> None:
    """Remove tools from the cache."""
    if stale and names:
        raise UsageError("--stale takes no names", fix="leave one of the two out")
    freed = Toolchain().clean_stale() if stale else Toolchain().clean(names or [])
    Console().print(f"{freed / 1e6:.0f} MB freed")
