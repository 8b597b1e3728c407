"""What every cluster backend offers, and what they share."""

from __future__ import annotations

import base64
import json
import signal
import threading
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import BaseModel, ConfigDict, Field

from testbed.cluster.client import KubeClient
from testbed.cluster.nodes import NodeGroup
from testbed.cluster.pki import Authority, write_private
from testbed.ports import LOOPBACK
from testbed.supervisor import ComponentStatus, Supervisor
from testbed.toolchain import Toolchain


class ClusterSpec(BaseModel):
    """What a cluster should be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(default="dev", pattern=r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$")
    node_groups: list[NodeGroup] = Field(default_factory=lambda: [NodeGroup()])
    api_port: int | None = Field(default=None, ge=1024, le=65535)
    """Port of the API server on loopback; a free one without it. Embedded backend."""
    time_scale: float = Field(default=60, ge=1)
    """The platform's waiting times (of alerts, of canary analyses) are divided by this; reports say so."""
    addons: list[str] | None = None
    """Its add-ons; without it those of the platform."""
    context: str | None = None
    """Context of the kubeconfig; its current one without it. Existing backend."""


class Fidelity(BaseModel):
    """What is real and what is simulated in one part of the platform."""

    part: str
    real: str
    simulated: str = ""


class Cluster(ABC):
    """A Kubernetes cluster, on which add-ons run as processes of this machine.

    Args:
        spec: Name and node groups.
        supervisor: Owns the processes; `spec.name` prefixes their names.
        toolchain: Where the binaries come from. They must be ready (`Toolchain.ensure`).
    """

    capabilities: ClassVar[frozenset[str]]
    """What scenarios can do to it: see `CAPABILITIES`."""
    tools: ClassVar[tuple[str, ...]]
    """The binaries that the backend needs."""

    def __init__(self, spec: ClusterSpec, supervisor: Supervisor, toolchain: Toolchain) -> None:
        self.spec = spec
        self.name = spec.name
        self.supervisor = supervisor
        self.toolchain = toolchain
        self.folder = supervisor.folder / "clusters" / spec.name
        self.kubeconfig = self.folder / "kubeconfig"
        """A kubeconfig of an administrator (0600)."""
        self._entry: dict[str, Any] | None = None
        self._clients = threading.local()

    @classmethod
    def require_machine(cls) -> None:
        """Refuse a machine that cannot have such clusters, before tools are built for them; raises `UsageError`."""
        return

    @abstractmethod
    def check(self) -> None:
        """Refuse what cannot work, before anything is started; raises `UsageError`."""

    @abstractmethod
    def start_control_plane(self) -> None:
        """Returns when the API server is ready."""

    @abstractmethod
    def start_nodes(self) -> None:
        """Returns when the nodes are Ready. May run beside the installation of add-ons."""

    @abstractmethod
    def wait_api_server(self, timeout: float = 60.0) -> None:
        """Wait until the API server is ready (again)."""

    @abstractmethod
    def fidelity(self) -> list[Fidelity]:
        """What is real here."""

    @property
    def webhook_host(self) -> str:
        """The address of this machine at which the API server calls webhooks that run here."""
        return LOOPBACK

    def load_image(self, image: str) -> None:
        """Load an image of this machine's engine into every node (backends with `images`)."""
        raise NotImplementedError(f"cluster {self.name} runs no images")

    def build_image(self, containerfile: Path, context: Path, image: str, arguments: dict[str, str]) -> None:
        """Build an image with this machine's engine (backends with `images`)."""
        raise NotImplementedError(f"cluster {self.name} runs no images")

    def save(self, folder: Path) -> None:
        """Copy what the cluster stores to a new folder (backends with `snapshots`)."""
        raise NotImplementedError(f"cluster {self.name} has no snapshots")

    def restore(self, folder: Path) -> None:
        """Start from what `save` stored (backends with `snapshots`)."""
        raise NotImplementedError(f"cluster {self.name} has no snapshots")

    @cached_property
    def authority(self) -> Authority:
        """Issues the certificates that components of this cluster serve with."""
        return Authority("kubernetes", self.folder / "pki")

    def _write_entry(self, url: str, authority_pem: bytes) -> None:
        """Set how kubeconfigs reach the API server."""
        self._entry = {"server": url, "certificate-authority-data": pem_data(authority_pem)}
        self._clients = threading.local()

    def _cluster_entry(self) -> dict[str, Any]:
        """The cluster's entry of the administrator's kubeconfig."""
        if self._entry is None:  # we attached to a running cluster
            self._entry = yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]
        return dict(self._entry or {})

    @property
    def url(self) -> str:
        """The API server's URL."""
        return str(self._cluster_entry()["server"])

    def client(self) -> KubeClient:
        """A client as administrator: the same one for a thread, with its connections and what it discovered."""
        if not hasattr(self._clients, "client"):
            self._clients.client = KubeClient(self.kubeconfig)
        found: KubeClient = self._clients.client
        return found

    def component(self, role: str) -> str:
        """The name of a component of this cluster: `component("kube-apiserver")`."""
        return f"{self.name}-{role}"

    def log(self, role: str) -> Path:
        """The log of a component."""
        return self.supervisor.folder / "logs" / f"{self.component(role)}.log"

    def kill(self, role: str) -> ComponentStatus:
        """SIGKILL a component, as the OOM killer does; the supervisor restarts it. Returns its status before.

        Raises:
            TestbedError: No such component runs here.
        """
        return self.supervisor.signal(self.component(role), signal.SIGKILL)

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """A kubeconfig (0600) with a token for a service account: a component run here has its own RBAC."""
        return self._write_kubeconfig(f"{namespace}-{name}", {"token": self.client().token(namespace, name)}, None)

    def _write_kubeconfig(self, name: str, identity: dict[str, Any], path: Path | None) -> Path:
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": self.name, "cluster": self._cluster_entry()}],
            "users": [{"name": name, "user": identity}],
            "contexts": [{"name": self.name, "context": {"cluster": self.name, "user": name}}],
            "current-context": self.name,
        }
        return write_private(path or self.folder / f"{name}.kubeconfig", json.dumps(content, indent=1).encode())


CAPABILITIES = {
    "control-plane-faults": "kill and restart the cluster's own components",
    "simulated-nodes": "nodes and pods without containers, as many as wanted",
    "snapshots": "save what the cluster stores, and start from it again",
    "images": "its nodes run containers, from images that are loaded into them",
    "operator-processes": "operators run as processes of this machine, which scenarios can kill and Prometheus scrapes",
    "loopback-webhooks": "its API server reaches webhooks on this machine's loopback addresses",
}
"""What a scenario may need of a backend, and what that means."""


def pem_data(pem: bytes) -> str:
    """PEM as the base64 text that kubeconfigs and webhook configurations hold."""
    return base64.b64encode(pem).decode()
