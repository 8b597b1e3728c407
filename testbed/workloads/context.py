"""What a container knows of its agent and of its pod."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from testbed.workloads.cgroups import Cgroups

Body = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How the agent differs from a kubelet."""

    back_off: float = 0.5
    """Seconds before the second restart of a container that crashes (the first is immediate); then doubled. 10 at a
    kubelet."""
    longest_back_off: float = 15.0
    """300 at a kubelet. A container that ran twice as long begins anew."""
    tools: dict[str, Path] = field(default_factory=dict)
    """The binaries of the images' tools."""
    cgroups: Cgroups = field(default_factory=lambda: Cgroups({}, {}))
    """Who minds the limits of CPU and memory."""


class PodContext(Protocol):
    """What a container knows of its pod."""

    settings: Settings
    session: aiohttp.ClientSession
    folder: Path
    logs: Path
    flags: Path

    @property
    def body(self) -> Body:
        """The Pod object as last seen."""

    @property
    def loopback(self) -> str:
        """Its address on this machine."""

    @property
    def addresses(self) -> dict[str, str]:
        """The downward API's status.podIP and so on."""

    async def fetch(self, kind: str, name: str) -> Body | None:
        """A ConfigMap or Secret of its namespace."""

    def changed(self) -> None:
        """Its status has to be written."""

    def event(self, kind: str, reason: str, message: str, container: str = "") -> None:
        """Post an event."""

    def out_of_memory(self, container: str, pid: int) -> None:
        """Tell that a process was killed for its memory."""
