"""All releases of a session side by side.

A release takes two minutes, for Flagger looks every 10 s at most. Side by side they take the time of one; those that
need the platform broken come when the others no longer need what breaks:

1. Every service is made, gets its users, and then its new version, all at once. One release has Flagger killed.
2. When none of them is judged by metrics any more, the releases that Prometheus is to go down under begin.
3. When all are done, the release begins under which Flagger dies for good.
"""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from testbed.addons.flagger import ROLE as FLAGGER_ROLE
from testbed.addons.flagger import SHORTEST_INTERVAL, Flagger
from testbed.addons.prometheus import ROLE as PROMETHEUS_ROLE
from testbed.addons.prometheus import Prometheus
from testbed.cluster import Manifest
from testbed.cluster.client import NOT_YET
from testbed.delivery import FLAGGER
from testbed.errors import TestbedError
from testbed.platform import Platform
from testbed.rollouts.outcome import PROMOTING, Outcome, Said
from testbed.rollouts.release import Release
from testbed.rollouts.rollout import LINGER, Rollout

INITIALIZED_WITHIN = 150.0
ALL_WITHIN = 330.0
"""Seconds from the first new version to the end of the last."""
KILL_AT = 40
"""The canary's weight at which Flagger is killed under it: by then what is rolled back has been."""
SILENCE = 2.5 * SHORTEST_INTERVAL
"""Seconds after which a Flagger that works would have moved."""
TICK = 0.25
AT_ONCE = 6
"""Threads for what is done with each release: requests to the API server, starts of load generators."""
DOWN, BACK = "Prometheus is down", "Prometheus is back"
DEAD = "Flagger is dead"
Say = Callable[[str], None]


