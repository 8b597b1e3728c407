"""The embedded backend: a real control plane as supervised processes on loopback, without Docker or root."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import yaml

from testbed.cluster import flags
from testbed.cluster.base import Cluster, Fidelity, pem_data
from testbed.cluster.client import NOT_YET, KubeClient
from testbed.cluster.node_readiness import LEASE_API, NODE_LEASES, ready_nodes
from testbed.cluster.pki import service_account_keys, write_private
from testbed.cluster.simulator import USER, rights, stages
from testbed.ports import LOOPBACK, free_ports, require_free, retry_on_taken_port
from testbed.supervisor import ProcessSpec, log_tail
from testbed.wait import wait_until

TOOLS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
CONTROL_PLANE = ("etcd", "kube-apiserver")
NODE_SIDE = ("kube-controller-manager", "kube-scheduler", "kwok")
API_SERVER_TIMEOUT = 60.0
NODES_TIMEOUT = 60.0
FRUGAL = {"kube-apiserver": "30"}
"""Per component, percent of live heap that Go lets pile up as garbage (its default is 100, `FRUGAL_DEFAULT` here):
several clusters share one machine, and the API server's heap is the largest."""
FRUGAL_DEFAULT = "50"


class EmbeddedCluster(Cluster):
    """etcd, kube-apiserver, controller-manager, scheduler and KWOK for one cluster."""

    capabilities = frozenset(
        {"control-plane-faults", "simulated-nodes", "snapshots", "loopback-webhooks", "operator-processes"}
    )
    tools = TOOLS

    _pki: flags.Pki
    _restored = False

    @property
    def _data(self) -> Path:
        return self.folder / "etcd"

    def check(self) -> None:
        """Refuse a configured port that is busy."""
        if self.spec.api_port is not None:
            require_free(self.spec.api_port, f"the API server of cluster {self.name}")

    def start_control_plane(self) -> None:
        """etcd and the API server, until /readyz says ok.

        Raises:
            UsageError: The configured port is busy.
            ComponentDied: A component ended while it was awaited.
            WaitTimeout: The API server was not ready in time.
        """
        self._pki = flags.Pki(self.folder / "pki", self.authority, service_account_keys(self.folder / "pki"))
        self._start_etcd_and_api_server()

    @retry_on_taken_port
    def _start_etcd_and_api_server(self) -> None:
        self._stop(CONTROL_PLANE)
        self.check()
        client_port, peer_port, chosen = free_ports(3)
        port = self.spec.api_port or chosen
        self._start("etcd", flags.etcd(self._pki, self._data, client_port, peer_port))
        self._start("kube-apiserver", flags.kube_apiserver(self._pki, port, client_port))
        self._write_entry(f"https://{LOOPBACK}:{port}", self.authority.pem)
        # kubeadm's super-admin.conf: the harness must get in whatever a scenario does to RBAC.
        self.user_kubeconfig("admin", "kubernetes-admin", groups=["system:masters"], path=self.kubeconfig)
        self._wait_ready(self.supervisor.require_started, API_SERVER_TIMEOUT)

    def wait_api_server(self, timeout: float = API_SERVER_TIMEOUT) -> None:
        """Wait until the API server is ready (again)."""
        self._wait_ready(self.supervisor.require_running, timeout)

    def _wait_ready(self, require: Callable[..., None], timeout: float) -> None:
        kube = self.client()

        def probe() -> tuple[bool, object]:
            require(*map(self.component, CONTROL_PLANE))
            return kube.ready(), "/readyz did not say ok"

        log = self.log("kube-apiserver")
        wait_until(
            f"the API server of cluster {self.name} is ready",
            probe,
            timeout=timeout,
            retry_on=NOT_YET,
            evidence=lambda: f"end of {log}:\n{log_tail(log)}",
        )

    @retry_on_taken_port
    def start_nodes(self) -> None:
        """Controller-manager, scheduler, KWOK and the nodes, until every node is Ready and reports so itself."""
        self._stop(NODE_SIDE)
        kube = self.client()
        if self._restored:
            # Their holder of old is no more, and the simulator would wait for them to expire.
            for lease in kube.list("Lease", namespace=NODE_LEASES, api_version=LEASE_API):
                kube.delete("Lease", lease["metadata"]["name"], namespace=NODE_LEASES, api_version=LEASE_API)
        began = datetime.now(UTC)
        self._start_node_side()
        self._wait_nodes(kube, self._register_nodes(kube), began)

    def _start_node_side(self) -> None:
        manager_port, scheduler_port, kwok_port = free_ports(3)
        manager = self.user_kubeconfig("kube-controller-manager", "system:kube-controller-manager")
        scheduler = self.user_kubeconfig("kube-scheduler", "system:kube-scheduler")
        simulator = self.user_kubeconfig("kwok", USER)
        self._start("kube-controller-manager", flags.kube_controller_manager(self._pki, manager_port, manager))
        self._start(
            "kube-scheduler",
            flags.kube_scheduler(self._pki, scheduler_port, scheduler, self._scheduler_config(scheduler)),
        )
        config = write_private(self.folder / "kwok.yaml", stages(self.toolchain.assets("kwok")).encode())
        self._start("kwok", flags.kwok(self._pki, kwok_port, simulator, config))

    def _register_nodes(self, kube: KubeClient) -> set[str]:
        """The wanted nodes' names; from a snapshot they are there already, and the simulator's rights."""
        nodes = [node for index, group in enumerate(self.spec.node_groups) for node in group.nodes(index)]
        if not self._restored:
            kube.apply_all(rights())
            for node in nodes:
                kube.apply(node)
                kube.update_status(node)
        return {node["metadata"]["name"] for node in nodes}

    def _wait_nodes(self, kube: KubeClient, wanted: set[str], began: datetime) -> None:
        def probe() -> tuple[bool, object]:
            self.supervisor.require_started(*map(self.component, NODE_SIDE))
            missing = sorted(wanted - ready_nodes(kube, began))
            account = kube.get("ServiceAccount", "default", namespace="default") is not None
            return not missing and account, f"not Ready: {missing}, default service account: {account}"

        wait_until(f"the nodes of cluster {self.name} are Ready", probe, timeout=NODES_TIMEOUT, retry_on=NOT_YET)

    def _stop(self, roles: tuple[str, ...]) -> None:
        """Stop what an attempt before this one left."""
        self.supervisor.stop([self.component(role) for role in roles], grace=0)

    def _start(self, role: str, flags: flags.Flags) -> None:
        binary = self.toolchain.ensure([role])[role]
        argv = [str(binary), *(f"--{name}={value}" for name, value in flags.items())]
        tags = {"cluster": self.name, "role": role}
        env = {"GOGC": FRUGAL.get(role, FRUGAL_DEFAULT)}
        self.supervisor.start(ProcessSpec(name=self.component(role), argv=argv, env=env, tags=tags))

    def _scheduler_config(self, kubeconfig: Path) -> Path:
        configuration = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "leaderElection": {"leaderElect": False},
            "clientConnection": {"kubeconfig": str(kubeconfig), "qps": 500, "burst": 1000},
        }
        return write_private(self.folder / "scheduler.yaml", yaml.safe_dump(configuration).encode())

    def user_kubeconfig(
        self, name: str, user: str, *, groups: list[str] | None = None, path: Path | None = None
    ) -> Path:
        """A kubeconfig (0600) with a client certificate for a user; returns its path."""
        certificate, key = self.authority.issue(f"user-{name}", user, groups=groups or [])
        identity = {
            "client-certificate-data": pem_data(certificate.read_bytes()),
            "client-key-data": pem_data(key.read_bytes()),
        }
        return self._write_kubeconfig(name, identity, path)

    def save(self, folder: Path) -> None:
        """Copy what the cluster stores to `folder`, which holds no key and no certificate.

        etcd stands still meanwhile, so that the copy is what a `kill -9` in that moment would leave: etcd's log
        brings that to a consistent state.
        """
        name = self.component("etcd")
        self.supervisor.signal(name, signal.SIGSTOP)
        try:
            shutil.copytree(self._data, folder, ignore=shutil.ignore_patterns("*.tmp"))
        finally:
            self.supervisor.signal(name, signal.SIGCONT)

    def restore(self, folder: Path) -> None:
        """Start from what `save` stored. Call before `start_control_plane`. Certificates and keys are new ones."""
        self._data.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder, self._data)
        self._data.chmod(0o700)
        self._restored = True

    def fidelity(self) -> list[Fidelity]:
        """What is real here."""
        return [
            Fidelity(
                part=f"cluster {self.name}",
                real="etcd, kube-apiserver, kube-controller-manager, kube-scheduler; TLS, RBAC, admission, aggregation",
                simulated="nodes and containers (KWOK), no kubelet, no pod network, etcd without fsync",
            )
        ]
