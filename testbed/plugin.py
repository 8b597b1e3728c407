"""The pytest plugin: hooks that run every scenario with its guard and without, and report both."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from testbed import __version__, lanes, needs
from testbed.config import BACKENDS
from testbed.errors import TestbedError
from testbed.fixtures import (
    BEGAN,
    STRICT,
    cost_tags,
    guard,
    namespace,
    platform,
    refuse_early,
    sla,
)
from testbed.incident import Incident
from testbed.report.evidence import clear_evidence, has_components, save_evidence
from testbed.report.table import render, write_report
from testbed.report.verdicts import (
    CONTROL,
    EVIDENCE,
    GUARD_ON,
    PREFIX,
    Row,
    Verdict,
    merge,
    mode_of,
    record,
    row_of,
    scenario_of,
)

pytest_plugins = [
    "testbed.aws.fixtures",
    "testbed.gitops.fixtures",
    "testbed.pipelines.fixtures",
    "testbed.promotion.fixtures",
    "testbed.rollouts.fixtures",
    "testbed.traffic.fixtures",
]
__all__ = ["cost_tags", "guard", "namespace", "platform", "sla"]
_rows: list[Row] = []
_runs: dict[str, Any] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, all with the prefix --testbed-."""
    group = parser.getgroup("testbed", "platform testbed")
    add = group.addoption
    add("--testbed-backend", choices=[*BACKENDS], help="where Kubernetes comes from (default: embedded)")
    add("--testbed-config", type=Path, metavar="FILE", help="configuration instead of [tool.testbed] in pyproject.toml")
    add("--testbed-node-image", metavar="IMAGE", help="backend kind: the node image")
    add("--testbed-kubeconfig", type=Path, metavar="FILE", help="backend existing: the kubeconfig")
    add("--testbed-allow-context", action="append", metavar="NAME", help="backend existing: allowed off loopback")
    add("--testbed-use", metavar="NAME", help="run on the platform that `testbed up --name NAME` left running")
    add("--testbed-keep", action="store_true", help="leave the platform running after the session")
    add(
        "--testbed-strict",
        action="store_true",
        default=os.environ.get("CI", "").lower() not in {"", "0", "false"},
        help="a scenario whose needs are not met fails instead of being skipped (default where $CI is set)",
    )
    add("--testbed-no-strict", dest="testbed_strict", action="store_false", help="it is skipped, also where $CI is set")
    add("--testbed-report", type=Path, default=Path(".testbed"), metavar="FOLDER", help="report and evidence go here")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line(
        "markers",
        "scenario(guard, on='platform'): an incident; `guard` is a testbed.guards.Guard, taken away for the control "
        "from what the fixture named by `on` gives",
    )
    config.addinivalue_line("markers", needs.DOCUMENTATION)
    _rows.clear()
    _runs.clear()
    _runs["started"] = datetime.now(UTC).isoformat(timespec="seconds")


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    """With pytest-xdist, keep lanes together unless something else is asked for."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "loadgroup"
    return (yield)


def pytest_sessionstart(session: pytest.Session) -> None:
    """What an earlier run left as evidence is none of this one's."""
    if not hasattr(session.config, "workerinput") and not session.config.option.collectonly:
        clear_evidence(session.config.getoption("--testbed-report") / EVIDENCE)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every scenario runs twice, with its guard and as the negative control, on the platform of its lane."""
    if "platform" in metafunc.fixturenames:
        lane = lanes.lane_of(metafunc.definition, metafunc.fixturenames)
        metafunc.parametrize("platform", [lane], ids=[pytest.HIDDEN_PARAM], indirect=True, scope="session")
    marker = metafunc.definition.get_closest_marker("scenario")
    if marker is None:
        return
    if "guard" not in marker.kwargs or "guard" not in metafunc.fixturenames:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid}: a scenario names its guard, @pytest.mark.scenario(guard=...), "
            "and takes the fixture `guard`"
        )
    metafunc.parametrize("guard", [GUARD_ON, CONTROL], indirect=True, scope="function")


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse unknown needs before anything is started; keep lanes together."""
    for item in items:
        needs.names(item)
    if config.pluginmanager.hasplugin("xdist"):
        lanes.group_for_xdist(items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give a scenario its row, whatever happens to it."""
    item.stash[BEGAN] = time.time()
    mode = mode_of(item)
    if mode is not None:
        record(item, "scenario", scenario_of(item.nodeid))
        record(item, "mode", mode)
    refuse_early(item)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Turn a control's outcome round: the incident is what it must see."""
    mode = mode_of(pyfuncitem)
    if mode is None:
        return (yield)
    verdict: Verdict = "held" if mode == GUARD_ON else "blind"
    try:
        result = yield
    except Incident as incident:
        verdict = "incident seen" if mode == CONTROL else "NOT HELD"
        record(pyfuncitem, "incident", str(incident))
        if mode == GUARD_ON:
            raise
        result = True
    except BaseException:
        verdict = "error" if mode == GUARD_ON else "VOID"
        raise
    finally:
        record(pyfuncitem, "verdict", verdict)
    if verdict == "blind":
        pytest.fail("the negative control saw no incident although its guard was off: this scenario proves nothing")
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """On failure, save objects, events and component logs, and name the folder in the output and in the reports."""
    report = yield
    subjects: dict[str, Any] = getattr(item, "funcargs", {})
    if report.failed and any(has_components(one) for one in subjects.values()):
        try:
            root = item.config.getoption("--testbed-report") / EVIDENCE
            folder = save_evidence(subjects.values(), root, item.name, since=item.stash[BEGAN])
            record(item, EVIDENCE, str(folder))
            report.user_properties.append((PREFIX + EVIDENCE, str(folder)))
            report.sections.append(("testbed evidence", str(folder)))
        except (TestbedError, OSError) as error:
            report.sections.append(("testbed evidence", f"could not be saved: {error}"))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect the rows of the table; runs where the session is controlled, so also under xdist."""
    if (row := row_of(report)) is not None:
        _rows.append(row)
    for name, value in report.user_properties:
        if name == "testbed.platform":
            facts = json.loads(str(value))
            _runs.setdefault("platforms", {})[facts.pop("lane")] = facts


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table: scenario, guard, negative control, SLAs, fidelity; and the same as JSON."""
    if not _rows:
        return
    results = merge(_rows)
    path = write_report(config.getoption("--testbed-report"), results, {"version": __version__, **_runs})
    terminalreporter.write_line("")
    terminalreporter.write(render(results, color=terminalreporter.hasmarkup))
    terminalreporter.write_line(f"report: {path}")
    skipped = [name for name, result in results.items() if "skipped" in (result.guard, result.control)]
    for lane, facts in _runs.get("platforms", {}).items():
        if name := facts.get("kept"):
            terminalreporter.write_line(
                f"kept for you, lane {lane}: `testbed status --name {name}`, then `testbed down --name {name}`"
            )
    if skipped and not config.getoption(STRICT):
        terminalreporter.write_line(f"skipped scenarios: {len(skipped)}; with {STRICT} they would fail")
