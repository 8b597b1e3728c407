"""Flagger: the real controller and its load tester as processes, with upstream's own rights."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from testbed.addons.base import AddOn
from testbed.addons.prometheus import Prometheus, scrape
from testbed.cluster import Fidelity, Manifest, load_manifests
from testbed.cluster.client import NOT_YET
from testbed.errors import UsageError
from testbed.pages import NOT_SERVED, page
from testbed.paths import manifests
from testbed.ports import LOOPBACK, free_ports, retry_on_taken_port
from testbed.supervisor import ProcessSpec, log_tail
from testbed.wait import wait_until

NAMESPACE = "flagger-system"
API = "flagger.app/v1beta1"
ROLE, LOAD_TESTER, NAMES = "flagger", "flagger-loadtester", "flagger-service-names"
"""The roles of its three processes; the first is also its service account."""
PROVIDER = "gatewayapi:v1"
SHORTEST_INTERVAL = 10
"""Seconds between two looks at a canary, at least: Flagger takes no less, whatever a Canary says."""
SYNC_SECONDS = 1
"""How often it looks for Canaries that are new or gone; 10 by default."""
TAGS = ("cost-center", "team", "environment", "service")
"""Labels that a primary gets from its Deployment: without them policy refuses it."""
READY_TIMEOUT = 60.0
PROBE = "testbed-probe"


class Flagger(AddOn):
    """One controller, its load tester, and the names of Services for the latter."""

    name = "flagger"
    tools = ("flagger", "flagger-loadtester", "hey")
    requires = ("flagger-crds", "gateway-api-crds", "prometheus")
    lane = "delivery"

    def _objects(self) -> list[Manifest]:
        return [
            *load_manifests(manifests("flagger", "rbac.yaml")),
            *load_manifests(self.cluster.toolchain.assets("flagger") / "kustomize/base/flagger/rbac.yaml"),
        ]

    def address(self, role: str) -> str:
        """Where one of its processes listens."""
        return self.cluster.supervisor.component(self.cluster.component(role)).tags["address"]

    def install(self) -> None:
        """Accounts and rights, then the processes.

        Raises:
            UsageError: There is no curl, which smoke tests run.
        """
        self.cluster.client().apply_all(self._objects())
        self.resume()

    def resume(self) -> None:
        """The processes."""
        if shutil.which("curl") is None:
            raise UsageError(
                "there is no curl on PATH",
                why="smoke tests of releases are curl commands, which Flagger's load tester runs",
                fix="install curl",
            )
        self._start()

    @retry_on_taken_port
    def _start(self) -> None:
        self.cluster.supervisor.stop([self.cluster.component(role) for role in (ROLE, LOAD_TESTER, NAMES)], grace=0)
        binaries = self.cluster.toolchain.ensure(self.tools)
        port, tests, names = free_ports(3)
        account = self.cluster.service_account_kubeconfig
        arguments = [
            f"-kubeconfig={account(NAMESPACE, 'flagger')}",
            f"-mesh-provider={PROVIDER}",
            f"-metrics-server={Prometheus(self.cluster).url}",
            f"-port={port}",
            f"-control-loop-interval={SYNC_SECONDS}s",
            f"-include-label-prefix={','.join(TAGS)}",
            "-log-level=info",
            f"-cluster-name={self.cluster.name}",
        ]
        resolver = ["-m", "testbed.servicenames", f"--kubeconfig={account(NAMESPACE, 'service-names')}"]
        self._start_one(NAMES, [sys.executable, *resolver, f"--listen={LOOPBACK}:{names}"], names)
        path = f"{Path(binaries['hey']).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        self._start_one(
            LOAD_TESTER, [str(binaries["flagger-loadtester"]), f"-port={tests}", "-log-level=info"], tests, PATH=path
        )
        self._start_one(ROLE, [str(binaries["flagger"]), *arguments], port)
        scrape(self.cluster, ROLE, ROLE, f"{LOOPBACK}:{port}")
        self.wait_serving(ROLE, self.cluster.supervisor.require_started)
        self.wait_serving(LOAD_TESTER, self.cluster.supervisor.require_started)

    def _start_one(self, role: str, argv: list[str], port: int, **environment: str) -> None:
        self.cluster.supervisor.start(
            ProcessSpec(
                name=self.cluster.component(role),
                argv=argv,
                env={"GOMAXPROCS": "2", "MALLOC_ARENA_MAX": "2", "PYTHONDONTWRITEBYTECODE": "1", **environment},
                tags={"cluster": self.cluster.name, "role": role, "address": f"{LOOPBACK}:{port}"},
                restart_limit=100,
            )
        )

    def wait_serving(self, role: str, require: Callable[..., None]) -> None:
        """Wait until a process (again) answers at /healthz."""
        name, log = self.cluster.component(role), self.cluster.log(role)
        host, _, port = self.address(role).partition(":")

        def probe() -> tuple[bool, object]:
            require(name)
            return page(host, int(port), "/healthz")[0] == 200, "not healthy"

        wait_until(
            f"{name} says ok at /healthz",
            probe,
            timeout=READY_TIMEOUT,
            retry_on=NOT_SERVED,
            evidence=lambda: log_tail(log),
        )

    def ready(self) -> None:
        """Wait until Flagger reconciles: a Canary that is suspended gets its status all the same."""
        for role in (ROLE, LOAD_TESTER):
            self.wait_serving(role, self.cluster.supervisor.require_running)
        kube, log = self.cluster.client(), self.cluster.log(ROLE)
        kube.delete("Canary", PROBE, namespace=NAMESPACE, api_version=API)  # what a run before us left
        kube.apply(_probe())

        def reconciled() -> tuple[bool, object]:
            self.cluster.supervisor.require_running(self.cluster.component(ROLE))
            found = kube.get("Canary", PROBE, namespace=NAMESPACE, api_version=API) or {}
            return bool((found.get("status") or {}).get("conditions")), found.get("status")

        wait_until(
            f"Flagger of cluster {self.cluster.name} reconciles",
            reconciled,
            timeout=READY_TIMEOUT,
            retry_on=NOT_YET,
            evidence=lambda: log_tail(log),
        )
        kube.delete("Canary", PROBE, namespace=NAMESPACE, api_version=API)

    def uninstall(self) -> None:
        """Stop the processes; Canaries that a finalizer holds are Flagger's to end, and are ended before."""
        kube = self.cluster.client()
        for found in kube.list("Canary", api_version=API):
            metadata = found["metadata"]
            kube.delete("Canary", metadata["name"], namespace=metadata["namespace"], api_version=API)

        def gone() -> tuple[bool, object]:
            left = [found["metadata"]["name"] for found in kube.list("Canary", api_version=API)]
            return not left, f"left: {left}"

        wait_until("every Canary is gone", gone, timeout=READY_TIMEOUT, retry_on=NOT_YET)
        scrape(self.cluster, ROLE, ROLE, None)
        self.cluster.supervisor.stop([self.cluster.component(role) for role in (ROLE, LOAD_TESTER, NAMES)])
        for found in reversed(self._objects()):
            metadata = found["metadata"]
            where = metadata.get("namespace")
            kube.delete(found["kind"], metadata["name"], namespace=where, api_version=found["apiVersion"])

    def fidelity(self) -> Fidelity:
        """What is real here."""
        return Fidelity(
            part=f"flagger {self.version}",
            real="the controller and its load tester, from upstream's source; upstream's rights; smoke tests and "
            "warm-ups run through its webhooks; its queries are answered by the real Prometheus",
            simulated="processes instead of pods, built to listen on loopback (one line of source is patched); one "
            f"replica without leader election, as the chart has it; looks for new Canaries every {SYNC_SECONDS} s; the "
            "load tester reaches Services through a forward proxy, there is no cluster DNS",
        )


def _probe() -> Manifest:
    """A Canary that Flagger notices and leaves alone."""
    return {
        "apiVersion": API,
        "kind": "Canary",
        "metadata": {"name": PROBE, "namespace": NAMESPACE},
        "spec": {
            "suspend": True,
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": PROBE},
            "service": {"port": 80},
            "analysis": {"interval": "60m", "threshold": 1, "stepWeight": 10, "maxWeight": 50},
        },
    }
