"""Giving Envoy a configuration, and knowing that it has it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiohttp

from testbed.gateway import envoy
from testbed.gateway.matching import Json
from testbed.gateway.plan import Configuration

APPLIED_WITHIN = 5.0
"""Seconds; Envoy takes milliseconds."""
EVERY = 0.01
UNREACHED = (aiohttp.ClientError, TimeoutError, OSError)


class NotApplied(Exception):
    """Envoy does not have a configuration (yet)."""


class PortRefused(NotApplied):
    """Envoy has all but a listener, on whose port it cannot listen."""

    def __init__(self, port: int, message: str) -> None:
        super().__init__(message)
        self.port = port


class Proxy:
    """One Envoy.

    Args:
        folder: The files that it watches.
        admin: URL of its admin API.
    """

    def __init__(self, folder: Path, admin: str) -> None:
        self.folder = folder
        self._admin = admin
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connection to its admin API."""
        if self._session is not None:
            await self._session.close()

    async def apply(self, wanted: Configuration) -> None:
        """Make it so, and return when Envoy has it. A crash between two steps leaves a configuration that works.

        New clusters come before the routes that use them, old ones go after the routes that used them, so at no
        moment does a request meet a route without its cluster.

        Raises:
            PortRefused: It cannot listen on one of the ports.
            NotApplied: It is not there, or refused something else.
        """
        clusters = {name: envoy.cluster(name, found) for name, found in wanted.clusters.items()}
        await self._clusters(self._known_clusters() | clusters)
        versions = {}
        for port, hosts in sorted(wanted.hosts.items()):
            version = envoy.write(envoy.routes_file(self.folder, port), [envoy.routes(port, hosts)])
            versions[f"http.{envoy.route_table(port)}.rds.{envoy.route_table(port)}.version_text"] = version
        listeners = [envoy.listener(self.folder, port) for port in sorted(wanted.hosts)]
        versions["listener_manager.lds.version_text"] = envoy.write(self.folder / "lds.json", listeners)
        await self._wait(versions)
        await self._clusters(clusters)

    def _known_clusters(self) -> dict[str, Json]:
        return {entry["name"]: entry for entry in envoy.resources_in(self.folder / "cds.json")}

    async def _clusters(self, clusters: dict[str, Json]) -> None:
        version = envoy.write(self.folder / "cds.json", [found for _, found in sorted(clusters.items())])
        await self._wait({"cluster_manager.cds.version_text": version})

    async def _wait(self, versions: dict[str, str]) -> None:
        """Wait until Envoy shows these versions and no cluster lacks its addresses."""
        deadline = time.monotonic() + APPLIED_WITHIN
        seen: Any = "nothing"
        while time.monotonic() < deadline:
            try:
                stats = await self._stats()
                seen = {name: stats.get(name) for name, wanted in versions.items() if stats.get(name) != wanted}
                if not seen and not stats.get("cluster_manager.warming_clusters"):
                    return
                if (refused := await self._refusal()) is not None:
                    raise refused
            except UNREACHED as error:
                seen = f"its admin API does not answer: {error}"
            await asyncio.sleep(EVERY)
        raise NotApplied(f"Envoy does not have the configuration after {APPLIED_WITHIN:g} s: {seen}")

    async def _get(self, path: str) -> Any:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2))
        async with self._session.get(f"{self._admin}{path}") as answer:
            answer.raise_for_status()
            return json.loads(await answer.text())

    async def _stats(self) -> dict[str, Any]:
        found = await self._get("/stats?format=json&filter=(version_text|warming_clusters)$")
        return {entry["name"]: entry["value"] for entry in found["stats"] if "name" in entry}

    async def _refusal(self) -> PortRefused | None:
        """What Envoy says is wrong with a listener: a port that somebody else has, above all."""
        found = await self._get("/config_dump?resource=dynamic_listeners")
        for entry in found.get("configs") or []:
            if "error_state" in entry:
                return PortRefused(envoy.port_of(entry["name"]), str(entry["error_state"].get("details")))
        return None
