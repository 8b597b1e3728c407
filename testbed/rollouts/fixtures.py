"""How scenarios get at releases: a marker that names them, and what became of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import pytest

from testbed import needs, workers
from testbed.cluster import Fidelity
from testbed.errors import TestbedError, UsageError
from testbed.platform import Platform
from testbed.report.verdicts import CONTROL, GUARD_ON
from testbed.rollouts.campaign import Campaign
from testbed.rollouts.outcome import Outcome
from testbed.rollouts.release import Release
from testbed.showing import shown
from testbed.supervisor import Supervisor

pytest_plugins = ["testbed.workers"]
MARKER = "releases"
CAMPAIGN = pytest.StashKey[Campaign]()
NEEDS = ("workloads", "gateway", "prometheus", "alertmanager", "flagger", "canary-policy")
"""The add-ons that every release needs."""
TIMELINES = "delivery"
"""The folder of the report with a timeline of each release."""


class Delivery:
    """What became of the releases of a session."""

    def __init__(
        self, platform: Platform, outcomes: dict[str, Outcome], missing: dict[str, str], seconds: float
    ) -> None:
        self.platform = platform
        self.seconds = seconds
        """How long all of them took together."""
        self._outcomes = outcomes
        self._missing = missing
        """Why a release has no outcome."""

    @property
    def supervisor(self) -> Supervisor:
        """The platform's."""
        return self.platform.supervisor

    def fidelity(self) -> list[Fidelity]:
        """The platform's."""
        return self.platform.fidelity(NEEDS)

    def outcome(self, release: Release) -> Outcome:
        """What became of a release.

        Raises:
            TestbedError: It did not come to an end, or the machine was too slow to tell a good one from a bad one.
        """
        if (found := self._outcomes.get(release.name)) is None:
            raise TestbedError(
                f"nothing is known of the release {release.name}",
                why=self._missing.get(release.name, "it was not among those that were released"),
                fix="see the timelines of the others in the report, and Flagger's log in the evidence",
            )
        if found.problem:
            raise TestbedError(
                f"the release {release.name} did not end",
                why=f"{found.problem}\n{found.timeline()}",
                fix="see Flagger's log in the evidence",
            )
        if why := found.too_slow():
            raise TestbedError(
                f"the machine was too slow to judge the release {release.name}",
                why=f"{why}; load average {os.getloadavg()[0]:.0f} on {os.cpu_count()} processors\n{found.timeline()}",
                fix="run it again with less beside it; it says nothing about the platform",
            )
        return found


class Guarded:
    """The guard of a release; removed, the control's Canary lacks it, or the platform did."""

    def __init__(self, what: str, control: Release, *, happened: str = "") -> None:
        self.what = what
        self._control = control
        self._happened = happened

    def removed(self, delivery: Delivery) -> AbstractContextManager[None]:
        """The control is a release of its own, which ran without it: prove that, at the call. Nothing is changed.

        Raises:
            TestbedError: It had the guard, or has no verdict (see `Delivery.outcome`).
        """
        found = delivery.outcome(self._control)
        without = self._control.without
        if without is None or not without.is_off(found.spec) or (self._happened and self._happened not in found.facts):
            raise TestbedError(
                f"the control {found.name} was not without {self.what}",
                why=found.timeline(),
                fix="see the Canary's spec in the evidence",
            )
        return nullcontext()


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(guarded, control): the releases that a scenario looks at, one or a tuple each, with its guard "
        "on and as control; all releases of a session run side by side",
    )


def _wanted(item: pytest.Item) -> tuple[Release, ...]:
    """The releases of a test, its own first; none for other tests."""
    marker = item.get_closest_marker(MARKER)
    callspec = getattr(item, "callspec", None)
    if marker is None or callspec is None:
        return ()
    found = marker.args[{GUARD_ON: 0, CONTROL: 1}[callspec.params["guard"]]]
    return found if isinstance(found, tuple) else (found,)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse to run all releases once in each worker, before a platform is started for it.

    Raises:
        UsageError: pytest-xdist deals the scenarios of a lane out to several workers.
    """
    if item.get_closest_marker(MARKER) is not None and (dist := workers.spread(item.config)):
        raise UsageError(
            "releases cannot be spread over several workers",
            why=f"with --dist={dist} each worker would run all of them, on one platform",
            fix=f"use --dist={workers.GROUPED}, which is the default where -n is given",
        )


@pytest.fixture(scope="session")
def delivery(request: pytest.FixtureRequest, platform: Platform) -> Iterator[Delivery]:
    """Runs the releases of all chosen scenarios; the first scenario waits for them."""
    wanted: dict[str, Release] = {}
    for item in request.session.items:
        if needs.unmet(item, platform.spec):
            continue
        for release in _wanted(item):
            if wanted.setdefault(release.name, release) != release:
                raise UsageError(f"two releases are named {release.name}", fix="give each its own name")
    campaign = Campaign(platform, wanted.values(), lambda text: print(f"  {text}", file=sys.stderr))  # noqa: T201
    request.config.stash[CAMPAIGN] = campaign
    try:
        began = time.monotonic()
        with shown(request.config):
            outcomes = campaign.run()
        seconds = time.monotonic() - began
        folder = request.config.getoption("--testbed-report") / TIMELINES
        folder.mkdir(parents=True, exist_ok=True)
        for name, outcome in outcomes.items():
            (folder / f"{name}.txt").write_text(f"{outcome.timeline()}\n{outcome.users()}\n{outcome.problem}\n")
        for name, why in campaign.missing.items():
            (folder / f"{name}.txt").write_text(f"{why}\n")
        yield Delivery(platform, outcomes, campaign.missing, seconds)
    finally:
        _remove(request.config)


def _remove(config: pytest.Config) -> None:
    """Take the services away, once."""
    if (campaign := config.stash.get(CAMPAIGN, None)) is not None:
        del config.stash[CAMPAIGN]
        campaign.remove()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After the last scenario of releases in a row: others on the platform have it to themselves."""
    if nextitem is not None and nextitem.get_closest_marker(MARKER) is None:
        _remove(item.config)


@pytest.fixture
def rollout(request: pytest.FixtureRequest, delivery: Delivery, guard: str) -> Outcome:
    """What became of the test's own release: the guarded one, or that of its control."""
    return delivery.outcome(_wanted(request.node)[0])
