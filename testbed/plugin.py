"""The pytest plugin: the platform as a fixture, scenarios with their negative controls, SLAs and the report."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from rich.console import Console
from rich.table import Table

from testbed.aws import fixtures as aws_fixtures
from testbed.errors import TestbedError, UsageError
from testbed.guards import Guard
from testbed.incident import Incident
from testbed.platform import Platform, PlatformSpec, platforms_folder
from testbed.sla import SlaRecorder, load_slas
from testbed.supervisor import log_tail
from testbed.toolchain import Toolchain

pytest_plugins = ["testbed.aws.fixtures"]
GUARD_ON, CONTROL = "guard-on", "control"
PROPERTY = "testbed"
COST_TAGS = {"cost-center": "cc-1042", "team": "platform", "environment": "sandbox"}
_rows: list[dict[str, Any]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, all with the prefix --testbed-."""
    group = parser.getgroup("testbed", "platform testbed")
    group.addoption("--testbed-backend", choices=["embedded"], default="embedded", help="where Kubernetes comes from")
    group.addoption("--testbed-keep", action="store_true", help="leave the platform running after the session")
    group.addoption(
        "--testbed-report", type=Path, default=Path(".testbed"), help="folder of the report and of failures' evidence"
    )
    aws_fixtures.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and the run's identity."""
    config.addinivalue_line(
        "markers",
        "scenario(guard, on='platform'): an incident; `guard` is a testbed.guards.Guard, taken away for the control "
        "from the fixture named by `on`",
    )
    _rows.clear()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every scenario runs twice: with its guard, and as the negative control."""
    marker = metafunc.definition.get_closest_marker("scenario")
    if marker is None:
        return
    if "guard" not in marker.kwargs or "guard" not in metafunc.fixturenames:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid}: a scenario names its guard, @pytest.mark.scenario(guard=...), "
            "and takes the fixture `guard`"
        )
    metafunc.parametrize("guard", [GUARD_ON, CONTROL], indirect=True, scope="function")


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """The platform: one for the session, shared by all workers of pytest-xdist. The last one out stops it."""
    config = request.config
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
    folder = platforms_folder() / f"run-{run[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    toolchain = Toolchain()
    spec = PlatformSpec()
    with FileLock(folder.with_suffix(".lock")):
        found = Platform.attach(folder, toolchain)
        if found is None:
            toolchain.ensure(spec.tools())
            capture = config.pluginmanager.getplugin("capturemanager")
            with capture.global_and_fixture_disabled() if capture else _nothing():
                found = Platform.up(spec, folder, toolchain, lambda text: Console(stderr=True).print(f"  {text}"))
        else:
            found.supervisor.lease()
    yield found
    if config.getoption("--testbed-keep"):
        found.supervisor.keep()
        return
    with FileLock(folder.with_suffix(".lock")):
        if int(found.supervisor.status()["leases"]) <= 1:
            found.down()
        else:
            found.supervisor.release()


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


@pytest.fixture
def guard(request: pytest.FixtureRequest) -> Iterator[str]:
    """`guard-on`, or `control` while the scenario's guard is taken away. One scenario at a time has its subject."""
    marker = request.node.get_closest_marker("scenario")
    subject = request.getfixturevalue(marker.kwargs.get("on", "platform"))
    with FileLock(subject.supervisor.folder / "scenario.lock"):
        if request.param == GUARD_ON:
            yield GUARD_ON
            return
        protection: Guard = marker.kwargs["guard"]
        with protection.removed(subject):
            yield CONTROL


@pytest.fixture
def namespace(platform: Platform, guard: str) -> Iterator[str]:
    """A namespace of the scenario's own on the first cluster, with cost tags; deleted afterwards."""
    name = f"scenario-{uuid.uuid4().hex[:8]}"
    kube = platform.cluster.client()
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": COST_TAGS}}
    kube.apply(manifest)
    yield name
    with contextlib.suppress(Exception):  # a control may have left the API server down
        kube.delete("Namespace", name)


