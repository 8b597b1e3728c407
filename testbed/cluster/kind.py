"""The kind backend: a real cluster whose nodes are containers. Needs a Docker engine."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from testbed.cluster.base import Cluster, ClusterSpec, Fidelity
from testbed.cluster.client import NOT_YET
from testbed.cluster.engine import engine_environment, gateway, require_engine
from testbed.cluster.pki import write_private
from testbed.errors import TestbedError, UsageError
from testbed.ports import LOOPBACK, require_free
from testbed.supervisor import ProcessSpec, Supervisor, clean_environment, died, log_tail
from testbed.toolchain import Toolchain
from testbed.wait import wait_until

CONFIG_API = "kind.x-k8s.io/v1alpha4"
REAPER = Path(__file__).with_name("reaper.py")
CREATE_TIMEOUT = 900.0
"""Seconds for `kind create cluster`, with the pull of a node image of about 400 MB."""
LOAD_TIMEOUT = 300.0
NODES_TIMEOUT = 240.0
"""Seconds until the nodes are Ready; their pod network starts last."""


class KindSpec(BaseModel):
    """How clusters of the backend kind are made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str | None = None
    """The node image, such as one in your own registry; the default of this version of kind without it."""
    workers: int = Field(default=0, ge=0, le=20)
    """Nodes beside the control plane's; without any, that one runs the pods."""
    config: Path | None = None
    """A configuration of kind to start from (mounts, patches for kubeadm and containerd, nodes)."""
    operators_base: str | None = None
    """The image with Python >= 3.12 that the operators' image is built from; the Containerfile's without it."""
    operators_image: str | None = None
    """An image of the operators that the engine has; built from this source tree without it."""


