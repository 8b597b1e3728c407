"""Alertmanager: the real server with the platform's routes; scenarios ask it whom it would notify."""

from __future__ import annotations

import copy
import json
import urllib.request
from typing import Any

import yaml

from testbed.addons.base import AddOn
from testbed.addons.prometheus import scrape, seconds, send_alerts
from testbed.cluster import Fidelity
from testbed.pages import NOT_SERVED
from testbed.paths import manifests
from testbed.ports import LOOPBACK, free_ports, retry_on_taken_port
from testbed.supervisor import ProcessSpec, log_tail
from testbed.wait import wait_until

ROLE = "alertmanager"
READY_TIMEOUT = 60.0
WAITS = ("group_wait", "group_interval", "repeat_interval")
LEAST_WAIT = 0.1
"""Seconds; a group that waits for nothing would tell of each alert alone."""


def scaled_routes(configuration: dict[str, Any], scale: float) -> dict[str, Any]:
    """The same routes with every waiting time divided by `scale`."""
    shorter = copy.deepcopy(configuration)

    def shorten(route: dict[str, Any]) -> None:
        for name in WAITS:
            if name in route:
                route[name] = f"{round(max(LEAST_WAIT, seconds(str(route[name])) / scale) * 1000)}ms"
        for child in route.get("routes") or []:
            shorten(child)

    shorten(shorter["route"])
    return shorter


class Alertmanager(AddOn):
    """One server on loopback, alone: no cluster of Alertmanagers."""

    name = "alertmanager"
    tools = ("alertmanager",)
    requires = ("prometheus",)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.cluster.supervisor.component(self.cluster.component(ROLE)).tags['address']}"

    def install(self) -> None:
        """Routes and process; Prometheus learns its address."""
        folder = self.cluster.folder / ROLE
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        routes = yaml.safe_load(manifests("monitoring", "alertmanager", "alertmanager.yaml").read_text())
        configuration = folder / "alertmanager.yaml"
        configuration.write_text(yaml.safe_dump(scaled_routes(routes, self.cluster.spec.time_scale)))
        self._start()

    def resume(self) -> None:
        """The same: it stores nothing in the cluster."""
        self.install()

    @retry_on_taken_port
    def _start(self) -> None:
        name, folder = self.cluster.component(ROLE), self.cluster.folder / ROLE
        self.cluster.supervisor.stop([name], grace=0)
        (port,) = free_ports(1)
        address = f"{LOOPBACK}:{port}"
        binary = self.cluster.toolchain.ensure(["alertmanager"])["alertmanager"]
        self.cluster.supervisor.start(
            ProcessSpec(
                name=name,
                argv=[
                    str(binary),
                    f"--config.file={folder / 'alertmanager.yaml'}",
                    f"--storage.path={folder / 'data'}",
                    f"--web.listen-address={address}",
                    "--cluster.listen-address=",
                    "--log.level=warn",
                ],
                env={"GOMAXPROCS": "1", "GOMEMLIMIT": "100MiB"},
                tags={"cluster": self.cluster.name, "role": ROLE, "address": address},
                restart_limit=100,
            )
        )
        self._wait(self.cluster.supervisor.require_started)
        send_alerts(self.cluster, address)
        scrape(self.cluster, ROLE, ROLE, address)

    def _wait(self, require: Any) -> None:
        name = self.cluster.component(ROLE)

        def probe() -> tuple[bool, object]:
            require(name)
            return self._get("/api/v2/status")["config"] is not None, "no configuration"

        log = self.cluster.log(ROLE)
        wait_until(
            f"{name} is ready", probe, timeout=READY_TIMEOUT, retry_on=NOT_SERVED, evidence=lambda: log_tail(log)
        )

    def ready(self) -> None:
        """Wait until it answers."""
        self._wait(self.cluster.supervisor.require_running)

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=5) as answer:  # noqa: S310 (our own loopback URL)
            return json.load(answer)

    def receivers(self, alert: str, **labels: str) -> set[str]:
        """Whom it notifies of the active alerts of this name and these labels: the names of receivers."""
        return {
            group["receiver"]["name"]
            for group in self._get("/api/v2/alerts/groups?silenced=false&inhibited=false")
            for found in group["alerts"]
            if found["labels"]["alertname"] == alert
            and labels.items() <= found["labels"].items()
            and found["status"]["state"] == "active"
        }

    def wait_notified(self, receiver: str, alert: str, *, within: float, **labels: str) -> None:
        """Wait until a receiver would hear of an alert.

        Raises:
            WaitTimeout: It would not; says who would.
        """

        def probe() -> tuple[bool, object]:
            found = self.receivers(alert, **labels)
            return receiver in found, f"receivers: {sorted(found)}"

        wait_until(f"{receiver} is notified of {alert}", probe, timeout=within, retry_on=NOT_SERVED)

    def uninstall(self) -> None:
        """Stop it; Prometheus sends no more."""
        send_alerts(self.cluster, None)
        scrape(self.cluster, ROLE, ROLE, None)
        self.cluster.supervisor.stop([self.cluster.component(ROLE)])

    def fidelity(self) -> Fidelity:
        """What is real here."""
        return Fidelity(
            part=f"alertmanager {self.version}",
            real="the server: routes, groups, silences, inhibition",
            simulated="receivers without an integration, nothing leaves the machine; no web page; "
            f"waiting times divided by {self.cluster.spec.time_scale:g}",
        )
