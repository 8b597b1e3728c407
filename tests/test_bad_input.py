"""Bad input: one clear error with what to do, exit code 2, nothing started."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tools", "build", "etdc"], "did you mean 'etcd'"),
        (["up", "--addons", "gatekeper"], "did you mean 'gatekeeper'"),
        (["up", "--clusters", "Dev"], "see `testbed up --help`"),
        (["up", "--clusters", "dev,dev"], "same name"),
        (["run", "scenarios/test_nothing.py"], "there is no scenario"),
        (["status", "--name", "nobody"], "testbed up"),
    ],
)
def test_refused(arguments: list[str], words: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", "from testbed.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
