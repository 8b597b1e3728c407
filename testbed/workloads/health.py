"""The probes of a running container and its exec commands, and what follows from them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from testbed.workloads import images, preparation, probes
from testbed.workloads.process import Process, tail
from testbed.workloads.record import Record


def target(record: Record) -> probes.Target:
    """What its probes and hooks ask."""
    ports = {p["name"]: int(p["containerPort"]) for p in record.spec.get("ports") or [] if "name" in p}

    async def run(command: list[str], timeout: float) -> tuple[bool, str]:
        return await execute(record, command, timeout)

    return probes.Target(record.pod.loopback, ports, run, record.pod.session)


async def execute(record: Record, command: list[str], timeout: float) -> tuple[bool, str]:
    """Run a command as in the container; returns whether it succeeded, and why not."""
    image = images.find(record.spec["image"])
    program = Path(command[0]).name
    if program == "sleep" and len(command) == 2:
        await asyncio.sleep(float(command[1]))
        return True, ""
    if program not in image.checks:
        return False, f"{command[0]!r} cannot be run: the image runs as the process {image.tool}"
    log = record.log.with_suffix(".exec.log")
    environ = await preparation.configured(record) or {}
    argv = [str(record.pod.settings.tools[image.tool]), *command[1:]]
    process = await Process.start(argv, environ, folder=record.pod.folder, log=log)
    try:
        code = await asyncio.wait_for(process.wait(), timeout)
    except TimeoutError:
        process.kill()
        return False, f"command {command} timed out after {timeout:g} s"
    return code == 0, "" if code == 0 else tail(log, 1)


async def watch(record: Record, unhealthy: Callable[[str], None]) -> None:
    """Follow all its probes; the others wait for the startup probe.

    Args:
        unhealthy: Told which probe (`startup`, `liveness`) has failed for good.
    """
    asked = target(record)
    if "startupProbe" in record.spec:
        await probes.follow(
            "startup",
            record.spec["startupProbe"],
            asked,
            lambda good: _started(record) if good else unhealthy("startup"),
            lambda why: record.event("Warning", "Unhealthy", f"Startup probe failed: {why}"),
        )
    async with asyncio.TaskGroup() as group:
        if "readinessProbe" in record.spec:
            group.create_task(
                probes.follow(
                    "readiness",
                    record.spec["readinessProbe"],
                    asked,
                    lambda good: _readiness(record, good),
                    lambda why: record.event("Warning", "Unhealthy", f"Readiness probe failed: {why}"),
                )
            )
        if "livenessProbe" in record.spec:
            group.create_task(
                probes.follow(
                    "liveness",
                    record.spec["livenessProbe"],
                    asked,
                    lambda good: None if good else unhealthy("liveness"),
                    lambda why: _liveness_failed(record, why),
                )
            )


def _started(record: Record) -> None:
    record.started = True
    record.ready = "readinessProbe" not in record.spec
    record.running.set()
    record.pod.changed()


def _readiness(record: Record, good: bool) -> None:
    record.ready = good
    record.pod.changed()


def _liveness_failed(record: Record, why: str) -> None:
    if not record.ending.is_set():
        record.event("Warning", "Unhealthy", f"Liveness probe failed: {why}")
