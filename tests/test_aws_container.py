"""`--testbed-aws=container` where no Docker engine answers."""

from __future__ import annotations

import pytest

TEST = "def test_accounts(aws): ..."


@pytest.fixture
def no_engine(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{pytester.path}/no-such-socket")
    pytester.makepyfile(TEST)
    return pytester


def test_it_is_skipped_with_the_reason(no_engine: pytest.Pytester) -> None:
    result = no_engine.runpytest_subprocess("--testbed-aws=container", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines("*LocalStack cannot run in a container: no Docker engine answers*")


def test_it_fails_where_a_skip_would_hide_it(no_engine: pytest.Pytester) -> None:
    result = no_engine.runpytest_subprocess("--testbed-aws=container", "--testbed-strict")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines("*no Docker engine answers*")
