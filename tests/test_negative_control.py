"""What the plugin makes of a control that sees no incident, or breaks."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

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
    ("body", "passed", "failed", "words"),
    [
        ("if guard == 'control': raise Incident('seen')", 2, 0, "incident seen"),
        ("pass", 1, 1, "proves nothing"),
        ("raise Incident('seen')", 1, 1, "NOT HELD"),
        ("if guard == 'control': raise OSError('broken')", 1, 1, "VOID"),
    ],
)
def test_verdicts(pytester: pytest.Pytester, body: str, passed: int, failed: int, words: str) -> None:
    pytester.makepyfile(SCENARIO.format(body=body))
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=passed, failed=failed)
    assert words in result.stdout.str()


def test_a_scenario_without_a_guard_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.scenario()\ndef test_it(): pass")
    result = pytester.runpytest_subprocess()
    assert result.ret != 0
    assert "names its guard" in result.stdout.str() + result.stderr.str()
