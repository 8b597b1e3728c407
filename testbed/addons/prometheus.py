"""Prometheus: the real server, scraping what add-ons name and pods ask for, with the alert rules of `manifests/`.

Targets are files that Prometheus watches, so add-ons and pods come and go without a reload.
"""

from __future__ import annotations

import copy
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from testbed.addons.base import AddOn
from testbed.cluster import Cluster, Fidelity, load_manifests
from testbed.errors import TestbedError
from testbed.monitoring.watching import require_watching
from testbed.paths import manifests
from testbed.ports import LOOPBACK, free_ports, retry_on_taken_port
from testbed.supervisor import ProcessSpec, log_tail
from testbed.wait import Probe, wait_until

NAMESPACE = "monitoring"
ROLE, DISCOVERY = "prometheus", "prometheus-discovery"
"""The roles of its two processes; the first is also its service account."""
SCRAPE_SECONDS = 1
READY_TIMEOUT = 60.0
RULES = ("operators", "monitoring")
"""Folders of `manifests/` with alert rules in `alerts/`."""
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _folder(cluster: Cluster) -> Path:
    return cluster.folder / "prometheus"


def send_alerts(cluster: Cluster, address: str | None) -> None:
    """Have alerts sent to an Alertmanager; with `address` None, no more. Works before and after the add-on."""
    path = _folder(cluster) / "alertmanagers.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps([{"targets": [address] if address else []}]))
    part.replace(path)


def scrape(cluster: Cluster, job: str, instance: str, address: str | None) -> None:
    """Have a target scraped; with `address` None, no more. Works before, after and without the add-on."""
    targets = _folder(cluster) / "targets"
    targets.mkdir(parents=True, exist_ok=True)
    path = targets / f"{instance}.json"
    if address is None:
        path.unlink(missing_ok=True)
        return
    part = targets / f"{instance}.part"
    part.write_text(json.dumps([{"targets": [address], "labels": {"job": job, "instance": instance}}]))
    part.replace(path)


def seconds(duration: str) -> float:
    """The seconds of a Prometheus duration such as 1h30m."""
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|s|m|h|d)", duration))


