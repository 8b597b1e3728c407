"""What the plugin makes of a control that sees no incident, or breaks; of needs; and what the reports hold."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import pytest

SCENARIO = """
import pytest
from testbed.incident import Incident

@pytest.fixture
def guard(request):
    return request.param

@pytest.mark.scenario(guard=None)
def test_it(guard):
    {body}
"""


@pytest.mark.parametrize(
    ("body", "passed", "failed", "verdicts"),
    [
        ("if guard == 'control': raise Incident('seen')", 2, 0, ("held", "incident seen")),
        ("pass", 1, 1, ("held", "blind")),
        ("raise Incident('seen')", 1, 1, ("NOT HELD", "incident seen")),
        ("if guard == 'control': raise OSError('broken')", 1, 1, ("held", "VOID")),
        ("raise OSError('broken')", 0, 2, ("error", "VOID")),
        ("pytest.skip('no')", 0, 0, ("skipped", "skipped")),
    ],
)
def test_verdicts(pytester: pytest.Pytester, body: str, passed: int, failed: int, verdicts: tuple[str, str]) -> None:
    pytester.makepyfile(SCENARIO.format(body=body))
    result = pytester.runpytest_subprocess("--junit-xml=junit.xml")
    result.assert_outcomes(passed=passed, failed=failed, skipped=2 - passed - failed)
    (scenario,) = json.loads((pytester.path / ".testbed/report.json").read_text())["scenarios"].values()
    assert (scenario["guard"], scenario["control"]) == verdicts
    for verdict in verdicts:
        assert verdict in result.stdout.str()
    cases = ElementTree.parse(pytester.path / "junit.xml").iter("testcase")  # noqa: S314
    modes = {
        found.attrib["value"] for case in cases for found in case.iter("property") if "mode" in found.attrib["name"]
    }
    assert modes == {"guard-on", "control"}


def test_a_broken_fixture_makes_the_control_void(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SCENARIO.format(body="pass").replace("return request.param", "raise OSError('no platform')"))
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(errors=2)
    (scenario,) = json.loads((pytester.path / ".testbed/report.json").read_text())["scenarios"].values()
    assert (scenario["guard"], scenario["control"]) == ("error", "VOID")


@pytest.mark.parametrize(
    ("decorator", "words"),
    [
        ("@pytest.mark.scenario()", "names its guard"),
        ("@pytest.mark.needs('gatekeper')", "did you mean 'gatekeeper'"),
    ],
)
def test_a_malformed_scenario_is_refused(pytester: pytest.Pytester, decorator: str, words: str) -> None:
    pytester.makepyfile(f"import pytest\n{decorator}\ndef test_it(): pass")
    result = pytester.runpytest_subprocess()
    assert result.ret != 0
    assert words in result.stdout.str() + result.stderr.str()


def test_an_unknown_sla_and_a_breached_one(pytester: pytest.Pytester) -> None:
    pytester.makefile(".toml", slas="[quick]\nseconds = 0.000001\nwhy = 'a test'\n")
    pytester.makepyfile(
        """
        def test_unknown(sla):
            sla.limit("quik")

        def test_breached(sla):
            with sla.within("quick"):
                sum(range(10000))
        """
    )
    result = pytester.runpytest_subprocess("--junit-xml=junit.xml")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines_random(["*did you mean 'quick'*", "*SlaBreached: SLA quick*the limit is 1e-06 s*"])
    assert 'name="sla.quick"' in (pytester.path / "junit.xml").read_text()
