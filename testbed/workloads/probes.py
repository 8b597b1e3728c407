"""Startup, readiness and liveness probes, with the kubelet's rules for delays, periods and thresholds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import aiohttp

Body = dict[str, Any]
Kind = Literal["startup", "readiness", "liveness"]
Exec = Callable[[list[str], float], Awaitable[tuple[bool, str]]]
"""Runs a command as in the container, within so many seconds; returns whether it succeeded, and its output."""
EAGER = 0.1
"""Seconds between two tries before the first success of a startup or readiness probe, within its first period. A
kubelet would wait for the whole period; failures of these extra tries are not counted."""


class Target:
    """What a container's probes ask.

    Args:
        address: The pod's address on this machine.
        ports: The container's named ports.
        run: For exec probes.
        session: For HTTP probes.
    """

    def __init__(self, address: str, ports: dict[str, int], run: Exec, session: aiohttp.ClientSession) -> None:
        self._address = address
        self._ports = ports
        self._run = run
        self._session = session

    def _port(self, port: str | int) -> int:
        return port if isinstance(port, int) else int(self._ports.get(port) or port)

    async def ask(self, probe: Body, timeout: float) -> tuple[bool, str]:
        """One try of a probe or of a lifecycle hook's handler; returns whether it succeeded, and why not."""
        try:
            if "httpGet" in probe:
                return await self._http(probe["httpGet"], timeout)
            if "tcpSocket" in probe:
                port = self._port(probe["tcpSocket"]["port"])
                _, writer = await asyncio.wait_for(asyncio.open_connection(self._address, port), timeout)
                writer.close()
                return True, ""
            if "exec" in probe:
                return await self._run(probe["exec"]["command"], timeout)
        except TimeoutError:
            return False, f"no answer within {timeout:g} s"
        except aiohttp.ClientConnectorError as error:
            return False, f"connect to {error.host}:{error.port}: {error.os_error.strerror}"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return False, str(error) or type(error).__name__
        return False, f"probes by {sorted(probe)} are not supported by the testbed"

    async def _http(self, get: Body, timeout: float) -> tuple[bool, str]:
        host = get.get("host") or self._address
        if host == "localhost":
            host = self._address
        url = f"{get.get('scheme', 'HTTP').lower()}://{host}:{self._port(get['port'])}{get.get('path') or '/'}"
        headers = {"User-Agent": "kube-probe/testbed"} | {h["name"]: h["value"] for h in get.get("httpHeaders") or []}
        limit = aiohttp.ClientTimeout(total=timeout)
        async with self._session.get(url, headers=headers, timeout=limit, ssl=False, allow_redirects=False) as answer:
            if 200 <= answer.status < 400:
                return True, ""
            return False, f"HTTP probe failed with statuscode: {answer.status}"


async def follow(
    kind: Kind,
    probe: Body,
    target: Target,
    changed: Callable[[bool], None],
    failed: Callable[[str], None],
) -> None:
    """Probe until cancelled; a startup probe ends with its first success.

    Args:
        changed: Told the result whenever it changes, thresholds considered: readiness begins as failed, liveness as
            succeeded, startup as neither.
        failed: Told why, at each failure that counts.
    """
    period, timeout = float(probe.get("periodSeconds") or 10), float(probe.get("timeoutSeconds") or 1)
    thresholds = {True: int(probe.get("successThreshold") or 1), False: int(probe.get("failureThreshold") or 3)}
    await asyncio.sleep(float(probe.get("initialDelaySeconds") or 0))
    clock = asyncio.get_running_loop()
    if kind != "liveness":
        await _eagerly(probe, target, timeout, clock.time() + period)
    result: bool | None = {"startup": None, "readiness": False, "liveness": True}[kind]
    last, run, due = None, 0, clock.time()
    while True:
        good, why = await target.ask(probe, timeout)
        run = run + 1 if good == last else 1
        last = good
        if not good:
            failed(why)
        if good != result and run >= thresholds[good]:
            result = good
            changed(good)
            if kind == "startup" and good:
                return
        due = max(due + period, clock.time())
        await asyncio.sleep(due - clock.time())


async def _eagerly(probe: Body, target: Target, timeout: float, until: float) -> None:
    """Wait for the first success, at most for so long."""
    clock = asyncio.get_running_loop()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(until):
            while not (await target.ask(probe, timeout))[0] and clock.time() < until:
                await asyncio.sleep(EAGER)
