"""A guard that was not put back makes the platform unfit for the next scenario, in this run and in later ones."""

from __future__ import annotations

import pytest

SCENARIOS = """
import os
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from testbed.incident import Incident

class Guard:
    def __init__(self, back, away="pass"):
        self.back = back
        self.away = away

    @contextmanager
    def removed(self, subject):
        exec(self.away)
        yield
        exec(self.back)

@pytest.fixture(scope="session")
def thing():
    return SimpleNamespace(supervisor=SimpleNamespace(folder=Path({folder!r})), fidelity=list)

@pytest.mark.scenario(guard=Guard({back!r}), on="thing")
def test_first(thing, guard):
    if guard == "control":
        raise Incident("seen")

@pytest.mark.scenario(guard=Guard("pass"), on="thing")
def test_second(thing, guard):
    if guard == "control":
        raise Incident("seen")
"""


@pytest.mark.parametrize(
    ("back", "first", "again"),
    [
        ("pass", {"passed": 4}, {"passed": 4}),
        ("raise OSError('not back')", {"passed": 2, "errors": 3}, {"errors": 4}),
        ("os._exit(9)", {}, {"errors": 4}),
    ],
)
def test_a_guard_that_is_not_back(
    pytester: pytest.Pytester, back: str, first: dict[str, int], again: dict[str, int]
) -> None:
    folder = pytester.mkdir("platform")
    pytester.makepyfile(SCENARIOS.format(folder=str(folder), back=back))
    result = pytester.runpytest_subprocess()
    if first:
        result.assert_outcomes(**first)
    else:
        assert result.ret == 9
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(**again)
    refused = "a run was killed in test_first[[]control[]], or could not put the guard back after it"
    if "errors" in again:
        result.stdout.fnmatch_lines([f"*{refused}*"])
    else:
        result.stdout.no_fnmatch_line(f"*{refused}*")


def test_a_guard_that_could_not_be_taken_away_is_still_there(pytester: pytest.Pytester) -> None:
    folder = pytester.mkdir("platform")
    scenarios = SCENARIOS.format(folder=str(folder), back="pass")
    pytester.makepyfile(scenarios.replace("Guard('pass')", "Guard('pass', 'raise OSError(1)')"))
    pytester.runpytest_subprocess().assert_outcomes(passed=3, errors=1)
