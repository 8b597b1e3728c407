"""A Prometheus without inotify: the real one, in a user namespace that allows it no instance."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import requests

from testbed.errors import TestbedError
from testbed.monitoring.watching import require_watching
from testbed.ports import LOOPBACK, free_ports
from testbed.toolchain import Toolchain
from testbed.wait import wait_until

NONE = "echo 0 > /proc/sys/user/max_inotify_instances && exec"


@pytest.mark.parametrize("instances", ["none", "some"])
def test_it_says_that_there_is_no_inotify_instance(toolchain: Toolchain, tmp_path: Path, instances: str) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-Ur", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets us have no user namespace, in which inotify could be limited")
    binary = toolchain.ensure(["prometheus"])["prometheus"]
    (tmp_path / "targets.json").write_text(json.dumps([{"targets": [f"{LOOPBACK}:9"]}]))
    jobs = [{"job_name": "a", "file_sd_configs": [{"files": [str(tmp_path / "*.json")]}]}]
    (tmp_path / "prometheus.yaml").write_text(json.dumps({"scrape_configs": jobs}))
    (port,) = free_ports(1)
    flags = f"--config.file=prometheus.yaml --storage.tsdb.path=data --web.listen-address={LOOPBACK}:{port}"
    run = f"{NONE if instances == 'none' else 'exec'} {binary} {flags} --log.level=warn"
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen([unshare, "-Ur", "sh", "-c", run], cwd=tmp_path, stdout=output, stderr=output)
    seen = ""

    def watching() -> tuple[bool, object]:
        nonlocal seen
        seen = requests.get(f"http://{LOOPBACK}:{port}/metrics", timeout=5).text
        with contextlib.suppress(TestbedError):
            require_watching(seen, log)
            return "prometheus_sd_file_scan_duration_seconds_count 1" in seen, "no scan of the files yet"
        return True, "it says so"

    try:
        wait_until("Prometheus has tried to watch", watching, timeout=30, retry_on=(OSError,))
    finally:
        process.kill()
        process.wait()
    if instances == "some":
        require_watching(seen, log)
        return
    with pytest.raises(TestbedError) as refused:
        require_watching(seen, log)
    assert "inotify instance" in refused.value.why
    assert "too many open files" in refused.value.why
    assert "fs.inotify.max_user_instances=1024" in refused.value.fix
