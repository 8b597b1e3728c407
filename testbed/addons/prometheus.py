"""Prometheus: the real server, scraping what add-ons name, with the alert rules of `manifests/`.

Targets are files that Prometheus watches, so add-ons come and go without a reload.
"""

from __future__ import annotations

import copy
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from testbed.addons.base import AddOn
from testbed.cluster import Cluster, Fidelity
from testbed.errors import TestbedError
from testbed.paths import manifests
from testbed.ports import LOOPBACK, free_ports, retry_on_taken_port
from testbed.supervisor import ProcessSpec, log_tail
from testbed.wait import Probe, wait_until

SCRAPE_SECONDS = 1
TIME_SCALE = 60
"""The `for` of every alert is divided by this: the two minutes of production are two seconds here."""
READY_TIMEOUT = 60.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _folder(cluster: Cluster) -> Path:
    return cluster.folder / "prometheus"


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
        """Configuration, rules, process."""
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
                {"job_name": "add-ons", "file_sd_configs": [{"files": [str(folder / "targets" / "*.json")]}]}
            ],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
        self._write_rules(without=())
        self._start(folder)

    def resume(self) -> None:
        """The same: it stores nothing in the cluster."""
        self.install()

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
        for source in sorted(manifests("operators", "alerts").glob("*.yaml")):
            rules = scaled(yaml.safe_load(source.read_text()), TIME_SCALE)
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
        """Wait until it is ready and has its rules."""

        def loaded() -> tuple[bool, object]:
            self._request("/-/ready")
            return bool(self.query_api("rules")["groups"]), "no rules"

        self._wait(self.cluster.supervisor.require_running, loaded)

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

    def uninstall(self) -> None:
        """Stop it."""
        self.cluster.supervisor.stop([self.cluster.component("prometheus")])

    def fidelity(self) -> Fidelity:
        """What is real here."""
        return Fidelity(
            part=f"prometheus {self.version}",
            real="the server: scraping, rules, alerts",
            simulated=f"targets from files; looks every {SCRAPE_SECONDS} s; waiting times of alerts divided by "
            f"{TIME_SCALE}; no Alertmanager",
        )
