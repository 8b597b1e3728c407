"""What the table, the JSON report and the evidence say of a run that failed."""

from __future__ import annotations

import json

import pytest

from testbed.report.table import render
from testbed.report.verdicts import ScenarioResult

FAILING = """
import pytest
from testbed.incident import Incident

@pytest.fixture
def guard(request):
    yield request.param
    if request.param == "control":
        raise OSError("the guard is not back")

@pytest.mark.scenario(guard=None)
@pytest.mark.parametrize("number", ["short-window"])
def test_it(guard, number):
    raise Incident("the tenant was lost\\nmore")
"""


def test_parameters_and_brackets_are_shown_as_they_are() -> None:
    name = "scenarios/test_policies.py::test_refused[short-window]"
    table = render({name: ScenarioResult(guard="held", slas={"x": "1/2"}, fidelity=["a [bold]b"])}, color=False)
    assert "refused[short-window]" in table.replace("\n", "")
    assert "a [bold]b" in table


def test_many_simulated_parts_have_different_numbers() -> None:
    results = {f"scenario-{n}": ScenarioResult(fidelity=[f"part {n} of many"]) for n in range(40)}
    legend = [line for line in render(results, color=False).splitlines() if line.startswith("simulated, ")]
    assert len({line.split(":")[0] for line in legend}) == 40


def test_the_reports_say_why_a_run_failed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILING)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1, passed=1, errors=1)
    (scenario,) = json.loads((pytester.path / ".testbed/report.json").read_text())["scenarios"].values()
    assert (scenario["guard"], scenario["control"]) == ("NOT HELD", "VOID")
    assert "the tenant was lost" in scenario["reasons"]["guard-on"]
    assert scenario["reasons"]["control"].startswith("in its teardown: ")
    assert "the guard is not back" in scenario["reasons"]["control"]
    result.stdout.fnmatch_lines(["*[[]short-window[]] [[]guard-on[]]: *the tenant was lost"])


def test_evidence_of_an_earlier_run_is_cleared_and_nothing_else(pytester: pytest.Pytester) -> None:
    from testbed.report.evidence import MARK

    old, foreign = pytester.path / ".testbed/evidence", pytester.path / "mine/evidence"
    for folder in (old, foreign):
        (folder / "test_old").mkdir(parents=True)
    (old / MARK).touch()
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    assert not old.exists()
    pytester.runpytest_subprocess("--testbed-report=mine").assert_outcomes(passed=1)
    assert (foreign / "test_old").exists()
