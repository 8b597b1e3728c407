"""A real Envoy takes what the controller gives it, and says no to what cannot be."""

from __future__ import annotations

import asyncio
import http.client
import http.server
import json
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from testbed.addons.gateway import binary
from testbed.gateway import envoy
from testbed.gateway.backends import Backend, Endpoint
from testbed.gateway.matching import Rule
from testbed.gateway.plan import Configuration
from testbed.gateway.proxy import PortRefused, Proxy
from testbed.pages import NOT_SERVED, page
from testbed.ports import LOOPBACK, free_ports
from testbed.wait import wait_until


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one segment: two would wait for an acknowledgement

    def do_GET(self) -> None:
        body = str(self.server.server_address[0]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def backends() -> Iterator[list[Endpoint]]:
    """Two servers, each answering with its own address."""
    servers = [http.server.ThreadingHTTPServer((f"127.0.77.{number}", 0), Answer) for number in (1, 2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [Endpoint(str(server.server_address[0]), int(server.server_address[1])) for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


class Running:
    """An Envoy with its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.admin, self.metrics = free_ports(3)
        for name in ("lds.json", "cds.json"):
            envoy.write(folder / name, [])
        start = folder / "bootstrap.json"
        start.write_text(json.dumps(envoy.bootstrap(folder, self.admin, self.metrics)))
        argv = [str(binary()), "-c", str(start), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
        self.process = subprocess.Popen(argv)
        wait_until(
            "Envoy answers",
            lambda: ((seen := page(LOOPBACK, self.admin, "/ready"))[0] == 200, seen),
            timeout=60,
            retry_on=NOT_SERVED,
        )

    def apply(self, wanted: Configuration) -> None:
        async def applied(proxy: Proxy) -> None:
            try:
                await proxy.apply(wanted)
            finally:
                await proxy.close()

        work: Coroutine[Any, Any, None] = applied(Proxy(self.folder, f"http://{LOOPBACK}:{self.admin}"))
        asyncio.run(work)

    def get(self, host: str = "shop.test") -> tuple[int, str]:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=5)
        try:
            connection.request("GET", "/", headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    found = Running(tmp_path_factory.mktemp("envoy"))
    yield found
    found.process.kill()
    found.process.wait()


def configuration(port: int, weights: dict[str, int], clusters: dict[str, list[Endpoint]]) -> Configuration:
    rule = {"backendRefs": [{"name": name, "weight": weight} for name, weight in weights.items()]}
    translated = Rule(rule, lambda reference: Backend("shop", reference["name"], 80))
    routes = [entry for _, entry in translated.routes()]
    named = {f"shop/{name}/80": found for name, found in clusters.items()}
    return Configuration(hosts={port: {"shop.test": routes}}, clusters=named)


def test_a_change_is_live_when_apply_returns(running: Running, backends: list[Endpoint]) -> None:
    one, other = backends
    both = {"a": [one], "b": [other]}
    for weights, wanted in (({"a": 1, "b": 0}, one), ({"a": 0, "b": 1}, other), ({"a": 1}, one)):
        running.apply(configuration(running.port, weights, {name: both[name] for name in weights}))
        assert {running.get() for _ in range(20)} == {(200, wanted.address)}
    assert running.get("elsewhere.test")[0] == 404


def test_weights_are_kept(running: Running, backends: list[Endpoint]) -> None:
    one, other = backends
    running.apply(configuration(running.port, {"a": 80, "b": 20}, {"a": [one], "b": [other]}))
    seen = Counter(running.get()[1] for _ in range(500))
    # Five standard deviations of a fifth of 500.
    assert 55 <= seen[other.address] <= 145
    assert seen[one.address] + seen[other.address] == 500


def test_endpoints_come_and_go(running: Running, backends: list[Endpoint]) -> None:
    one, other = backends
    running.apply(configuration(running.port, {"a": 1}, {"a": [one, other]}))
    assert {running.get()[1] for _ in range(20)} == {one.address, other.address}
    running.apply(configuration(running.port, {"a": 1}, {"a": [other]}))
    assert {running.get()[1] for _ in range(20)} == {other.address}
    running.apply(configuration(running.port, {"a": 1}, {"a": []}))
    assert running.get()[0] == 503


def test_metrics_tell_the_backends_apart(running: Running, backends: list[Endpoint]) -> None:
    running.apply(configuration(running.port, {"metered": 1}, {"metered": [backends[0]]}))
    assert running.get()[0] == 200
    _, text = page(LOOPBACK, running.metrics, "/metrics")
    assert 'envoy_cluster_upstream_rq{envoy_response_code="200",envoy_cluster_name="shop/metered/80"} 1' in text
    assert "quitquitquit" not in page(LOOPBACK, running.metrics, "/")[1]


def test_a_port_that_is_taken_is_told(running: Running, backends: list[Endpoint]) -> None:
    wanted = configuration(running.port, {"a": 1}, {"a": [backends[0]]})
    with closing(socket.socket()) as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        wanted.hosts[taken.getsockname()[1]] = {}
        with pytest.raises(PortRefused, match="already in use") as refusal:
            running.apply(wanted)
        assert refusal.value.port == taken.getsockname()[1]
        assert running.get() == (200, backends[0].address)
        del wanted.hosts[taken.getsockname()[1]]
    running.apply(wanted)
    assert running.get() == (200, backends[0].address)
