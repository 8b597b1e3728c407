"""Whatever moment the controller is killed in, Envoy's files hold a configuration that works."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from testbed.gateway import envoy
from testbed.gateway.backends import Endpoint
from testbed.gateway.plan import Configuration
from testbed.gateway.proxy import Proxy

PORT = 18080


class Killed(Exception):
    pass


class NoEnvoy(Proxy):
    """Writes the files and asks nobody."""

    async def _wait(self, versions: dict[str, str]) -> None:
        pass


def configuration(*services: str) -> Configuration:
    names = [f"shop/{service}/80" for service in services]
    clusters = [{"name": name, "weight": 1} for name in names]
    routes = [{"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": clusters}}}]
    return Configuration(
        hosts={PORT: {"shop.test": routes}}, clusters={name: [Endpoint("127.112.0.1", 80)] for name in names}
    )


def resources(path: Path) -> list[Any]:
    found: list[Any] = json.loads(path.read_text())["resources"]
    return found


def used(folder: Path) -> set[str]:
    """The clusters that the routes use."""
    (table,) = resources(envoy.routes_file(folder, PORT))
    routes = [route for host in table["virtual_hosts"] for route in host["routes"]]
    return {one["name"] for route in routes for one in route["route"]["weighted_clusters"]["clusters"]}


def apply(folder: Path, wanted: Configuration) -> None:
    asyncio.run(NoEnvoy(folder, "http://127.0.0.1:1").apply(wanted))


def test_a_kill_between_two_writes_leaves_no_route_without_its_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, killed_after = envoy.write, 0
    while True:
        folder = tmp_path / str(killed_after)
        apply(folder, configuration("a", "b"))
        written: list[Path] = []

        def write(path: Path, found: list[Any], limit: int = killed_after, done: list[Path] = written) -> str:
            if len(done) == limit:
                raise Killed
            before = path.read_text()
            version = original(path, found)
            if path.read_text() != before:
                done.append(path)
            return version

        monkeypatch.setattr(envoy, "write", write)
        try:
            apply(folder, configuration("b", "c"))
            finished = True
        except Killed:
            finished = False
        monkeypatch.setattr(envoy, "write", original)
        there = {entry["name"] for entry in resources(folder / "cds.json")}
        assert used(folder) <= there
        if finished:
            break
        killed_after += 1
    assert killed_after == 3  # the new cluster, the routes, the end of the old one
    assert used(folder) == there == {"shop/b/80", "shop/c/80"}


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    apply(tmp_path, configuration("a"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    apply(tmp_path, configuration("a"))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")} == before
