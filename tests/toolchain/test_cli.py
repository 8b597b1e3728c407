"""`testbed tools`: what the commands print and how they exit."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console
from typer.testing import CliRunner

from testbed.errors import UsageError
from testbed.toolchain import Mirror, cli, load_lock, progress

Run = Callable[..., str]

if TYPE_CHECKING:
    from conftest import Workshop


@pytest.fixture
def run(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `testbed tools ARGUMENTS` with the lock and cache of the test; returns the standard output."""
    monkeypatch.setattr(cli, "Toolchain", workshop.toolchain)

    def run(*arguments: str) -> str:
        return CliRunner().invoke(cli.app, arguments, catch_exceptions=False).stdout

    return run


def test_build_list_and_path(run: Run) -> None:
    assert "missing" in run("list")
    run("build")
    listed = run("list")
    assert "cached" in listed
    assert "other versions" not in listed
    path = run("path", "tiny").strip()
    assert subprocess.run([path], capture_output=True, check=True).stderr == b"v1.2.3 42\n"


def test_an_optional_tool_is_built_when_asked_for(run: Run, workshop: Workshop) -> None:
    workshop.write_tool(extra='optional = "testbed bench"\n')
    run("build")
    listed = run("list")
    assert "missing" in listed
    assert "testbed bench" in listed
    with pytest.raises(UsageError, match="--all takes no names"):
        run("build", "--all", "tiny")
    run("build", "--all")
    assert "cached" in run("list")
    workshop.write_tool()
    assert "cached" in run("list")  # whether it is optional does not change what is built
    run("clean")
    workshop.write_tool(extra='optional = "testbed bench"\n')
    run("build", "tiny")
    assert "cached" in run("list")


def test_what_is_optional() -> None:
    optional = {name for name, tool in load_lock().items() if tool.optional}
    assert optional == {"kwokctl", "envtest-start", "kind", "terraform-provider-aws-full"}


def test_mirror_prints_the_pin(run: Run, workshop: Workshop, tmp_path: Path) -> None:
    folder = tmp_path / "mirror"
    with pytest.raises(UsageError, match="no tool is ready"):
        run("mirror", str(folder))
    name, pin = run("mirror", str(folder), "tiny").strip().split("=")
    assert name == "TESTBED_MIRROR_SHA256"
    run("clean")
    workshop.toolchain(Mirror(str(folder), pin)).ensure(["tiny"])
    assert "mirrored" in run("list")


def test_list_tells_what_is_stale_and_how_the_mirror_is_trusted(
    run: Run, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run("build")
    workshop.write_tool("v1.2.4")
    monkeypatch.setenv("TESTBED_MIRROR", str(tmp_path))
    listed = run("list")
    assert "1 MB of other versions" in listed
    assert "not pinned: trusted as a whole" in listed
    assert "1 MB freed" in run("clean", "--stale")
    with pytest.raises(UsageError, match="takes no names"):
        run("clean", "--stale", "tiny")


def test_a_log_gets_a_line_at_the_start_and_the_end_and_signs_of_life(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    toolchain = workshop.toolchain()
    for _ in range(2):
        with progress.BuildProgress(1, Console(force_terminal=False, stderr=True)) as shown:
            toolchain.ensure(["tiny"], listener=shown)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "tools: building tiny v1.2.3 (1 of 1)"
    assert any(line.startswith("tools: tiny: linking") for line in lines[1:-1])
    assert lines[-1].startswith("tools: tiny v1.2.3 built in ")


def test_a_terminal_gets_bars(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(force_terminal=True, stderr=True, width=120)
    with progress.BuildProgress(1, console) as shown:
        workshop.toolchain().ensure(["tiny"], listener=shown)
        shown._bars.refresh()
    assert "tiny v1.2.3 built in" in capsys.readouterr().err
