"""Lanes under pytest-xdist."""

from __future__ import annotations

import pytest

SCENARIOS = """
import os
from pathlib import Path
import pytest

@pytest.fixture
def aws(): ...

@pytest.mark.parametrize("number", range(6))
def test_of_one_lane(aws, number):
    with Path({seen!r}).open("a") as seen:
        seen.write(os.environ["PYTEST_XDIST_WORKER"] + " ")

def test_of_none(): ...
"""


@pytest.mark.parametrize(("arguments", "workers"), [([], 1), (["--dist=loadgroup"], 1), (["--dist=load"], 2)])
def test_a_lane_has_one_worker_unless_something_else_is_asked_for(
    pytester: pytest.Pytester, arguments: list[str], workers: int
) -> None:
    seen = pytester.path / "seen"
    pytester.makepyfile(SCENARIOS.format(seen=str(seen)))
    pytester.runpytest_subprocess("-n", "2", *arguments).assert_outcomes(passed=7)
    assert len(set(seen.read_text().split())) == workers
