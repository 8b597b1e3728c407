"""The embedded backend: a real control plane as supervised processes on loopback, without Docker or root."""

from __future__ import annotations

import base64
import json
import signal
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from testbed.cluster.base import ClusterSpec, Fidelity
from testbed.cluster.client import NOT_YET, KubeClient
from testbed.cluster.pki import Authority, service_account_keys, write_private
from testbed.supervisor import ComponentStatus, ProcessSpec, Supervisor, log_tail
from testbed.toolchain import Toolchain
from testbed.wait import wait_until

TOOLS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
LOOPBACK = "127.0.0.1"
SERVICE_CIDR = "10.96.0.0/12"
POD_CIDR = "10.128.0.0/9"
CUSTOM_STATUS = "kwok.x-k8s.io/status=custom"
"""Pods with this annotation are not KWOK's: their status is set by whoever runs them."""
API_SERVER_TIMEOUT = 60.0
NODES_TIMEOUT = 60.0


def free_ports(count: int) -> list[int]:
    """Loopback ports that were free a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


class EmbeddedCluster:
    """etcd, kube-apiserver, controller-manager, scheduler and KWOK for one cluster.

    Args:
        spec: Name and node groups.
        supervisor: Owns the processes; `spec.name` prefixes their names.
        toolchain: Where the binaries come from. They must be ready (`Toolchain.ensure`).
    """

    def __init__(self, spec: ClusterSpec, supervisor: Supervisor, toolchain: Toolchain) -> None:
        self.spec = spec
        self.name = spec.name
        self.supervisor = supervisor
        self.toolchain = toolchain
        self.folder = supervisor.folder / "clusters" / spec.name
        self.kubeconfig = self.folder / "kubeconfig"

    def client(self) -> KubeClient:
        """A client as administrator. One per thread."""
        return KubeClient(self.kubeconfig)

    def component(self, role: str) -> str:
        """The name of a component of this cluster: `component("kube-apiserver")`."""
        return f"{self.name}-{role}"

    def start(self) -> None:
        """Bring the cluster up; returns when the API server is ready and every node is Ready.

        Raises:
            ComponentDied: A component ended while it was awaited.
            WaitTimeout: The API server or a node was not ready in time.
        """
        self.start_control_plane()
        self.start_nodes()

    def start_control_plane(self) -> None:
        """etcd and the API server, until /readyz says ok."""
        binaries = self.toolchain.ensure(TOOLS)
        etcd_client, etcd_peer, self._api_port, cm, scheduler, self._kwok_port = free_ports(6)
        self.url = f"https://{LOOPBACK}:{self._api_port}"
        pki = self.folder / "pki"
        self.authority = Authority("kubernetes", pki)
        etcd_authority = Authority("etcd-ca", pki / "etcd")
        front_proxy = Authority("front-proxy-ca", pki / "front-proxy")
        etcd_files = etcd_authority.issue("server", "etcd", hosts=[LOOPBACK, "localhost"])
        self._start(
            "etcd",
            binaries["etcd"],
            {
                "name": "etcd",
                "data-dir": self.folder / "etcd",
                "listen-client-urls": f"https://{LOOPBACK}:{etcd_client}",
                "advertise-client-urls": f"https://{LOOPBACK}:{etcd_client}",
                "listen-peer-urls": f"https://{LOOPBACK}:{etcd_peer}",
                "initial-advertise-peer-urls": f"https://{LOOPBACK}:{etcd_peer}",
                "initial-cluster": f"etcd=https://{LOOPBACK}:{etcd_peer}",
                "client-cert-auth": "true",
                "peer-client-cert-auth": "true",
                "cert-file": etcd_files[0],
                "key-file": etcd_files[1],
                "trusted-ca-file": etcd_authority.certificate,
                "peer-cert-file": etcd_files[0],
                "peer-key-file": etcd_files[1],
                "peer-trusted-ca-file": etcd_authority.certificate,
                # A test platform survives the death of any process, not of the machine (as envtest chooses, too).
                "unsafe-no-fsync": "true",
            },
        )
        etcd_identity = etcd_authority.issue("apiserver-client", "kube-apiserver-etcd-client")
        serving = self.authority.issue(
            "apiserver",
            "kube-apiserver",
            hosts=[
                LOOPBACK,
                "localhost",
                "10.96.0.1",
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
            ],
        )
        kubelet_identity = self.authority.issue(
            "apiserver-kubelet-client", "kube-apiserver-kubelet-client", groups=["kubeadm:cluster-admins"]
        )
        proxy_identity = front_proxy.issue("client", "front-proxy-client")
        sa_private, sa_public = service_account_keys(pki)
        self._start(
            "kube-apiserver",
            binaries["kube-apiserver"],
            {
                "bind-address": LOOPBACK,
                "secure-port": self._api_port,
                # Kubernetes refuses loopback addresses in Endpoints, and nothing here needs the kubernetes Service's.
                "advertise-address": LOOPBACK,
                "endpoint-reconciler-type": "none",
                "etcd-servers": f"https://{LOOPBACK}:{etcd_client}",
                "etcd-cafile": etcd_authority.certificate,
                "etcd-certfile": etcd_identity[0],
                "etcd-keyfile": etcd_identity[1],
                "authorization-mode": "Node,RBAC",
                "enable-admission-plugins": "NodeRestriction",
                "enable-bootstrap-token-auth": "true",
                "allow-privileged": "true",
                "client-ca-file": self.authority.certificate,
                "tls-cert-file": serving[0],
                "tls-private-key-file": serving[1],
                "kubelet-client-certificate": kubelet_identity[0],
                "kubelet-client-key": kubelet_identity[1],
                "kubelet-preferred-address-types": "InternalIP,Hostname",
                "proxy-client-cert-file": proxy_identity[0],
                "proxy-client-key-file": proxy_identity[1],
                "requestheader-client-ca-file": front_proxy.certificate,
                "requestheader-allowed-names": "front-proxy-client",
                "requestheader-username-headers": "X-Remote-User",
                "requestheader-group-headers": "X-Remote-Group",
                "requestheader-extra-headers-prefix": "X-Remote-Extra-",
                "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
                "service-account-key-file": sa_public,
                "service-account-signing-key-file": sa_private,
                "service-cluster-ip-range": SERVICE_CIDR,
            },
        )
        self._write_admin_kubeconfig()
        identity = ("system:kube-controller-manager", "system:kube-scheduler")
        cm_config, scheduler_config = (self.user_kubeconfig(user.removeprefix("system:"), user) for user in identity)
        cm_serving = self.authority.issue("controller-manager-serving", "kube-controller-manager", hosts=[LOOPBACK])
        scheduler_serving = self.authority.issue("scheduler-serving", "kube-scheduler", hosts=[LOOPBACK])
        self._late = [
            (
                "kube-controller-manager",
                binaries["kube-controller-manager"],
                {
                    "kubeconfig": cm_config,
                    "authentication-kubeconfig": cm_config,
                    "authorization-kubeconfig": cm_config,
                    "bind-address": LOOPBACK,
                    "secure-port": cm,
                    "tls-cert-file": cm_serving[0],
                    "tls-private-key-file": cm_serving[1],
                    "client-ca-file": self.authority.certificate,
                    "requestheader-client-ca-file": front_proxy.certificate,
                    "root-ca-file": self.authority.certificate,
                    "cluster-signing-cert-file": self.authority.certificate,
                    "cluster-signing-key-file": self.authority.key,
                    "service-account-private-key-file": sa_private,
                    "use-service-account-credentials": "true",
                    "controllers": "*,bootstrapsigner,tokencleaner",
                    "allocate-node-cidrs": "true",
                    "cluster-cidr": POD_CIDR,
                    "service-cluster-ip-range": SERVICE_CIDR,
                    "node-cidr-mask-size": "24",
                    # One replica: an election would only add its lease time to every restart.
                    "leader-elect": "false",
                    "kube-api-qps": "500",
                    "kube-api-burst": "1000",
                },
            ),
            (
                "kube-scheduler",
                binaries["kube-scheduler"],
                {
                    "config": self._scheduler_config(scheduler_config),
                    "authentication-kubeconfig": scheduler_config,
                    "authorization-kubeconfig": scheduler_config,
                    "bind-address": LOOPBACK,
                    "secure-port": scheduler,
                    "tls-cert-file": scheduler_serving[0],
                    "tls-private-key-file": scheduler_serving[1],
                    "client-ca-file": self.authority.certificate,
                    "requestheader-client-ca-file": front_proxy.certificate,
                },
            ),
        ]
        self._kwok_binary = binaries["kwok"]
        self.wait_api_server()

    def wait_api_server(self, timeout: float = API_SERVER_TIMEOUT) -> None:
        """Wait until the API server is ready (again)."""
        kube = self.client()

        def probe() -> tuple[bool, object]:
            self.supervisor.require_running(self.component("etcd"), self.component("kube-apiserver"))
            return kube.ready(), "/readyz did not say ok"

        log = self.supervisor.folder / "logs" / f"{self.component('kube-apiserver')}.log"
        wait_until(
            f"the API server of cluster {self.name} is ready",
            probe,
            timeout=timeout,
            retry_on=NOT_YET,
            evidence=lambda: f"end of {log}:\n{log_tail(log)}",
        )

    def start_nodes(self) -> None:
        """Controller-manager, scheduler, KWOK and the nodes, until every node is Ready."""
        for role, binary, flags in self._late:
            self._start(role, binary, flags)
        kube = self.client()
        self._start_kwok(kube)
        wanted: set[str] = set()
        for index, group in enumerate(self.spec.node_groups):
            for node in group.nodes(index):
                kube.apply(node)
                kube.update_status(node)
                wanted.add(node["metadata"]["name"])

        def probe() -> tuple[bool, object]:
            self.supervisor.require_running(
                *(self.component(role) for role, _, _ in self._late), self.component("kwok")
            )
            ready = {
                node["metadata"]["name"]
                for node in kube.list("Node")
                if any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))
                and not any(t["key"] == "node.kubernetes.io/not-ready" for t in node["spec"].get("taints") or [])
            }
            service_account = kube.get("ServiceAccount", "default", namespace="default")
            missing = sorted(wanted - ready)
            return (
                not missing and service_account is not None,
                f"nodes not ready: {missing}, account: {service_account is not None}",
            )

        wait_until(f"the nodes of cluster {self.name} are Ready", probe, timeout=NODES_TIMEOUT, retry_on=NOT_YET)

    def _start_kwok(self, kube: KubeClient) -> None:
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "testbed:node-simulator"},
            "rules": [
                {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch", "update"]},
                {"apiGroups": [""], "resources": ["nodes/status", "pods/status"], "verbs": ["patch", "update"]},
                {
                    "apiGroups": [""],
                    "resources": ["pods"],
                    "verbs": ["get", "list", "watch", "patch", "update", "delete"],
                },
                {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]},
                {
                    "apiGroups": ["coordination.k8s.io"],
                    "resources": ["leases"],
                    "verbs": ["create", "get", "list", "watch", "patch", "update", "delete"],
                },
            ],
        }
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "testbed:node-simulator"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "testbed:node-simulator",
            },
            "subjects": [{"kind": "User", "name": "testbed:node-simulator", "apiGroup": "rbac.authorization.k8s.io"}],
        }
        kube.apply(role)
        kube.apply(binding)
        stages = self.toolchain.assets("kwok") / "kustomize" / "stage"
        configuration = "---\n".join(path.read_text() for path in sorted(stages.rglob("*.yaml")))
        kwok_serving = self.authority.issue("kwok-serving", "kwok", hosts=[LOOPBACK])
        self._start(
            "kwok",
            self._kwok_binary,
            {
                "kubeconfig": self.user_kubeconfig("kwok", "testbed:node-simulator"),
                "config": write_private(self.folder / "kwok.yaml", configuration.encode()),
                "cidr": "10.128.0.0/24",
                "node-ip": LOOPBACK,
                "node-port": self._kwok_port,
                "node-lease-duration-seconds": "40",
                "manage-all-nodes": "false",
                "manage-nodes-with-annotation-selector": "kwok.x-k8s.io/node=fake",
                "server-address": f"{LOOPBACK}:{self._kwok_port}",
                "tls-cert-file": kwok_serving[0],
                "tls-private-key-file": kwok_serving[1],
            },
        )

    def _start(self, role: str, binary: Path, flags: Mapping[str, object]) -> ComponentStatus:
        argv = [str(binary), *(f"--{name}={value}" for name, value in flags.items())]
        return self.supervisor.start(
            ProcessSpec(name=self.component(role), argv=argv, tags={"cluster": self.name, "role": role})
        )

    def _scheduler_config(self, kubeconfig: Path) -> Path:
        configuration = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "leaderElection": {"leaderElect": False},
            "clientConnection": {"kubeconfig": str(kubeconfig), "qps": 500, "burst": 1000},
        }
        return write_private(self.folder / "scheduler.yaml", yaml.safe_dump(configuration).encode())

    def _write_admin_kubeconfig(self) -> None:
        # kubeadm's super-admin.conf: the harness must get in whatever a scenario does to RBAC.
        self.user_kubeconfig("admin", "kubernetes-admin", groups=["system:masters"], path=self.kubeconfig)

    def user_kubeconfig(
        self, name: str, user: str, *, groups: list[str] | None = None, path: Path | None = None
    ) -> Path:
        """A kubeconfig (0600) with a client certificate for a user; returns its path."""
        certificate, key = self.authority.issue(f"user-{name}", user, groups=groups or [])
        identity = {
            "client-certificate-data": base64.b64encode(certificate.read_bytes()).decode(),
            "client-key-data": base64.b64encode(key.read_bytes()).decode(),
        }
        return self._kubeconfig(name, identity, path)

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """A kubeconfig (0600) with a token for a service account: a component run here has its own RBAC."""
        return self._kubeconfig(f"{namespace}-{name}", {"token": self.client().token(namespace, name)}, None)

    def _kubeconfig(self, name: str, identity: dict[str, str], path: Path | None) -> Path:
        cluster = {
            "server": self.url,
            "certificate-authority-data": base64.b64encode(self.authority.pem).decode(),
        }
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": self.name, "cluster": cluster}],
            "users": [{"name": name, "user": identity}],
            "contexts": [{"name": self.name, "context": {"cluster": self.name, "user": name}}],
            "current-context": self.name,
        }
        return write_private(path or self.folder / f"{name}.kubeconfig", json.dumps(content, indent=1).encode())

    def kill(self, role: str) -> ComponentStatus:
        """SIGKILL a component, as the OOM killer does; the supervisor restarts it. Returns its status before."""
        return self.supervisor.signal(self.component(role), signal.SIGKILL)

    def fidelity(self) -> list[Fidelity]:
        """What is real here."""
        return [
            Fidelity(
                part=f"cluster {self.name}",
                real="etcd, kube-apiserver, kube-controller-manager, kube-scheduler; TLS, RBAC, admission, aggregation",
                simulated="nodes and containers (KWOK), no kubelet, no pod network, etcd without fsync",
            )
        ]


def start_all(clusters: list[EmbeddedCluster]) -> None:
    """Start clusters side by side; raises the first error."""
    with ThreadPoolExecutor(max_workers=max(1, len(clusters))) as pool:
        for started in [pool.submit(cluster.start) for cluster in clusters]:
            started.result()
