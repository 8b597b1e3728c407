"""Which release goes where, and what a killed promoter leaves."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.promotion.config import Protections, Settings
from testbed.promotion.repository import RELEASE_COMMIT, GitFailed

from .conftest import APPROVER, Developer, Promoter


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs, no handler of the promoter's catches it."""


def approve(promoter: Promoter) -> None:
    request = promoter.ledger.requests()[-1]
    promoter.ledger.decide(request, "approved", APPROVER, "Ada", f"v0={request.id}", promoter.now)


def test_nothing_to_do(promoter: Promoter) -> None:
    promoter.settle()
    assert {step["state"] for step in promoter.controller.steps()} == {"even"}
    assert promoter.tags() == ["1.0.0"] * 3


def test_gate_then_approval(promoter: Promoter, developer: Developer) -> None:
    source = developer.set("1.1.0")
    promoter.gate.closed.add(("orders", "dev"))
    promoter.settle()
    assert promoter.tags() == ["1.1.0", "1.0.0", "1.0.0"]
    assert promoter.step("staging")["why"] == "errors: 0.2, at most 0.01 is allowed"
    promoter.gate.closed.clear()
    promoter.settle()
    assert promoter.tags() == ["1.1.0", "1.1.0", "1.0.0"]
    assert promoter.step("production")["state"] == "waiting for approval"
    assert [str(request.release) for request in promoter.slack.asked] == ["orders@1.1.0"]
    approve(promoter)
    promoter.settle()
    assert promoter.tags() == ["1.1.0"] * 3
    message = developer.git("fetch", "--quiet") + developer.git("log", "-1", "--format=%B", "origin/main")
    assert message.startswith("Promote orders@1.1.0 to production")
    assert f"{RELEASE_COMMIT}: {source}" in message
    assert "Approved-By: Ada (U0ADA)" in message
    assert promoter.tags("payments") == ["1.0.0"] * 3


def test_commit_changes_one_line(promoter: Promoter, developer: Developer) -> None:
    developer.set("1.1.0")
    promoter.settle()
    developer.git("fetch", "--quiet")
    shown = developer.git("show", "--format=", "--unified=0", "origin/main")
    changed = [line for line in shown.splitlines() if line[0] in "+-" and not line.startswith(("+++", "---"))]
    assert changed == ['-  tag: "1.0.0"  # the pipeline writes it', '+  tag: "1.1.0"  # the pipeline writes it']


def test_tag_of_digits_is_quoted(promoter: Promoter, developer: Developer) -> None:
    """Unquoted it would be a number for Helm; also where somebody took the quotes away."""
    path = developer.folder / "services/orders/staging/values.yaml"
    path.write_text("image: {tag: 1.0.0}\n")
    developer.git("commit", "--quiet", "--all", "--message=less to type")
    developer.git("push", "--quiet", "origin", "HEAD:main")
    developer.set("123456789e12")
    promoter.settle()
    assert promoter.tags()[:2] == ["123456789e12"] * 2
    developer.git("fetch", "--quiet")
    assert developer.git("show", f"origin/main:{path.relative_to(developer.folder)}") == 'image: {tag: "123456789e12"}'


def test_ill_environment_holds_even_what_is_approved(promoter: Promoter, developer: Developer) -> None:
    developer.set("1.1.0")
    promoter.settle()
    approve(promoter)
    promoter.health.ill.add(("orders", "staging"))
    promoter.settle()
    assert promoter.tags()[2] == "1.0.0"
    assert promoter.step("production")["why"] == "it is Degraded"
    promoter.health.ill.clear()
    promoter.settle()
    assert promoter.tags()[2] == "1.1.0"


def test_newer_release_supersedes_the_request(promoter: Promoter, developer: Developer) -> None:
    developer.set("1.1.0")
    promoter.settle()
    developer.set("1.2.0")
    promoter.settle()
    assert promoter.tags() == ["1.2.0", "1.2.0", "1.0.0"]
    assert [request.state for request in promoter.ledger.requests()] == ["superseded", "waiting"]
    approve(promoter)
    promoter.settle()
    assert promoter.tags() == ["1.2.0"] * 3
    states = [entry["production"] for entry in promoter.controller.history("orders")]
    assert [state if isinstance(state, str) else len(state) for state in states] == ["superseded", "superseded", 1]


def test_revert_in_dev_goes_forward(promoter: Promoter, developer: Developer) -> None:
    developer.set("1.1.0")
    promoter.settle()
    developer.set("1.0.0")
    promoter.settle()
    assert promoter.tags() == ["1.0.0", "1.0.0", "1.0.0"]


def test_revert_in_staging_stays(promoter: Promoter, developer: Developer) -> None:
    """Dev is well, so nothing else would stop the promoter from putting it there again at its next look."""
    developer.set("1.1.0")
    promoter.settle()
    developer.take_back()
    promoter.settle()
    promoter.restarted().settle()
    assert promoter.tags() == ["1.1.0", "1.0.0", "1.0.0"]
    step = promoter.step("staging")
    assert (step["state"], step["why"]) == ("held", "it was in staging and was taken back there; release anew")
    assert promoter.step("production")["state"] == "even"

    developer.set("1.2.0")
    promoter.settle()
    assert promoter.tags() == ["1.2.0", "1.2.0", "1.0.0"]
    developer.set("1.1.0")  # the one that was taken back, released anew: a revert in dev
    promoter.settle()
    assert promoter.tags() == ["1.1.0", "1.1.0", "1.0.0"]