class KindCluster(Cluster):
    """A cluster by `kind create cluster`. It is deleted with its run, also when that is killed."""

    capabilities = frozenset({"images"})
    tools = ("kind", "kubectl")

    def __init__(
        self, spec: ClusterSpec, supervisor: Supervisor, toolchain: Toolchain, kind: KindSpec | None = None
    ) -> None:
        super().__init__(spec, supervisor, toolchain)
        self.kind = kind or KindSpec()

    @property
    def engine_name(self) -> str:
        """The name that kind knows the cluster by: of this run alone, and the same for everybody who attaches to it."""
        run = hashlib.sha256(str(self.supervisor.folder.absolute()).encode()).hexdigest()[:8]
        return f"testbed-{run}-{self.name}"

    @classmethod
    def require_machine(cls) -> None:
        """Refuse a machine without a Docker engine."""
        require_engine()

    def check(self) -> None:
        """Refuse a configuration that kind could not use, a busy port, and a machine without an engine."""
        self._configuration()
        if self.spec.api_port is not None:
            require_free(self.spec.api_port, f"the API server of cluster {self.name}")
        require_engine()

    def start_control_plane(self) -> None:
        """Create the cluster; returns when its API server is ready.

        Raises:
            ComponentDied: kind failed; the message has the end of what it said.
            WaitTimeout: It took too long, or the API server was not ready in time.
        """
        self._delete_later()
        # What a machine that lost its power left of a platform in the same folder.
        self._task("kind-delete", self._delete_command(), CREATE_TIMEOUT)
        config = write_private(self.folder / "kind.yaml", yaml.safe_dump(self._configuration()).encode())
        argv = ["create", "cluster", f"--name={self.engine_name}", f"--config={config}", "--wait=0s"]
        argv += [f"--kubeconfig={self.kubeconfig}"]
        argv += [f"--image={self.kind.image}"] if self.kind.image else []
        self._task("kind-create", [self._binary, *argv], CREATE_TIMEOUT)
        self.kubeconfig.chmod(0o600)
        self.wait_api_server()

    def start_nodes(self) -> None:
        """Wait until every node is Ready."""
        kube = self.client()

        def probe() -> tuple[bool, object]:
            conditions = {
                node["metadata"]["name"]: next(
                    (c for c in node["status"].get("conditions", []) if c["type"] == "Ready"), {"status": "unknown"}
                )
                for node in kube.list("Node")
            }
            waiting = {name: c.get("message") for name, c in conditions.items() if c["status"] != "True"}
            account = kube.get("ServiceAccount", "default", namespace="default") is not None
            return bool(conditions) and not waiting and account, f"not Ready: {waiting or 'no node'}"

        wait_until(f"the nodes of cluster {self.name} are Ready", probe, timeout=NODES_TIMEOUT, retry_on=NOT_YET)

    def wait_api_server(self, timeout: float = 60.0) -> None:
        """Wait until the API server is ready."""
        kube = self.client()
        wait_until(
            f"the API server of cluster {self.name} ({self.url}) is ready",
            lambda: (kube.ready(), "/readyz did not say ok"),
            timeout=timeout,
            retry_on=NOT_YET,
        )

    def load_image(self, image: str) -> None:
        """Load an image of the engine into every node.

        Raises:
            ComponentDied: kind failed; the message has the end of what it said.
        """
        argv = [self._binary, "load", "docker-image", f"--name={self.engine_name}", image]
        self._task(f"kind-load-{hashlib.sha256(image.encode()).hexdigest()[:8]}", argv, LOAD_TIMEOUT)

    def build_image(self, containerfile: Path, context: Path, image: str, arguments: dict[str, str]) -> None:
        """Build an image with the engine.

        Raises:
            ComponentDied: The build failed; the message has the end of what it said.
        """
        argv = ["docker", "build", f"--file={containerfile}", f"--tag={image}"]
        argv += [f"--build-arg={name}={value}" for name, value in arguments.items()]
        self._task("image-build", [*argv, str(context)], CREATE_TIMEOUT)

    @cached_property
    def webhook_host(self) -> str:
        """The engine's bridge: reachable from the nodes and from this machine."""
        found = gateway(os.environ.get("KIND_EXPERIMENTAL_DOCKER_NETWORK", "kind"))
        if not found:
            raise TestbedError(
                "the network of kind has no IPv4 gateway on this machine",
                why="the API server in its container could not call webhooks that run here",
                fix="look at `docker network inspect kind`; an engine in a virtual machine will not do",
            )
        return found

    @property
    def _binary(self) -> str:
        return str(self.toolchain.ensure(["kind"])["kind"])

    def _delete_command(self) -> list[str]:
        # An own kubeconfig: the user's is not ours to tidy up.
        name, kubeconfig = f"--name={self.engine_name}", f"--kubeconfig={os.devnull}"
        return [self._binary, "delete", "cluster", name, kubeconfig]

    def _delete_later(self) -> None:
        """Have the cluster deleted when the supervisor ends, and when it is killed before it could."""
        environment = [f"{name}={value}" for name, value in engine_environment().items()]
        command = ["/usr/bin/env", *environment, *self._delete_command()]
        self.supervisor.at_end(command)
        with subprocess.Popen(
            [sys.executable, "-I", "-S", str(REAPER), str(self.supervisor.folder), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env=clean_environment(),
        ) as reaper:
            # It outlives us by design: nobody waits for it. Without this, Popen would.
            reaper.returncode = 0
            if reaper.stdout is None or reaper.stdout.readline() != b"watching\n":
                raise TestbedError(
                    f"nothing would delete cluster {self.name} after a crash",
                    why="the reaper did not start",
                    fix=f"see {self.supervisor.folder / 'logs'}",
                )

    def _task(self, role: str, argv: Sequence[str], timeout: float) -> None:
        """Run a command to its end as a component: it has a log, and dies with the run."""
        name = self.component(role)
        tags = {"cluster": self.name, "role": role}
        self.supervisor.stop([name], grace=0)
        self.supervisor.start(
            ProcessSpec(name=name, argv=list(argv), env=engine_environment(), restart=False, tags=tags)
        )

        def ended() -> tuple[bool, object]:
            status = self.supervisor.component(name)
            if status.state == "exited" and status.exit:
                raise died(status)
            return status.state == "exited", f"it is {status.state}"

        log = self.log(role)
        wait_until(f"{name} has ended", ended, timeout=timeout, every=0.2, evidence=lambda: log_tail(log))

    def _configuration(self) -> dict[str, Any]:
        """What kind is told: the user's configuration, with the API server on loopback."""
        path = self.kind.config
        found: Any = {}
        if path is not None:
            try:
                found = yaml.safe_load(path.read_text())
            except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
                raise UsageError(
                    f"the configuration {path} of kind cannot be read", why=str(error), fix="correct the file"
                ) from None
            if not isinstance(found, dict) or (found.get("kind"), found.get("apiVersion")) != ("Cluster", CONFIG_API):
                raise UsageError(
                    f"{path} is no configuration of kind",
                    why=f"it must be one YAML document of kind Cluster and apiVersion {CONFIG_API}",
                    fix="see kind's documentation, or leave `config` out",
                )
        networking = dict(found.get("networking") or {}) | {"apiServerAddress": LOOPBACK}
        if self.spec.api_port is not None:
            networking["apiServerPort"] = self.spec.api_port
        nodes = found.get("nodes") or [{"role": "control-plane"}, *[{"role": "worker"}] * self.kind.workers]
        whole: dict[str, Any] = found | {
            "kind": "Cluster",
            "apiVersion": CONFIG_API,
            "networking": networking,
            "nodes": nodes,
        }
        return whole

    def fidelity(self) -> list[Fidelity]:
        """What is real here."""
        return [
            Fidelity(
                part=f"cluster {self.name}",
                real="a kind cluster: kubeadm, kubelet, containerd, pods as containers, pod network, kube-proxy",
                simulated="nodes are containers of one machine; no cloud controller, no load balancer",
            )
        ]