def scaled(rules: dict[str, Any], scale: float) -> dict[str, Any]:
    """The same rules with the waiting time of every alert divided by `scale`; what they look at stays."""
    shorter = copy.deepcopy(rules)
    for group in shorter["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = f"{max(1, round(seconds(str(rule['for'])) / scale * 1000))}ms"
    return shorter


class Prometheus(AddOn):
    """One server on loopback."""

    name = "prometheus"
    tools = ("prometheus",)

    @property
    def url(self) -> str:
        """Where it listens."""
        status = self.cluster.supervisor.component(self.cluster.component("prometheus"))
        return f"http://{status.tags['address']}"

    def install(self) -> None:
        """RBAC of the discovery, configuration, rules, both processes."""
        self.cluster.client().apply_all(load_manifests(manifests("monitoring", "rbac.yaml")))
        self.resume()

    def resume(self) -> None:
        """Configuration, rules, both processes."""
        folder = _folder(self.cluster)
        (folder / "targets").mkdir(parents=True, exist_ok=True)
        (folder / "rules").mkdir(exist_ok=True)
        configuration = {
            "global": {
                "scrape_interval": f"{SCRAPE_SECONDS}s",
                "scrape_timeout": f"{SCRAPE_SECONDS}s",
                "evaluation_interval": f"{SCRAPE_SECONDS}s",
            },
            "rule_files": [str(folder / "rules" / "*.yaml")],
            "scrape_configs": [
                {"job_name": "add-ons", "file_sd_configs": [{"files": [str(folder / "targets" / "*.json")]}]},
                {"job_name": "pods", "file_sd_configs": [{"files": [str(folder / "pods.json")]}]},
            ],
            "alerting": {
                "alertmanagers": [{"file_sd_configs": [{"files": [str(folder / "alertmanagers.json")]}]}],
            },
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
        self._write_rules(without=())
        self._start_discovery(folder / "pods.json")
        self._start(folder)

    def _start_discovery(self, targets: Path) -> None:
        name = self.cluster.component(DISCOVERY)
        self.cluster.supervisor.stop([name], grace=0)
        kubeconfig = self.cluster.service_account_kubeconfig(NAMESPACE, ROLE)
        self.cluster.supervisor.start(
            ProcessSpec(
                name=name,
                argv=[
                    *(sys.executable, "-m", "testbed.monitoring"),
                    f"--kubeconfig={kubeconfig}",
                    f"--targets={targets}",
                ],
                env={"MALLOC_ARENA_MAX": "2", "PYTHONDONTWRITEBYTECODE": "1"},
                tags={"cluster": self.cluster.name, "role": DISCOVERY},
                restart_limit=100,
            )
        )

    @retry_on_taken_port
    def _start(self, folder: Path) -> None:
        self.cluster.supervisor.stop([self.cluster.component("prometheus")], grace=0)
        (port,) = free_ports(1)
        binary = self.cluster.toolchain.ensure(["prometheus"])["prometheus"]
        self.cluster.supervisor.start(
            ProcessSpec(
                name=self.cluster.component("prometheus"),
                argv=[
                    str(binary),
                    f"--config.file={folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    "--storage.tsdb.retention.time=2h",
                    f"--web.listen-address={LOOPBACK}:{port}",
                    "--web.enable-lifecycle",
                    "--log.level=warn",
                ],
                env={"GOMAXPROCS": "2", "GOMEMLIMIT": "200MiB"},
                tags={"cluster": self.cluster.name, "role": "prometheus", "address": f"{LOOPBACK}:{port}"},
            )
        )
        self._wait(self.cluster.supervisor.require_started, lambda: (bool(self._request("/-/healthy")), "not healthy"))

    def _write_rules(self, without: tuple[str, ...]) -> None:
        sources = [path for folder in RULES for path in sorted(manifests(folder, "alerts").glob("*.yaml"))]
        for source in sources:
            rules = scaled(yaml.safe_load(source.read_text()), self.cluster.spec.time_scale)
            for group in rules["groups"]:
                group["rules"] = [rule for rule in group["rules"] if rule.get("alert") not in without]
            (_folder(self.cluster) / "rules" / source.name).write_text(yaml.safe_dump(rules))

    def set_rules(self, *, without: tuple[str, ...] = ()) -> None:
        """Load the rules, except the alerts named; returns when Prometheus has them."""
        self._write_rules(without)
        self._request("/-/reload", method="POST")

        def loaded() -> tuple[bool, object]:
            names = {rule["name"] for group in self.query_api("rules")["groups"] for rule in group["rules"]}
            return not names & set(without) and bool(names), sorted(names)

        wait_until("Prometheus has its rules", loaded, timeout=READY_TIMEOUT)

    def ready(self) -> None:
        """Wait until it is ready, has its rules, and the pods are known.

        Raises:
            TestbedError: It is ready but hears of no target, for want of inotify instances.
        """

        def loaded() -> tuple[bool, object]:
            self.cluster.supervisor.require_running(self.cluster.component(DISCOVERY))
            self._request("/-/ready")
            known = (_folder(self.cluster) / "pods.json").exists()
            return bool(self.query_api("rules")["groups"]) and known, "no rules, or no list of pods"

        self._wait(self.cluster.supervisor.require_running, loaded)
        require_watching(self._request("/metrics").decode(), self.cluster.log(ROLE))

    def _wait(self, require: Callable[..., None], probe: Probe) -> None:
        name, log = self.cluster.component("prometheus"), self.cluster.log("prometheus")

        def alive_and_probe() -> tuple[bool, object]:
            require(name)
            return probe()

        wait_until(
            f"{name} is ready",
            alive_and_probe,
            timeout=READY_TIMEOUT,
            retry_on=(OSError,),
            evidence=lambda: log_tail(log),
        )

    def _request(self, path: str, method: str = "GET") -> bytes:
        request = urllib.request.Request(f"{self.url}{path}", method=method)  # noqa: S310 (our own loopback URL)
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            content: bytes = answer.read()
            return content

    def query_api(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its HTTP API: `query_api("query", query="up")`.

        Raises:
            TestbedError: It refused the request; says why.
        """
        try:
            answer = json.loads(self._request(f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
        except urllib.error.HTTPError as error:
            raise TestbedError(
                f"Prometheus refused {path}", why=error.read().decode()[:500], fix="correct the query"
            ) from None
        return answer["data"]

    def value(self, query: str) -> float | None:
        """The value of a query with one result; None without a result."""
        result = self.query_api("query", query=query)["result"]
        return float(result[0]["value"][1]) if result else None

    def firing(self, alert: str, **labels: str) -> list[dict[str, Any]]:
        """Alerts of this name and these labels that fire now."""
        return [
            entry
            for entry in self.query_api("alerts")["alerts"]
            if entry["state"] == "firing"
            and entry["labels"]["alertname"] == alert
            and labels.items() <= entry["labels"].items()
        ]

    def wait_firing(self, alert: str, *, within: float, **labels: str) -> dict[str, Any]:
        """Wait until an alert of this name and these labels fires; returns it as Prometheus' API has it.

        Args:
            alert: Its name.
            within: Seconds.
            labels: Labels that it must have.

        Raises:
            WaitTimeout: It did not fire in time; says which alerts are pending or firing.
        """
        found: list[dict[str, Any]] = []

        def fires() -> tuple[bool, object]:
            found[:] = self.firing(alert, **labels)
            active = [(one["labels"]["alertname"], one["state"]) for one in self.query_api("alerts")["alerts"]]
            return bool(found), f"active alerts: {active}"

        wait_until(f"the alert {alert} {labels or ''} fires", fires, timeout=within, retry_on=(OSError,))
        return found[0]

    def uninstall(self) -> None:
        """Stop both processes and remove what the discovery may do."""
        self.cluster.supervisor.stop([self.cluster.component(DISCOVERY), self.cluster.component(ROLE)])
        kube = self.cluster.client()
        for found in reversed(load_manifests(manifests("monitoring", "rbac.yaml"))):
            metadata = found["metadata"]
            where = metadata.get("namespace")
            kube.delete(found["kind"], metadata["name"], namespace=where, api_version=found["apiVersion"])

    def fidelity(self) -> Fidelity:
        """What is real here."""
        return Fidelity(
            part=f"prometheus {self.version}",
            real="the server: scraping, rules, alerts",
            simulated="pods by their annotations prometheus.io/*, not by PodMonitors; targets come from a watcher "
            f"of the testbed; looks every {SCRAPE_SECONDS} s; waiting times of alerts divided by "
            f"{self.cluster.spec.time_scale:g}",
        )
