"""The fixtures that scenarios take: the platform, the guard, a namespace of their own, the SLAs."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from testbed import lanes, needs
from testbed.config import PlatformSpec, load
from testbed.errors import TestbedError, UsageError
from testbed.guards import Guard
from testbed.paths import kept_folder
from testbed.platform import Platform
from testbed.report.verdicts import GUARD_ON, SLA, record
from testbed.sharing import leave, run_folder
from testbed.showing import shown
from testbed.sla import SlaRecorder, load_slas
from testbed.toolchain import Toolchain
from testbed.toolchain.cli import build_with_progress
from testbed.unguarded import refuse_unguarded, taken_away

STRICT = "--testbed-strict"
TOLD = pytest.StashKey[set[str]]()
KEPT = pytest.StashKey[PlatformSpec]()
BEGAN = pytest.StashKey[float]()
"""The Unix time since when what is made on the platform is the test's own."""
FAILED = pytest.StashKey[dict[str, str]]()
"""The lanes whose platform did not come up, and why."""
COST_TAGS = {"cost-center": "cc-1042", "team": "platform", "environment": "sandbox"}


def configured(config: pytest.Config) -> PlatformSpec:
    """What the options and the configuration file say the platform is."""
    existing = {
        "kubeconfig": config.getoption("--testbed-kubeconfig"),
        "allow_contexts": config.getoption("--testbed-allow-context"),
    }
    given = {name: value for name, value in existing.items() if value}
    return load(
        config.getoption("--testbed-config"),
        node_image=config.getoption("--testbed-node-image"),
        backend=config.getoption("--testbed-backend"),
        existing=given or None,
    )


def wanted(session: pytest.Session, lane: str) -> PlatformSpec:
    """The configured platform with the add-ons and clusters that the collected tests of a lane need, and no more."""
    spec = configured(session.config)
    runnable = [item for item in session.items if lanes.lane_of(item) == lane and not needs.unmet(item, spec)]
    return spec.model_copy(
        update={
            "addons": needs.addons_of(runnable, spec.addons),
            "clusters": needs.clusters_of(runnable, spec),
        }
    )


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """The platform of the test's lane, shared by all tests of the lane and all workers of pytest-xdist.

    The last one out stops it.
    """
    config = request.config
    lane: str = getattr(request, "param", lanes.CORE)
    keep = bool(config.getoption("--testbed-keep"))
    kept = config.getoption("--testbed-use")
    try:
        found, lock = _kept(kept) if kept else _own(config, wanted(request.session, lane), lane, keep=keep)
    except UsageError as error:
        _end_session(request.session, error)
        raise
    except TestbedError as error:
        config.stash.setdefault(FAILED, {})[lane] = str(error.what)  # other lanes have platforms of their own
        raise
    if kept:
        found.supervisor.lease()
    yield found
    if kept:
        found.supervisor.release()
    elif keep:
        found.supervisor.keep()
    else:
        leave(found, lock)


def _end_session(session: pytest.Session, error: UsageError) -> None:
    """The input was wrong: every scenario would only repeat it."""
    session.shouldfail = f"there is no platform to test on: {error.what}"


def _kept(name: str) -> tuple[Platform, Path]:
    """A platform that `testbed up` left running, and its lock file. Raises `UsageError` where there is none."""
    folder = kept_folder(name)
    found = Platform.attach(folder, Toolchain())
    if found is None:
        raise UsageError(f"no platform {name!r} is running", fix=f"start it with `testbed up --name {name}`")
    return found, folder.with_suffix(".lock")


def _own(config: pytest.Config, spec: PlatformSpec, lane: str, *, keep: bool) -> tuple[Platform, Path]:
    """A platform of this run's own; the first worker brings it up, the others join."""
    folder, lock = run_folder("run", lane)
    if keep:  # under a name that the commands know
        folder = kept_folder(folder.name.removeprefix("run-"))
    toolchain = Toolchain()
    with FileLock(lock):
        found = Platform.attach(folder, toolchain)
        if found is not None:
            found.supervisor.lease()
            return found, lock
        spec.require_machine()
        with shown(config):
            build_with_progress(toolchain, spec.tools())
            return Platform.up(spec, folder, toolchain, _say), lock


