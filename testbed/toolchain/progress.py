"""Showing how tools are made ready: bars on a terminal, a few lines in a log."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from testbed.toolchain.build import Source, Toolchain
from testbed.toolchain.lock import Tool

LINE_EVERY = 60.0
"""Seconds between two signs of life of one tool in a log: enough for a CI that kills silent jobs, no flood."""


class BuildProgress:
    """A `BuildListener` that shows what it hears.

    Args:
        total: How many tools are asked for.
        console: Where to; the error output by default.
    """

    def __init__(self, total: int, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.total = total
        self.count = 0
        self._began = self._last_line = time.monotonic()
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self._all: TaskID = self._bars.add_task("tools", total=total, count=f"0/{total}")
        self._one: TaskID | None = None

    def __enter__(self) -> BuildProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def building(self, tool: Tool) -> None:
        """A build began."""
        self._begin(tool, "building")

    def fetching(self, tool: Tool, mirror: str) -> None:
        """A download began."""
        self._begin(tool, "fetching", f" from {mirror}")

    def waiting(self, tool: Tool) -> None:
        """Another process builds."""
        if self._one is None:
            self._begin(tool, "waiting for another process that builds")
        self.progress(tool, "waiting for another process", 0, 0)

    def progress(self, tool: Tool, phase: str, done: int, total: int) -> None:
        """How far it is."""
        count = f"{done}/{total}" if total else (str(done) if done else "")
        if phase == "fetching":
            count = f"{done / 1e6:.0f}/{total / 1e6:.0f} MB"
        if self._one is not None:
            self._bars.update(
                self._one, description=f"{tool.name}: {phase}", completed=done, total=total or None, count=count
            )
        if not self.console.is_terminal and time.monotonic() - self._last_line >= LINE_EVERY:
            elapsed = time.monotonic() - self._began
            self._line(f"tools: {tool.name}: {phase} {count}".rstrip() + f", {elapsed:.0f} s")

    def ready(self, tool: Tool, source: Source, seconds: float, size: int) -> None:
        """A tool is ready."""
        self.count += 1
        announced = self._one is not None
        self._end_bar()
        self._bars.update(self._all, completed=self.count, count=f"{self.count}/{self.total}")
        if announced or self.console.is_terminal:  # a log with a line for each cached tool tells nobody anything
            self._line(f"tools: {tool.name} {tool.version} {source} in {seconds:.1f} s, {size / 1e6:.0f} MB")

    def _begin(self, tool: Tool, verb: str, rest: str = "") -> None:
        self._end_bar()
        self._began = time.monotonic()
        self._one = self._bars.add_task(f"{tool.name}: {verb}", total=None, count="")
        if not self.console.is_terminal:
            self._line(f"tools: {verb} {tool.name} {tool.version}{rest} ({self.count + 1} of {self.total})")

    def _end_bar(self) -> None:
        if self._one is not None:
            self._bars.remove_task(self._one)
            self._one = None

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        self._bars.console.print(text, highlight=False, markup=False, soft_wrap=True)


def build_with_progress(toolchain: Toolchain, names: list[str]) -> None:
    """Make tools ready and show it."""
    with BuildProgress(len(names)) as progress:
        toolchain.ensure(names, listener=progress)
