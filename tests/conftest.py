"""What tests of the harness share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.config import PlatformSpec
from testbed.toolchain import Toolchain

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    """The toolchain with what a platform needs made ready; of a session, so made before a test moves its home."""
    found = Toolchain()
    found.ensure([*PlatformSpec().tools(), "kubectl"])
    return found


@pytest.fixture(autouse=True)
def not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test says itself whether a need that is not met is a failure, which CI's variable would make it."""
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture
def testbed_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command line with state of its own; returns what it printed and its exit code."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from testbed.cli import main; main()", *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=cwd,
        )

    return run
