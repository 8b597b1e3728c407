"""What the webhook of workspaces says, without a cluster."""

from __future__ import annotations

import datetime
from typing import Any

import kopf
import pytest

from testbed.operators import teams
from testbed.operators.conditions import Problem
from testbed.operators.config import TenantConfig
from testbed.operators.store import Store
from testbed.operators.teams import TEAM
from testbed.operators.tenant import validation
from testbed.operators.tenant.controller import TenantController
from testbed.operators.tenant.spec import TENANT, parse
from testbed.operators.tenant.webhook import review

CONFIG = TenantConfig()
NOW = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)
GOOD: dict[str, Any] = {
    "team": "payments",
    "environment": "dev",
    "repositories": ["https://git.example.com/payments/checkout"],
}


def workspace(name: str = "checkout", **changed: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": GOOD | changed}


def said(new: dict[str, Any], old: dict[str, Any] | None = None, *, old_team_exists: bool = True) -> str:
    return "; ".join(validation.problems(new, old, CONFIG, old_team_exists))


def test_a_good_one_passes() -> None:
    assert said(workspace()) == ""
    assert said(workspace(quota={"cpu": 32, "memory": "128Gi", "pods": 200})) == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("n" * 41, "41 characters; use at most 40"),
        ("kube-shop", "begin with 'kube-' belong to the platform"),
        ("argocd", "'argocd' belongs to the platform"),
        ("a.b", "lower-case letters, digits and hyphens"),
        ("1st", "beginning with a letter"),
        ("tenant-ä", "lower-case letters"),
        ("tenant-\u0661", "lower-case letters"),
        ("", "lower-case letters"),
    ],
)
def test_names(name: str, words: str) -> None:
    assert said(workspace(name)).startswith("metadata.name: ")
    assert words in said(workspace(name))


@pytest.mark.parametrize(
    ("quota", "words"),
    [
        ({"cpu": 33}, "spec.quota.cpu: 33 is more than the platform's limit of 32"),
        ({"cpu": "32001m"}, "spec.quota.cpu: 32001m is more than"),
        ({"memory": "129Gi"}, "spec.quota.memory: 129Gi is more than the platform's limit of 128Gi"),
        ({"memory": "1e400"}, "spec.quota.memory: '1e400' is not a quantity"),
        ({"memory": "9" * 400}, "is not a quantity"),
        ({"storage": "1\u0663Gi"}, "is not a quantity"),
        ({"pods": 201}, "spec.quota.pods: 201 is more than"),
        ({"pods": "1.5"}, "must be a whole number"),
        ({"pods": True}, "is not a quantity"),
        ({"cpu": {"a": 1}}, "is not a quantity"),
        ({"cpu": -1}, "is not a quantity"),
        ("all of it", "spec.quota: must be an object, is str"),
        ([1], "spec.quota: must be an object, is list"),
    ],
)
def test_quotas(quota: object, words: str) -> None:
    assert words in said(workspace(quota=quota))


def test_everything_that_is_wrong_is_said_at_once() -> None:
    text = said(workspace("kube-x", quota={"cpu": 99, "pods": 999}, repositories=["https://git.example.com/*"]))
    for field in ("metadata.name", "spec.quota.cpu", "spec.quota.pods", "spec.repositories[0]"):
        assert field in text


@pytest.mark.parametrize(
    ("new", "old_team_exists", "words"),
    [
        (workspace(environment="production"), True, "spec.environment: cannot change from 'dev' to 'production'"),
        (workspace(team="search"), True, "spec.team: cannot change from 'payments' to 'search'"),
        (workspace(team="search"), False, ""),
        (workspace(quota={"cpu": 1}), True, ""),
    ],
)
def test_changes(new: dict[str, Any], old_team_exists: bool, words: str) -> None:
    text = said(new, workspace(), old_team_exists=old_team_exists)
    assert text.startswith(words)
    assert bool(text) == bool(words)


@pytest.mark.parametrize("spec", [None, "text", 7, [], {"team": 5}, {"quota": None}, {"repositories": "one"}])
def test_wrong_types_do_not_break_it(spec: object) -> None:
    new = {"metadata": {"name": "checkout"}, "spec": spec}
    assert isinstance(said(new), str)
    assert isinstance(said(workspace(), new), str)


class NoTeams:
    """An API that has no team."""

    async def get(self, *_: object) -> None:
        return None


@pytest.mark.asyncio
async def test_an_unknown_team_gets_a_suggestion() -> None:
    store = Store()
    store.put(TEAM, {"metadata": {"name": "payments", "uid": "1", "resourceVersion": "1"}})
    with pytest.raises(kopf.AdmissionError, match="no Team 'paymets' is in the directory; did you mean 'payments'"):
        await review(workspace(team="paymets"), None, NoTeams(), store, CONFIG)  # type: ignore[arg-type]
    await review(workspace(), None, NoTeams(), store, CONFIG)  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_what_is_there_stays_changeable_and_deletable() -> None:
    """Also when the rules have become stricter, or its team is gone."""
    old = workspace("kube-old", quota={"cpu": 99})
    labelled = old | {"metadata": old["metadata"] | {"labels": {"a": "b"}}}
    await review(labelled, old, NoTeams(), Store(), CONFIG)  # type: ignore[arg-type]
    going = workspace("kube-old", team="none")
    going["metadata"]["deletionTimestamp"] = "2026-05-01T12:00:00Z"
    await review(going, old, NoTeams(), Store(), CONFIG)  # type: ignore[arg-type]


def team(**status: Any) -> dict[str, Any]:
    return {"spec": {"costCenter": "cc-2001", "groups": {"developers": "d"}}, "status": status}


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (None, "TeamNotFound"),
        (team(), "TeamStale"),
        (team(syncedAt="yesterday"), "TeamStale"),
        (team(syncedAt="2026-04-30T11:59:00Z"), "TeamStale"),
        (
            team(syncedAt="2026-05-01T11:00:00Z", conditions=[{"type": "GroupsFound", "status": "False"}]),
            "TeamGroupMissing",
        ),
        (team(syncedAt="2026-05-01T11:00:00Z"), None),
    ],
)
def test_stale_teams(found: dict[str, Any] | None, reason: str | None) -> None:
    problem = teams.problem_of("payments", found, 24 * 3600, NOW)
    assert (problem.reason if problem else None) == reason
    if problem is not None:
        assert "'payments'" in problem.message


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (None, "spec."),
        ({}, "spec.team"),
        (GOOD | {"environment": "moon"}, "spec.environment"),
        (GOOD | {"repositories": []}, "spec.repositories"),
        (GOOD | {"quota": {"pods": "many"}}, "spec.quota.pods"),
        (GOOD | {"team": ["a"]}, "spec.team"),
    ],
)
def test_a_spec_that_slipped_through_is_told_by_field(spec: object, field: str) -> None:
    with pytest.raises(Problem) as caught:
        parse(spec)
    assert caught.value.reason == "InvalidSpec"
    assert field in caught.value.message
    assert not caught.value.retry


@pytest.mark.asyncio
async def test_one_malformed_workspace_does_not_hide_a_team_from_the_others() -> None:
    api: Any = NoTeams()
    controller = TenantController(api, Store(), CONFIG, workers=1, resync=60)
    for name, spec in (("broken", "everything"), ("empty", None), ("good", GOOD)):
        controller.store.put(TENANT, {"metadata": {"name": name, "uid": name}, "spec": spec})
    changed = {"metadata": {"name": "payments", "uid": "t"}}
    assert controller.concerned(TEAM, changed) == [("", "good")]
