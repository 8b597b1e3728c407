"""Giving Envoy a configuration, and knowing that it has it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiohttp

from testbed.gateway import envoy
from testbed.gateway.plan import Configuration

APPLIED_WITHIN = 5.0
"""Seconds; Envoy takes milliseconds."""
EVERY = 0.01
UNREACHED = (aiohttp.ClientError, TimeoutError, OSError)


class NotApplied(Exception):
    """Envoy does not have a configuration (yet); `refused` when it said no."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


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
            NotApplied: Envoy refused it, or is not there.
        """
        versions = self._write_endpoints(wanted)
        names = set(wanted.clusters)
        before = self._known_clusters()
        if not names <= before:
            await self._clusters(before | names)
        for port, hosts in sorted(wanted.hosts.items()):
            version, _ = envoy.write(envoy.routes_file(self.folder, port), [envoy.routes(port, hosts)])
            versions[f"http.{envoy.route_table(port)}.rds.{envoy.route_table(port)}.version_text"] = version
        listeners = [envoy.listener(self.folder, port) for port in sorted(wanted.hosts)]
        versions["listener_manager.lds.version_text"], _ = envoy.write(self.folder / "lds.json", listeners)
        await self._wait(versions)
        await self._clusters(names)
        for path in (self.folder / "endpoints").glob("*.json"):
            if path not in {envoy.endpoints_file(self.folder, name) for name in names}:
                path.unlink()

    def _write_endpoints(self, wanted: Configuration) -> dict[str, str]:
        """Returns which statistic of Envoy shows which version."""
        versions = {}
        known = self._known_clusters()
        for name, found in wanted.clusters.items():
            path = envoy.endpoints_file(self.folder, name)
            version, _ = envoy.write(path, [envoy.assignment(name, found)])
            if name in known:
                versions[f"cluster.{name}.version_text"] = version
        return versions

    def _known_clusters(self) -> set[str]:
        try:
            found = json.loads((self.folder / "cds.json").read_text())
        except (OSError, ValueError):
            return set()
        return {entry["name"] for entry in found["resources"]}

    async def _clusters(self, names: set[str]) -> None:
        version, _ = envoy.write(self.folder / "cds.json", [envoy.cluster(self.folder, name) for name in sorted(names)])
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
                if (problem := await self._refusal()) is not None:
                    raise NotApplied(problem, refused=True)
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

    async def _refusal(self) -> str | None:
        """What Envoy says is wrong with a listener: a port that somebody else has, above all."""
        found = await self._get("/config_dump?resource=dynamic_listeners")
        for entry in found.get("configs") or []:
            if "error_state" in entry:
                return f"{entry.get('name')}: {entry['error_state'].get('details')}"
        return None
