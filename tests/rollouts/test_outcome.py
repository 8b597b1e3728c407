"""What is read from a release's record, and the Canaries of negative controls."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from testbed.errors import TestbedError
from testbed.load import Interval, Percentiles, Summary
from testbed.load.results import Release as Answers
from testbed.operators.canary import children, validation
from testbed.operators.canary.spec import parse
from testbed.operators.config import CanaryConfig
from testbed.rollouts.outcome import Moment, Outcome, Said
from testbed.rollouts.weakened import (
    LATENCY,
    SUCCESS_RATE,
    NoCheck,
    NoDeadline,
    NoHook,
    NoSteps,
    NothingForColdStarts,
    OwnQueries,
    Weakening,
)

NONE = Percentiles(p50=0, p90=0, p99=0, max=0)
CONFIG = CanaryConfig()
SPEC = {
    "targetRef": {"name": "checkout"},
    "service": {"port": 8080},
    "slo": {"successRate": 99.5, "latencyP99": 400},
    "smokeTest": {"path": "/healthz"},
}


def group(answers: int, failed: int = 0) -> Answers:
    return Answers(answers=answers, failed=failed, statuses={}, first=0, last=0, latency=NONE)


def interval(end: float, **answers: int) -> Interval:
    releases = {f"v{name[1:]}": group(count) for name, count in answers.items()}
    return Interval(end=end, planned=0, received=0, releases=releases, latency=NONE)


def outcome(*moments: tuple[float, str, int, int]) -> Outcome:
    return Outcome(
        name="checkout",
        namespace="shop",
        released=100,
        spec={},
        moments=[Moment(at=at, phase=phase, weight=weight, failed_checks=n) for at, phase, weight, n in moments],
        said=[Said(at=105, message="Halt checkout.shop advancement platform-latency-p99 9 > 1")],
        load=Summary(planned=0, sent=0, began=0, ended=0, latency=NONE, lateness=NONE, releases={"v2": group(7, 3)}),
        intervals=[interval(110, v1=9, v2=1), interval(111, v1=10), interval(120, v2=10)],
    )


def test_the_record_of_a_rollback() -> None:
    found = outcome(
        (101, "Progressing", 0, 0), (105, "Progressing", 10, 0), (110, "Progressing", 10, 1), (120, "Failed", 0, 0)
    )
    assert (found.phase, found.weights(), found.failed_checks()) == ("Failed", [10], 1)
    assert (found.exposed(), found.first("Failed")) == (105, 120)
    assert (found.answers("v2"), found.failed("v2"), found.failed("v3")) == (7, 3, 0)
    assert found.share("v2", 109, 111) == 0.05
    assert found.heard("advancement platform-latency-p99") is not None
    assert found.heard("parse error") is None
    assert found.heard("advancement", since=105) is not None
    assert found.heard("advancement", since=106) is None
    assert "   20.0 s  Failed 0%, 0 failed checks" in found.timeline()


def test_the_slowest_answer_of_a_release_between_two_times() -> None:
    def slow(end: float, seconds: float) -> Interval:
        latency = NONE.model_copy(update={"max": seconds})
        return interval(end).model_copy(update={"releases": {"v2": group(1).model_copy(update={"latency": latency})}})

    found = outcome().model_copy(update={"intervals": [slow(110, 9), slow(112, 1), slow(113, 2), slow(120, 9)]})
    assert found.slowest("v2", 110, 115) == 2
    assert found.slowest("v1", 110, 115) == 0


def test_what_never_happened_is_an_error() -> None:
    found = outcome((101, "Progressing", 0, 0))
    for ask in (found.exposed, lambda: found.first("Succeeded"), lambda: found.share("v1", 500, 600)):
        with pytest.raises(TestbedError):
            ask()


def test_weights_of_the_promotion_are_none_of_the_analysis() -> None:
    found = outcome(
        (1, "Progressing", 10, 0), (2, "Progressing", 20, 0), (3, "Progressing", 20, 1), (4, "Promoting", 40, 1)
    )
    assert found.weights() == [10, 20]


def canary() -> dict[str, Any]:
    policy = {"metadata": {"name": "checkout", "namespace": "shop", "uid": "u"}}
    return children.canary(policy, parse(validation.with_defaults(SPEC, CONFIG)), CONFIG)


@pytest.mark.parametrize(
    "without",
    [
        NoSteps(),
        NoCheck(),
        NoCheck(LATENCY),
        NoCheck(SUCCESS_RATE),
        NoHook("smoke-test"),
        NothingForColdStarts(),
        NoDeadline(),
        OwnQueries("unscoped"),
        OwnQueries("broken"),
    ],
)
def test_a_weakened_canary_lacks_its_guard_and_a_whole_one_does_not(without: Weakening) -> None:
    whole = canary()
    weak = copy.deepcopy(whole)
    made = without.weaken(weak, CONFIG)
    assert without.is_off(weak["spec"])
    assert not without.is_off(whole["spec"])
    assert all(one["spec"]["provider"]["address"] == CONFIG.prometheus for one in made)


@pytest.mark.parametrize("put_back", [{"threshold": 2}, {"webhooks": [{"name": "warm-up"}]}, {"interval": "60s"}])
def test_all_that_helps_against_cold_starts_must_be_off(put_back: dict[str, Any]) -> None:
    weak = canary()
    NothingForColdStarts().weaken(weak, CONFIG)
    weak["spec"]["analysis"] |= put_back
    assert not NothingForColdStarts().is_off(weak["spec"])


def test_unscoped_queries_see_every_pod() -> None:
    made = OwnQueries("unscoped").weaken(canary(), CONFIG)
    assert all("pod=~" not in one["spec"]["query"] and "namespace=" in one["spec"]["query"] for one in made)


def starved(gap: float, late: float, *said: str, phase: str = "Failed") -> str:
    found = outcome((105, "Progressing", 10, 0), (120, phase, 0, 0))
    lateness = NONE.model_copy(update={"max": late})
    checks = [{"name": LATENCY, "interval": "5s"}]
    return found.model_copy(
        update={
            "spec": {"analysis": {"metrics": checks}},
            "longest_gap": gap,
            "load": found.load.model_copy(update={"lateness": lateness}),
            "said": [Said(at=106, message=message) for message in said],
        }
    ).too_slow()


def test_want_of_data_on_a_slow_machine_is_no_verdict() -> None:
    missing, bad = "Halt advancement no values found for custom metric", f"Halt x advancement {LATENCY} 9 > 1"
    assert "Prometheus looked at nothing for up to 4.0 s, where 2.5 s are bearable" in starved(4, 0, missing)
    assert "requests were late for up to 9.0 s" in starved(1, 9, missing)
    assert not starved(1, 0.1, missing), "nobody was late: it is the release that has no data"
    assert not starved(4, 9, missing, bad), "it was judged"
    assert not starved(4, 9, "Halt")
    assert not starved(4, 9, missing, phase="Succeeded")