class Campaign:
    """Runs releases on a platform; `run` returns what became of each, by name."""

    missing: dict[str, str]
    """Why a release has no outcome, by its name."""

    def __init__(self, platform: Platform, releases: Iterable[Release], say: Say = lambda _: None) -> None:
        namespaces: dict[str, str] = {}
        self._platform = platform
        self._say = say
        self.rollouts = [Rollout(platform, release, namespaces) for release in releases]
        self._by_key = {rollout.key: rollout for rollout in self.rollouts}
        self.missing = {}
        self._changes: queue.Queue[tuple[float, Manifest]] = queue.Queue()
        """Canaries, and when they were heard of: what is done meanwhile must not make them younger."""
        self._ended = threading.Event()

    def run(self) -> dict[str, Outcome]:
        """All of it. What did not come to an end has the reason in its outcome; what has none, in `missing`.

        However it ends, the users stop, and what the trials broke runs again.

        Raises:
            TestbedError: A service was not ready before any release began.
        """
        watcher = threading.Thread(target=self._watch, daemon=True)
        with ThreadPoolExecutor(AT_ONCE) as self._pool, contextlib.ExitStack() as at_the_end:
            at_the_end.callback(self._each, Rollout.stop_users, self.rollouts)
            at_the_end.callback(self._mend)
            at_the_end.callback(self._ended.set)
            watcher.start()
            self._each(Rollout.prepare, self.rollouts)
            if not self._until(self._initialized, INITIALIZED_WITHIN):
                lacking = [one.release.name for one in self.rollouts if one.last.phase != "Initialized"]
                raise TestbedError(
                    f"Flagger did not make these services ready: {', '.join(lacking)}",
                    why=f"after {INITIALIZED_WITHIN:g} s their Canaries are not Initialized",
                    fix="see the events of their Canaries, and Flagger's log",
                )
            self._say("delivery: every service is ready")
            self._each(Rollout.start_users, self.rollouts)
            self._start("", "flagger-killed")
            late = "" if self._until(self._finished, ALL_WITHIN) else self._late()
        if late:
            self._say(f"delivery: {late}")
            self._await_mended()
        return self._outcomes(late)

    def _late(self) -> str:
        under_way = [f"{one.release.name} ({one.last})" for one in self.rollouts if one.done is None and one.released]
        return f"after {ALL_WITHIN:g} s these had not ended: {', '.join(under_way) or 'none that had begun'}"

    def _outcomes(self, late: str) -> dict[str, Outcome]:
        found, said = {}, self._said()
        for one in self.rollouts:
            name = one.release.name
            problem = "" if one.done is not None else f"it had not ended in time; last seen: {one.last}"
            if one.released is None:
                self.missing[name] = f"it never began, for its trial comes after other releases; {late}"
                continue
            try:
                found[name] = one.outcome(said.get(one.key, []), problem)
            except TestbedError as error:  # the others are to be told of all the same
                self.missing[name] = str(error)
        return found

    def _mend(self) -> None:
        """Have everything run that a trial takes down: most of all where none came to its end."""
        supervisor = self._platform.supervisor
        for role in (FLAGGER_ROLE, PROMETHEUS_ROLE):
            name = self._platform.cluster.component(role)
            supervisor.set_restart(name, True)
            supervisor.revive(name)

    def _await_mended(self) -> None:
        for addon in (Flagger, Prometheus):
            try:
                self._platform.addon(addon).ready()
            except TestbedError as error:  # what became of the releases is to be told all the same
                self._say(f"delivery: {error.what}")

    def remove(self) -> None:
        """Delete everything, also from a platform that lives on."""
        with ThreadPoolExecutor(AT_ONCE) as self._pool:
            self._each(Rollout.remove, self.rollouts)
        kube = self._platform.cluster.client()
        for namespace in {rollout.namespace for rollout in self.rollouts}:
            kube.delete("Namespace", namespace)

    def _each(self, what: Callable[[Rollout], None], rollouts: Iterable[Rollout]) -> None:
        list(self._pool.map(what, rollouts))

    def _watch(self) -> None:
        kube = self._platform.cluster.client()
        while not self._ended.is_set():
            try:
                for kind, canary in kube.watch("Canary", api_version=FLAGGER, timeout=60):
                    if kind in {"ADDED", "MODIFIED"}:
                        self._changes.put((time.time(), canary))
                    if self._ended.is_set():
                        return
            except NOT_YET:
                self._ended.wait(TICK)

    def _until(self, holds: Callable[[], bool], timeout: float) -> bool:
        """Take changes as they come and act on them, until something holds or the time is over."""
        deadline = time.monotonic() + timeout
        while not holds():
            if time.monotonic() > deadline:
                return False
            try:
                at, canary = self._changes.get(timeout=TICK)
            except queue.Empty:
                continue
            metadata = canary["metadata"]
            if (rollout := self._by_key.get((metadata["namespace"], metadata["name"]))) is not None:
                rollout.heard(canary, at)
                rollout.act()
        return True

    def _initialized(self) -> bool:
        return all(rollout.last.phase == "Initialized" for rollout in self.rollouts)

    def _of(self, *trials: str) -> list[Rollout]:
        return [rollout for rollout in self.rollouts if rollout.release.trial in trials]

    def _start(self, *trials: str) -> None:
        if rollouts := self._of(*trials):
            self._each(Rollout.start, rollouts)
            self._say(f"delivery: {len(rollouts)} releases begin")

    def _finished(self) -> bool:
        """Move the campaign on; True at its end."""
        first, outage, dead = self._of("", "flagger-killed"), self._of("prometheus-down"), self._of("flagger-dead")
        self._kill_flagger()
        for one in self.rollouts:
            one.overtake()
            one.give_up()
        if all(one.done or one.last.phase in PROMOTING for one in first):
            if any(one.released is None for one in outage):
                self._start("prometheus-down")
            self._take_prometheus_down(outage)
        if all(one.done for one in [*first, *outage]):
            if any(one.released is None for one in dead):
                self._start("flagger-dead")
            self._let_flagger_die(dead)
        ends = [one.done for one in self.rollouts if one.done is not None]
        return len(ends) == len(self.rollouts) and time.time() > max(ends, default=0) + LINGER

    def _kill_flagger(self) -> None:
        """SIGKILL under a release in the middle of its steps; the supervisor starts it again, as Kubernetes would."""
        for one in self._of("flagger-killed"):
            if one.last.weight >= KILL_AT and "Flagger is killed" not in one.facts:
                one.facts["Flagger is killed"] = time.time()
                self._platform.cluster.kill(FLAGGER_ROLE)

    def _take_prometheus_down(self, rollouts: list[Rollout]) -> None:
        name, supervisor = self._platform.cluster.component(PROMETHEUS_ROLE), self._platform.supervisor
        if not rollouts:
            return
        if not all(DOWN in one.facts for one in rollouts):
            if all(one.last.weight for one in rollouts):
                supervisor.stop([name])
                for one in rollouts:
                    one.facts[DOWN] = time.time()
            return
        for one in rollouts:
            if one.done is None and one.advanced_after(one.facts[DOWN]):
                one.end()  # it was moved on without data: nothing more to learn
        if all(one.done for one in rollouts) and not supervisor.component(name).running:
            supervisor.revive(name)
            self._platform.addon(Prometheus).ready()
            for one in rollouts:
                one.facts[BACK] = time.time()

    def _let_flagger_die(self, rollouts: list[Rollout]) -> None:
        name, supervisor = self._platform.cluster.component(FLAGGER_ROLE), self._platform.supervisor
        for one in rollouts:
            if one.last.weight and DEAD not in one.facts:
                supervisor.set_restart(name, False)
                supervisor.signal(name, signal.SIGKILL)
                one.facts[DEAD] = time.time()
            elif one.done is None and time.time() > one.facts.get(DEAD, time.time()) + SILENCE:
                one.end()
                one.facts["Flagger is started again"] = time.time()
                supervisor.set_restart(name, True)
                supervisor.revive(name)

    def _said(self) -> dict[tuple[str, str], list[Said]]:
        """Flagger's words about each Canary, from its log: the API joins events that are alike."""
        found: dict[tuple[str, str], list[Said]] = {}
        for line in self._platform.cluster.log(FLAGGER_ROLE).read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
                name, _, namespace = entry["canary"].partition(".")
                at = datetime.fromisoformat(entry["ts"]).timestamp()
            except (ValueError, KeyError, TypeError):
                continue
            found.setdefault((namespace, name), []).append(Said(at=at, message=str(entry["msg"])))
        return found