@pytest.fixture
def sla(request: pytest.FixtureRequest) -> Iterator[SlaRecorder]:
    """The SLAs of the `slas.toml` nearest above the scenario's file."""
    path = next((p / "slas.toml" for p in request.path.parents if (p / "slas.toml").is_file()), None)
    if path is None:
        raise UsageError(f"no slas.toml above {request.path}", fix="add one beside the scenarios")
    recorder = SlaRecorder(load_slas(path))
    yield recorder
    request.node.user_properties.extend(
        (f"sla:{entry.name}", f"{entry.seconds}/{entry.limit}") for entry in recorder.measurements
    )


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Turn a control's outcome round: the incident is what it must see."""
    parameters = getattr(getattr(pyfuncitem, "callspec", None), "params", {})
    if pyfuncitem.get_closest_marker("scenario") is None:
        return (yield)
    mode = parameters["guard"]
    scenario = pyfuncitem.nodeid.replace(f"{mode}-", "").replace(f"-{mode}", "").replace(f"[{mode}]", "")
    try:
        result = yield
        verdict = "held" if mode == GUARD_ON else "blind"
    except Incident as incident:
        verdict = "incident seen" if mode == CONTROL else "NOT HELD"
        result, problem = True, str(incident)
        if mode == GUARD_ON:
            raise
        pyfuncitem.user_properties.append(("testbed:incident", problem))
    except BaseException:
        verdict = "error" if mode == GUARD_ON else "VOID"
        raise
    finally:
        pyfuncitem.user_properties.append(
            (PROPERTY, json.dumps({"scenario": scenario, "mode": mode, "verdict": verdict}))
        )
    if verdict == "blind":
        pytest.fail("the negative control saw no incident although its guard was off: this scenario proves nothing")
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """On failure, save objects, events and component logs, and name the folder in the output."""
    report = yield
    platform = getattr(item, "funcargs", {}).get("platform")
    if report.failed and isinstance(platform, Platform):
        try:
            folder = save_evidence(platform, item.config.getoption("--testbed-report") / "evidence", item.name)
            report.sections.append(("testbed evidence", str(folder)))
        except (TestbedError, OSError) as error:
            report.sections.append(("testbed evidence", f"could not be saved: {error}"))
    return report


def save_evidence(platform: Platform, root: Path, name: str) -> Path:
    """Write component logs, states and events to a folder below `root`; returns it."""
    folder = root / "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for component in platform.supervisor.components().values():
        (folder / f"{component.name}.log").write_text(log_tail(component.log, lines=500))
    (folder / "components.json").write_text(json.dumps(platform.supervisor.status(), indent=1))
    try:
        events = platform.cluster.client().list("Event", api_version="v1")
        (folder / "events.json").write_text(json.dumps(events, indent=1, default=str))
    except Exception as error:  # the API server may be what failed
        (folder / "events.json").write_text(json.dumps({"not readable": str(error)}))
    return folder


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect the rows of the table; runs where the session is controlled, so also under xdist."""
    if report.when != "teardown":
        if report.failed and report.when == "setup" and "scenarios/" in report.nodeid:
            _rows.append({"scenario": report.nodeid, "mode": "?", "verdict": "VOID", "slas": {}})
        return
    properties = dict(report.user_properties)
    if PROPERTY in properties:
        row = json.loads(str(properties[PROPERTY]))
        row["slas"] = {k[4:]: v for k, v in report.user_properties if k.startswith("sla:")}
        _rows.append(row)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table: scenario, guard, negative control, SLAs; and the same as JSON."""
    if not _rows:
        return
    merged: dict[str, dict[str, Any]] = {}
    for row in _rows:
        entry = merged.setdefault(row["scenario"], {"guard": "-", "control": "-", "slas": {}})
        entry["control" if row["mode"] == CONTROL else "guard"] = row["verdict"]
        if row["mode"] == GUARD_ON:
            entry["slas"] = row["slas"]
    folder: Path = config.getoption("--testbed-report")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(merged, indent=1))
    table = Table("scenario", "with its guard", "negative control", "measured / limit (s)", title="Scenarios")
    for scenario, entry in merged.items():
        slas = "\n".join(f"{name} {value}" for name, value in entry["slas"].items())
        table.add_row(scenario.split("/")[-1].replace("::test_", " "), entry["guard"], entry["control"], slas)
    console = Console(width=150)
    with console.capture() as capture:
        console.print(table)
    terminalreporter.write_line("")
    terminalreporter.write(capture.get())
    terminalreporter.write_line(f"report: {folder / 'report.json'}")
