"""A campaign that does not come to its end: what it leaves behind, and what it tells."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from testbed.errors import TestbedError
from testbed.rollouts import campaign as module
from testbed.rollouts.campaign import DEAD, Campaign
from testbed.rollouts.outcome import Moment
from testbed.rollouts.release import Release, Trial
from testbed.rollouts.rollout import Rollout


class Processes:
    """A supervisor of two processes that start again when they are killed, unless told not to."""

    def __init__(self) -> None:
        self.running = {"flagger": True, "prometheus": True}
        self.restart = dict(self.running)

    def component(self, name: str) -> Any:
        return SimpleNamespace(running=self.running[name])

    def stop(self, names: list[str]) -> None:
        self.running |= dict.fromkeys(names, False)

    def signal(self, name: str, number: int) -> None:
        self.running[name] = self.restart[name]

    def set_restart(self, name: str, restart: bool) -> None:
        self.restart[name] = restart

    def revive(self, name: str) -> None:
        self.running[name] = True


class Platform:
    """One whose API has nothing to tell."""

    def __init__(self, log: Path) -> None:
        log.write_text("")
        self.supervisor = Processes()
        self.readied: list[str] = []
        client = SimpleNamespace(watch=lambda *_, **__: iter(()))
        self.cluster = SimpleNamespace(client=lambda: client, component=str, log=lambda _: log)

    def addon(self, kind: Any) -> Any:
        return SimpleNamespace(ready=lambda: self.readied.append(kind.name))


class Stood(Rollout):
    """A release that stands at 10 percent once it has begun, unless it is of no trial: then it ends at once."""

    users = 0

    def prepare(self) -> None:
        self.moments = [Moment(at=1, phase="Initialized", weight=0, failed_checks=0)]

    def start_users(self) -> None:
        self.users += 1

    def stop_users(self) -> None:
        self.users -= 1

    def start(self) -> None:
        self.released = time.time()
        self.moments = [Moment(at=time.time(), phase="Progressing", weight=10, failed_checks=0)]
        if not self.release.trial:
            self.end()

    def outcome(self, said: Any, problem: str) -> Any:
        if self.release.name == "unknown":
            raise TestbedError("the load has no summary")
        return problem


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Campaign, Platform]]:
    monkeypatch.setattr(module, "Rollout", Stood)
    monkeypatch.setattr(module, "ALL_WITHIN", 0.3)
    monkeypatch.setattr(module, "TICK", 0.01)
    monkeypatch.setattr(module, "LINGER", 0)

    def make(**releases: Trial) -> tuple[Campaign, Platform]:
        platform: Any = Platform(tmp_path / "flagger.log")
        found = Campaign(platform, [Release(name, trial=trial) for name, trial in releases.items()])
        return found, platform

    return make


Make = Callable[..., tuple[Campaign, Platform]]
SOUND = {"flagger": True, "prometheus": True}


def test_what_trials_take_down_runs_again_when_the_time_is_over(campaign: Make) -> None:
    found, platform = campaign(first="", blind="prometheus-down")
    outcomes = found.run()
    assert (outcomes["first"], "had not ended in time" in str(outcomes["blind"])) == ("", True)
    assert platform.supervisor.running == platform.supervisor.restart == SOUND
    assert platform.readied == ["flagger", "prometheus"]


def test_flagger_runs_again_when_time_is_over_while_it_is_dead(campaign: Make) -> None:
    found, platform = campaign(first="", dead="flagger-dead")
    found.run()
    assert DEAD in found.rollouts[1].facts
    assert platform.supervisor.running == platform.supervisor.restart == SOUND


def test_what_trials_take_down_runs_again_after_an_interrupt(campaign: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    found, platform = campaign(first="", blind="prometheus-down", dead="flagger-dead")

    def killed(_: object) -> None:
        platform.supervisor.set_restart("flagger", False)
        platform.supervisor.stop(["flagger", "prometheus"])
        raise KeyboardInterrupt

    monkeypatch.setattr(Campaign, "_let_flagger_die", killed)
    monkeypatch.setattr(Campaign, "_take_prometheus_down", lambda *_: killed(None))
    with pytest.raises(KeyboardInterrupt):
        found.run()
    assert platform.supervisor.running == platform.supervisor.restart == SOUND
    assert [one.users for one in found.rollouts if isinstance(one, Stood)] == [0, 0, 0]


def test_a_release_that_never_began_is_left_out_and_the_others_are_told_of(campaign: Make) -> None:
    found, _ = campaign(first="", stands="flagger-killed", blind="prometheus-down", unknown="")
    outcomes = found.run()
    assert outcomes.keys() == {"first", "stands"}
    assert "it never began, for its trial comes after other releases; after 0.3 s" in found.missing["blind"]
    assert "stands (" in found.missing["blind"]
    assert "the load has no summary" in found.missing["unknown"]


def test_a_change_has_the_time_at_which_it_was_heard_of() -> None:
    platform: Any = None
    rollout = Rollout(platform, Release("checkout"), {})
    rollout.released = 100
    for at, weight in ((99, 0), (101, 10), (105, 20)):
        rollout.heard({"spec": {}, "status": {"phase": "Progressing", "canaryWeight": weight}}, at)
    assert [(one.at, one.weight) for one in rollout.moments] == [(101, 10), (105, 20)]
    assert rollout.advanced_after(103)
    assert not rollout.advanced_after(105)