def refuse_early(item: pytest.Item) -> None:
    """Before anything of a test is set up: it cannot run here, or its platform is known not to come up."""
    if (lane := lanes.lane_of(item)) in (failed := item.config.stash.get(FAILED, {})) and lane is not None:
        pytest.fail(f"there is no platform for the lane {lane}: {failed[lane]}", pytrace=False)
    if item.get_closest_marker("needs") is None:
        return
    name = item.config.getoption("--testbed-use")
    if not name:
        refuse_unmet(item, configured(item.config))
        return
    if KEPT not in item.config.stash:
        try:
            item.config.stash[KEPT] = _kept(name)[0].spec
        except UsageError as error:
            _end_session(item.session, error)
            raise
    _skip(item, needs.missing(item, item.config.stash[KEPT]))


def refuse_unmet(item: pytest.Item, spec: PlatformSpec) -> None:
    """Skip a test whose needs the platform cannot meet, or fail it where skipping would hide that."""
    _skip(item, needs.unmet(item, spec))


def _skip(item: pytest.Item, reason: str) -> None:
    if reason:
        if item.config.getoption(STRICT):
            pytest.fail(f"{reason} ({STRICT})", pytrace=False)
        pytest.skip(reason)


def _say(text: str) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        sys.stderr.write(f"  {text}\n")


@pytest.fixture
def guard(request: pytest.FixtureRequest) -> Iterator[str]:
    """`guard-on`, or `control` while the scenario's guard is taken away. One scenario at a time has its subject."""
    marker = request.node.get_closest_marker("scenario")
    subject = request.getfixturevalue(marker.kwargs.get("on", "platform"))
    if isinstance(subject, Platform):
        refuse_unmet(request.node, subject.spec)
    tell_fidelity(request.node, subject)
    with _alone(request.node, subject.supervisor.folder / "scenario.lock"):
        refuse_unguarded(subject.supervisor.folder)
        if request.param == GUARD_ON:
            yield GUARD_ON
            return
        protection: Guard = marker.kwargs["guard"]
        with taken_away(protection.removed(subject), subject.supervisor.folder, request.node.name):
            yield request.param


@contextlib.contextmanager
def _alone(item: pytest.Item, path: Path) -> Iterator[None]:
    """Hold a lock. What is made while a test waits for it is another one's."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        lock.acquire()
        item.stash[BEGAN] = time.time()
    try:
        yield
    finally:
        lock.release()


def tell_fidelity(item: pytest.Item, subject: Any) -> None:
    """Record what is simulated in what a scenario uses; and once a lane (in a worker) how the platform came up."""
    if not isinstance(subject, Platform):
        parts = subject.fidelity()
    else:
        parts = subject.fidelity(needs.names(item))
        told = item.config.stash.setdefault(TOLD, set())
        lane = lanes.lane_of(item) or lanes.CORE
        if lane not in told:
            told.add(lane)
            facts = {"lane": lane, "warm": subject.warm, "timings": subject.timings}
            if item.config.getoption("--testbed-keep"):
                facts["kept"] = subject.supervisor.folder.name.removeprefix("kept-")
            record(item, "platform", json.dumps(facts | {"fidelity": [p.model_dump() for p in subject.fidelity()]}))
    record(item, "fidelity", json.dumps([f"{part.part}: {part.simulated}" for part in parts if part.simulated]))


@pytest.fixture
def cost_tags() -> dict[str, str]:
    """Labels that satisfy the tagging policy."""
    return dict(COST_TAGS)


@pytest.fixture
def namespace(platform: Platform, guard: str, cost_tags: dict[str, str]) -> Iterator[str]:
    """A namespace of the scenario's own on the first cluster, with cost tags; deleted afterwards."""
    name = f"scenario-{uuid.uuid4().hex[:8]}"
    kube = platform.cluster.client()
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": cost_tags}}
    kube.apply(manifest)
    yield name
    with contextlib.suppress(Exception):  # a control may have left the API server down
        kube.delete("Namespace", name)


@pytest.fixture
def sla(request: pytest.FixtureRequest) -> SlaRecorder:
    """The SLAs of the `slas.toml` nearest above the scenario's file; measurements go into the report."""
    path = next((p / "slas.toml" for p in request.path.parents if (p / "slas.toml").is_file()), None)
    if path is None:
        raise UsageError(f"no slas.toml above {request.path}", fix="add one beside the scenarios")
    return SlaRecorder(
        load_slas(path), lambda entry: record(request.node, f"{SLA}{entry.name}", f"{entry.seconds}/{entry.limit:g}")
    )
