"""The load generator against small servers: a constant rate, counted by release, nothing hidden."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from testbed.errors import TestbedError, UsageError
from testbed.load import NOBODY, Load, answers
from testbed.supervisor import Supervisor
from testbed.toolchain import Toolchain
from testbed.wait import wait_until


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    hosts: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        self.hosts.add(str(self.headers["Host"]))
        if self.path == "/broken":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if self.path == "/slow":
            time.sleep(0.3)
        body = b'{"hostname": "podinfo-1", "version": "6.9.0"}' if self.path == "/json" else b"ok"
        self.send_response(500 if self.path == "/fails" else 200)
        if self.path != "/json":
            self.send_header("X-Testbed-Version", "v2")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.78.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.78.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """What a load needs of a platform: a supervisor and the tools."""
    supervisor = Supervisor.launch(tmp_path_factory.mktemp("load") / "run")
    supervisor.lease()
    yield SimpleNamespace(supervisor=supervisor, cluster=SimpleNamespace(toolchain=Toolchain()))
    supervisor.destroy()


def test_every_request_is_counted_by_release(platform: Any, url: str) -> None:
    with Load(platform, f"{url}/", rate=100, host="shop.test", duration=1, interval=0.1) as load:
        found = load.wait_end()
    assert (found.planned, found.sent, found.lost) == (100, 100, 0)
    assert found.releases["v2"].statuses == {"200": 100}
    assert answers(load.intervals()) == {"v2": 100}
    assert found.latency.p50 <= found.latency.p99 <= found.latency.max
    assert "shop.test" in Answer.hosts


def test_a_field_of_the_answer_names_the_release(platform: Any, url: str) -> None:
    with Load(platform, f"{url}/json", rate=50, duration=0.2) as load:
        assert set(load.wait_end().releases) == {"6.9.0"}
    with Load(platform, f"{url}/json", rate=50, duration=0.2, release_field="hostname") as load:
        assert set(load.wait_end().releases) == {"podinfo-1"}


def test_a_load_without_an_end_ends_with_its_block(platform: Any, url: str) -> None:
    with Load(platform, f"{url}/", rate=100, interval=0.05) as load:
        load.wait("some have come back", lambda seen: seen[-1].received >= 20, 30)
        with pytest.raises(TestbedError, match="no summary"):
            load.summary()
    assert load.summary().sent >= 20
    assert load.summary().lost == 0
    assert not platform.supervisor.component(load.process).running


def test_errors_and_broken_connections_are_lost_requests(platform: Any, url: str) -> None:
    with Load(platform, f"{url}/fails", rate=50, duration=0.2) as load:
        failed = load.wait_end()
    assert failed.lost == failed.sent == 10
    assert failed.statuses == {"500": 10}
    with Load(platform, f"{url}/broken", rate=50, duration=0.2) as load:
        broken = load.wait_end()
    assert broken.lost == broken.sent == 10
    assert broken.releases[NOBODY].statuses == {"0": 10}
    assert broken.errors == {"EOF": 10}


@contextmanager
def closes_used_connections() -> Iterator[tuple[str, list[int]]]:
    """A server that answers once a connection, and closes it when the next request has arrived; counts requests."""
    counted: list[int] = []

    def serve(connection: socket.socket) -> None:
        with connection:
            for number in (1, 2):
                if not connection.recv(65536):
                    return
                counted.append(number)
                if number == 1:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.socket() as listening:
        listening.bind(("127.0.78.2", 0))
        listening.listen()
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.78.2:{listening.getsockname()[1]}/", counted
        listening.shutdown(socket.SHUT_RDWR)


def test_a_request_whose_connection_breaks_is_not_sent_again(platform: Any) -> None:
    with closes_used_connections() as (url, counted), Load(platform, url, rate=20, duration=0.5) as load:
        found = load.wait_end()
    assert found.sent == 10
    assert found.failed == 5
    assert len(counted) == 10


def test_what_cannot_be_sent_is_counted_and_late_ones_are_slow(platform: Any, url: str) -> None:
    """One at a time of 0.3 s each, 20 due a second: most are never sent, and those that are have waited."""
    with Load(platform, f"{url}/slow", rate=20, duration=2, max_in_flight=1) as load:
        found = load.wait_end()
    assert found.planned == 40
    assert found.sent + found.unsent == 40
    assert 1 <= found.sent <= 12
    assert found.latency.max > 0.6


def test_it_dies_with_its_owner(tmp_path: Path, url: str) -> None:
    supervisor = Supervisor.launch(tmp_path / "run")
    supervisor.lease()
    owner: Any = SimpleNamespace(supervisor=supervisor, cluster=SimpleNamespace(toolchain=Toolchain()))
    load = Load(owner, f"{url}/", rate=10)
    load.__enter__()
    pid = supervisor.component(load.process).pid
    supervisor.release()
    wait_until("the generator is gone", lambda: (not Path(f"/proc/{pid}/cmdline").exists(), "there"), timeout=30)


@pytest.mark.parametrize(
    ("url", "more", "said"),
    [
        ("http://10.112.0.1:80", {}, "no target for load"),
        ("http://localhost:80", {}, "no target for load"),
        ("http://127.0.0.1:80", {"rate": 0}, "rate of a load is 0"),
        ("http://127.0.0.1:80", {"duration": -1}, "duration of a load is -1"),
        ("http://127.0.0.1:80", {"interval": 0.001}, "interval of a load is too short"),
    ],
)
def test_bad_input_is_refused(platform: Any, url: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as refusal:
        Load(platform, url, **({"rate": 1} | more))
    assert refusal.value.fix