def test_revert_in_production_stays(promoter: Promoter, developer: Developer) -> None:
    developer.set("1.1.0")
    promoter.settle()
    approve(promoter)
    promoter.settle()
    back = developer.take_back()
    promoter.settle()
    assert promoter.tags() == ["1.1.0", "1.1.0", "1.0.0"]
    assert "taken back there" in promoter.step("production")["why"]
    developer.take_back(back)  # somebody thinks better of it: no release is needed for that
    promoter.settle()
    assert promoter.tags() == ["1.1.0"] * 3
    assert promoter.step("production")["state"] == "even"


def test_older_never_replaces_newer(promoter: Promoter, developer: Developer) -> None:
    developer.set("1.1.0")
    promoter.settle()
    developer.set("1.2.0", "production")  # by hand, in an incident
    developer.set("1.2.0")
    promoter.gate.closed.add(("orders", "dev"))
    promoter.settle()
    assert promoter.tags() == ["1.2.0", "1.1.0", "1.2.0"]
    assert "newer" in promoter.step("production")["why"]


def test_tag_that_never_was_in_dev_stays(promoter: Promoter, developer: Developer) -> None:
    developer.set("6.6.6", "staging")
    promoter.gate.closed.add(("orders", "dev"))
    promoter.settle()
    assert promoter.tags()[2] == "1.0.0"
    assert promoter.step("production")["why"] == "6.6.6 in staging never was in dev"


def test_broken_values_file_is_held(promoter: Promoter, developer: Developer) -> None:
    path = developer.folder / "services/orders/dev/values.yaml"
    path.write_text("image: [\n")
    developer.git("commit", "--quiet", "--all", "--message=oops")
    developer.git("push", "--quiet", "origin", "HEAD:main")
    promoter.settle()
    assert promoter.step("staging")["why"] == "there is no tag of orders in dev"
    assert promoter.step("staging", "payments")["state"] == "even"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["commit-tree", "push"])
def test_killed_in_a_promotion(
    promoter: Promoter, developer: Developer, monkeypatch: pytest.MonkeyPatch, when: str, what: str
) -> None:
    developer.set("1.1.0")
    promoter.settle()
    approve(promoter)
    git = promoter.repository._git

    def killed(*arguments: str, **given: Any) -> str:
        if arguments[0] != what:
            return git(*arguments, **given)
        if when == "after":
            git(*arguments, **given)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(promoter.repository, "_git", killed)
        with pytest.raises(Killed):
            promoter.controller.look()
    promoter.restarted().settle()
    assert promoter.tags() == ["1.1.0"] * 3
    assert len(promoter.repository.promotions("orders", "production")) == 1
    promoted = [(entry["event"], entry["environment"]) for entry in promoter.ledger.audit()]
    assert promoted.count(("promoted", "production")) == 1
    assert [request.state for request in promoter.ledger.requests()] == ["promoted"]


def test_killed_before_the_question_is_noted(promoter: Promoter, developer: Developer) -> None:
    def killed(*_: object) -> None:
        raise Killed

    developer.set("1.1.0")
    promoter.ledger.posted = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        promoter.settle()
    promoter.restarted().settle()
    # The real port finds the message of before (test_slack.py); it is asked again for the same request.
    assert len({request.id for request in promoter.slack.asked}) == 1


def _race(promoter: Promoter, developer: Developer) -> str:
    """Somebody pushes between the promoter's look and its push; returns their commit."""
    developer.set("1.1.0")
    git = promoter.repository._git
    theirs = []

    def overtaken(*arguments: str, **given: Any) -> str:
        if arguments[0] == "push" and not theirs:
            theirs.append(developer.set("2.0.0", service="payments"))
        return git(*arguments, **given)

    promoter.repository._git = overtaken  # type: ignore[method-assign]
    promoter.controller.look()
    promoter.repository._git = git  # type: ignore[method-assign]
    assert theirs
    return theirs[0]


def test_push_that_was_overtaken_is_made_again(promoter: Promoter, developer: Developer) -> None:
    theirs = _race(promoter, developer)
    promoter.settle()
    developer.git("fetch", "--quiet")
    assert theirs in developer.git("log", "--format=%H", "origin/main").split()
    assert promoter.tags() == ["1.1.0", "1.1.0", "1.0.0"]


def test_forced_push_loses_a_commit(settings: Settings, promoter: Promoter, developer: Developer) -> None:
    """What the guard `fast_forward` is there for."""
    promoter.settings = settings.model_copy(update={"protections": Protections(fast_forward=False)})
    promoter.restarted().settle()
    theirs = _race(promoter, developer)
    developer.git("fetch", "--quiet")
    assert theirs not in developer.git("log", "--format=%H", "origin/main").split()


def test_repository_away(promoter: Promoter, developer: Developer) -> None:
    away = developer.remote.rename(developer.remote.with_suffix(".away"))
    assert not promoter.controller.look()
    assert promoter.controller.failure.startswith(GitFailed.__name__)
    away.rename(developer.remote)
    promoter.settle()
    assert promoter.controller.failure == ""
