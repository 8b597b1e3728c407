"""The supervisor: nothing outlives its owner, and a death is explained."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from testbed.supervisor import ComponentDied, ProcessSpec, Supervisor
from testbed.sweep import sweep_dead_runs
from testbed.wait import wait_until

FOREVER = [sys.executable, "-c", "import signal; signal.pause()"]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    found = Supervisor.launch(tmp_path / "run")
    found.lease()
    yield found
    found.shutdown()


def wait_gone(pid: int) -> None:
    def gone() -> tuple[bool, object]:
        alive = psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        return not alive, f"process {pid} alive: {alive}"

    wait_until(f"process {pid} is gone", gone, timeout=10, retry_on=(psutil.NoSuchProcess,))


def test_the_folder_is_private(supervisor: Supervisor) -> None:
    assert stat.S_IMODE(supervisor.folder.stat().st_mode) == 0o700


def test_kill_9_of_the_supervisor_takes_the_components_along(supervisor: Supervisor) -> None:
    pid = supervisor.start(ProcessSpec(name="one", argv=FOREVER)).pid
    os.kill(int(supervisor.status()["pid"]), signal.SIGKILL)
    wait_gone(pid)


def test_kill_9_of_the_holder_of_the_last_lease_stops_everything(tmp_path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from testbed.supervisor import ProcessSpec, Supervisor
supervisor = Supervisor.launch(Path({str(tmp_path / "run")!r}))
supervisor.lease()
pid = supervisor.start(ProcessSpec(name="one", argv={FOREVER!r})).pid
print(pid, supervisor.status()["pid"], flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        component, supervisor = map(int, holder.stdout.readline().split())
        assert psutil.pid_exists(component)
        holder.kill()
        holder.wait()
    wait_gone(component)
    wait_gone(supervisor)


def test_the_folder_of_a_killed_run_is_swept_and_no_other(tmp_path: Path) -> None:
    dead, starting, kept = (tmp_path / name for name in ("run-1", "run-2", "kept-1"))
    for folder in (dead, starting, kept):
        folder.mkdir()
        folder.with_suffix(".lock").touch()
    running = Supervisor.launch(tmp_path / "run-3")
    running.folder.with_suffix(".lock").touch()
    try:
        running.lease()
        with FileLock(starting.with_suffix(".lock")):
            assert sweep_dead_runs(tmp_path) == [dead]
        assert not dead.exists()
        assert starting.exists()
        assert kept.exists()
        assert running.folder.exists()
    finally:
        running.shutdown()


def test_a_killed_component_is_restarted(supervisor: Supervisor) -> None:
    first = supervisor.start(ProcessSpec(name="one", argv=FOREVER))
    supervisor.signal("one", signal.SIGKILL)

    def back() -> tuple[bool, object]:
        now = supervisor.component("one")
        return now.running and now.pid != first.pid, now

    wait_until("it is back", back, timeout=10)
    assert supervisor.component("one").restarts == 1


def test_a_death_is_explained(supervisor: Supervisor) -> None:
    argv = [sys.executable, "-c", "import sys; print('the disk is on fire'); sys.exit(7)"]
    supervisor.start(ProcessSpec(name="one", argv=argv, restart=False))
    wait_until("it ended", lambda: (supervisor.component("one").state == "exited", "runs"), timeout=10)
    with pytest.raises(ComponentDied, match=r"one died \(exit code 7(.|\n)*the disk is on fire(.|\n)*one\.log"):
        supervisor.require_running("one")


def test_credentials_of_the_shell_do_not_reach_components(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    status = supervisor.start(ProcessSpec(name="one", argv=FOREVER))
    assert "AWS_SECRET_ACCESS_KEY" not in psutil.Process(status.pid).environ()
