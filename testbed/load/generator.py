"""Load at a constant rate from a supervised process; see `testbed/toolchain/modules/load` for the program."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import urllib.parse
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.errors import TestbedError, UsageError
from testbed.load.results import Interval, Summary
from testbed.platform import Platform
from testbed.supervisor import ProcessSpec, log_tail
from testbed.wait import wait_until

TOOL = "load"
SHORTEST_INTERVAL = 0.02
STARTED_WITHIN = 30.0


class Load:
    """Requests at a constant rate while the block runs (or for `duration`), whether or not earlier ones came back.

        with Load(platform, gateway.url, host="podinfo.demo.testbed", rate=500) as load:
            ...
        assert load.summary().lost == 0

    A request whose connection breaks is not sent again: it counts as failed.

    Args:
        platform: Owns the process; the generator dies with it.
        url: Where requests go: a loopback address.
        rate: Requests per second.
        host: The Host header; that of the URL without it.
        headers: More headers of each request.
        method: Of the requests.
        duration: Seconds after which the load ends by itself; without it, when the block ends.
        timeout: Seconds that one request may take.
        interval: Seconds of one `Interval`.
        release_header: The header of an answer by which answers are counted: what served it names its release in it.
            `X-Testbed-Pod` counts by pod.
        release_field: The field of a JSON answer that does so where the header is missing; empty for none.
        max_in_flight: Requests that may wait for an answer at a time; when so many wait, others are late or not sent.

    Raises:
        UsageError: The target or a number is wrong; nothing was started.
    """

    def __init__(
        self,
        platform: Platform,
        url: str,
        *,
        rate: float,
        host: str | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        duration: float | None = None,
        timeout: float = 10.0,
        interval: float = 1.0,
        release_header: str = "X-Testbed-Version",
        release_field: str = "version",
        max_in_flight: int = 2000,
    ) -> None:
        _check(url, rate=rate, duration=duration, timeout=timeout, interval=interval)
        self._supervisor = platform.supervisor
        self._toolchain = platform.cluster.toolchain
        self._name = f"load-{uuid.uuid4().hex[:8]}"
        self._output: Path = platform.supervisor.folder / "load" / f"{self._name}.jsonl"
        self._timeout = timeout
        self._duration = duration
        self._arguments = [
            f"-url={url}",
            f"-rate={rate}",
            f"-method={method}",
            f"-timeout={timeout}s",
            f"-interval={interval}s",
            f"-release-header={release_header}",
            f"-release-field={release_field}",
            f"-max-in-flight={max_in_flight}",
            f"-output={self._output}",
            *([f"-duration={duration}s"] if duration is not None else []),
        ]
        for name, value in {**({"Host": host} if host else {}), **(headers or {})}.items():
            self._arguments.append(f"-header={name}: {value}")
        self._position = 0
        self._intervals: list[Interval] = []
        self._summary: Summary | None = None

    def __enter__(self) -> Self:
        """Start; returns when the first request has come back."""
        binary = self._toolchain.ensure([TOOL])[TOOL]
        self._output.parent.mkdir(mode=0o700, exist_ok=True)
        self._supervisor.start(
            ProcessSpec(name=self._name, argv=[str(binary), *self._arguments], restart=False, tags={"role": "load"})
        )
        try:
            self.wait("the first request has come back", lambda seen: bool(seen and seen[-1].received), STARTED_WITHIN)
        except BaseException:
            self._supervisor.stop([self._name], grace=0)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop sending, and wait for the requests in flight."""
        self._supervisor.stop([self._name], grace=self._timeout + 10)

    @property
    def process(self) -> str:
        """The name of its component, for the supervisor."""
        return self._name

    def _read(self) -> None:
        """Take what was written since the last call."""
        with contextlib.suppress(FileNotFoundError), self._output.open("rb") as output:
            output.seek(self._position)
            whole, end, _ = output.read().rpartition(b"\n")  # the last line may be half written
            self._position += len(whole) + len(end)
            for line in whole.splitlines():
                content = json.loads(line)
                if "summary" in content:
                    self._summary = Summary.model_validate(content["summary"])
                else:
                    self._intervals.append(Interval.model_validate(content))

    def intervals(self) -> list[Interval]:
        """What was measured so far, an interval after the other."""
        self._read()
        return list(self._intervals)

    def wait(self, awaited: str, holds: Callable[[list[Interval]], bool], timeout: float) -> list[Interval]:
        """Wait until the intervals so far are as wanted; returns them.

        Raises:
            WaitTimeout: They were not in time.
            ComponentDied: The generator ended before.
        """
        found: list[Interval] = []

        def probe() -> tuple[bool, object]:
            ended = not self._supervisor.component(self._name).running
            found[:] = self.intervals()
            if not (done := holds(found)) and ended:
                self._supervisor.require_running(self._name)
            return done, found[-1] if found else "no results"

        wait_until(awaited, probe, timeout=timeout, evidence=lambda: log_tail(self._log))
        return found

    def wait_end(self) -> Summary:
        """Wait until a load with a `duration` has ended by itself; returns its summary."""
        if self._duration is None:
            raise UsageError("this load does not end by itself", fix="give it a duration, or end the block")
        wait_until(
            "the load has ended",
            lambda: (not self._supervisor.component(self._name).running, f"{len(self.intervals())} intervals"),
            timeout=self._duration + self._timeout + 30,
            evidence=lambda: log_tail(self._log),
        )
        return self.summary()

    @property
    def _log(self) -> Path:
        return self._supervisor.folder / "logs" / f"{self._name}.log"

    def summary(self) -> Summary:
        """The whole run, once it has ended.

        Raises:
            TestbedError: It runs still, or was killed.
        """
        self._read()
        if self._summary is None:
            raise TestbedError(
                "the load has no summary",
                why=f"it runs still, or it was killed; its log:\n{log_tail(self._log)}",
                fix="ask after the end of the block",
            )
        return self._summary


def _check(url: str, **numbers: float | None) -> None:
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise UsageError(
            f"{url!r} is no target for load",
            why="load only goes to loopback addresses, given as numbers",
            fix="use the gateway's url, or http://127.a.b.c:PORT of a pod",
        )
    for name, value in numbers.items():
        if value is not None and not value > 0:
            raise UsageError(f"{name} of a load is {value:g}", fix="give a number greater than 0")
    if (numbers["interval"] or 0) < SHORTEST_INTERVAL:
        raise UsageError("the interval of a load is too short", fix=f"give at least {SHORTEST_INTERVAL} s")
