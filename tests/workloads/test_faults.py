"""Every fault acts, and only it: the service alone, without a cluster."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed.pages import NOT_SERVED, page
from testbed.toolchain import Toolchain
from testbed.wait import wait_until
from testbed.workloads.addresses import Block, loopback_of
from testbed.workloads.faults import VARIABLE, Faults

PORT = 9898


class Service:
    """One podinfo process."""

    def __init__(self, process: subprocess.Popen[bytes], address: str) -> None:
        self.process, self.address = process, address

    def get(self, path: str = "/") -> int:
        return page(self.address, PORT, path, timeout=10)[0]

    def took(self, path: str = "/") -> float:
        began = time.monotonic()
        assert self.get(path) == 200
        return time.monotonic() - began


Start = Callable[[Faults], Service]


@pytest.fixture
def start(toolchain: Toolchain, tmp_path: Path) -> Iterator[Start]:
    """Starts services with faults."""
    binary = toolchain.ensure(["podinfo"])["podinfo"]
    block = Block()
    with contextlib.ExitStack() as stack:
        stack.callback(block.release)

        def run(faults: Faults) -> Service:
            address = loopback_of(block.next(set()))
            environment = {"TESTBED_POD_ADDRESS": address, "TESTBED_FLAGS": str(tmp_path / "flags.json")}
            environment |= {entry["name"]: entry["value"] for entry in faults.env()}
            process = subprocess.Popen([str(binary)], env=os.environ | environment, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            service = Service(process, address)
            ready = lambda: (service.get("/readyz") == 200, "not ready")  # noqa: E731
            wait_until("podinfo is ready", ready, timeout=20, retry_on=NOT_SERVED)
            return service

        yield run


def test_latency(start: Start) -> None:
    slow = start(Faults(latency_ms=1000, path="/version"))
    assert slow.took("/version") >= 1
    assert min(slow.took("/") for _ in range(5)) < 1
    slow = start(Faults(latency_ms=1000))
    assert slow.took("/") >= 1
    assert min(slow.took("/healthz") for _ in range(5)) < 1


def test_latency_that_grows_with_the_load(start: Start) -> None:
    pooled = start(Faults(pool_size=1, pool_hold_ms=100))
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: pooled.took(), range(8)))
    assert time.monotonic() - began >= 8 * 0.1
    loaded = start(Faults(latency_ms_per_100_rps=50))

    def slower() -> tuple[bool, object]:
        took = loaded.took()
        return took >= 0.1, took

    wait_until("the load makes it slow", slower, timeout=20, every=0)


def test_a_cold_start_ends(start: Start) -> None:
    cold = start(Faults(cold_start_seconds=1.5, cold_start_latency_ms=300))
    assert cold.took() >= 0.3
    wait_until("it is warm", lambda: ((took := cold.took()) < 0.3, took), timeout=20)


def test_errors_behind_a_flag(start: Start, tmp_path: Path) -> None:
    wrong = start(Faults(error_rate=0.5, error_status=503, flag="new"))
    assert {wrong.get() for _ in range(20)} == {200}
    (tmp_path / "flags.json").write_text(json.dumps({"new": True}))
    wait_until("it fails", lambda: ((status := wrong.get()) == 503, status), timeout=10)
    assert {wrong.get() for _ in range(60)} == {200, 503}
    assert wrong.get("/healthz") == 200


def test_a_leak_and_a_crash(start: Start) -> None:
    leaking = start(Faults(memory_mb_per_second=100))

    def resident() -> float:
        pages = Path(f"/proc/{leaking.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6

    wait_until("it has grown", lambda: ((size := resident()) > 150, size), timeout=30)
    crashing = start(Faults(crash_after_requests=3))
    assert [crashing.get(), crashing.get()] == [200, 200]
    with pytest.raises(ConnectionError):
        crashing.get()
    assert crashing.process.wait(timeout=10) == 2
    assert start(Faults(crash_after_seconds=0.5)).process.wait(timeout=20) == 2


def test_faults_that_are_not_known_stop_the_service(toolchain: Toolchain) -> None:
    binary = toolchain.ensure(["podinfo"])["podinfo"]
    environment = {"TESTBED_POD_ADDRESS": "127.112.255.254", VARIABLE: '{"slowness": 3}'}
    result = subprocess.run([str(binary)], env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 1
    assert "slowness" in result.stderr
    result = subprocess.run([str(binary)], env={}, capture_output=True, text=True, timeout=20, check=False)
    assert "not a loopback address" in result.stderr
