"""The tests of the manifests fail where one of their commands does, however it ended."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from testbed.policytests import run_all


def test_a_command_that_a_signal_ended_is_a_failure_and_the_rest_still_runs(tmp_path: Path) -> None:
    killed = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    reached = tmp_path / "reached"
    assert run_all([killed, ["touch", reached]]) == 1
    assert reached.exists()


@pytest.mark.parametrize(("codes", "expected"), [((0, 0), 0), ((0, 3), 1), ((1, 0), 1)])
def test_any_code_but_zero_is_a_failure(codes: tuple[int, ...], expected: int) -> None:
    assert run_all([[sys.executable, "-c", f"raise SystemExit({code})"] for code in codes]) == expected
