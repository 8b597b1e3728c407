"""The existing backend: a cluster that somebody else runs, by a kubeconfig. Only what is certainly a test cluster."""

from __future__ import annotations

import ipaddress
import os
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field

from testbed.cluster.base import Cluster, ClusterSpec, Fidelity
from testbed.cluster.client import NOT_YET
from testbed.cluster.pki import write_private
from testbed.errors import TestbedError, UsageError
from testbed.supervisor import Supervisor
from testbed.toolchain import Toolchain
from testbed.wait import wait_until


class ExistingSpec(BaseModel):
    """Which clusters may be used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kubeconfig: Path | None = None
    """`$KUBECONFIG` or the user's default one without it."""
    allow_contexts: list[str] = Field(default_factory=list)
    """Contexts that may be used although their API server is not on loopback."""


class ExistingCluster(Cluster):
    """A running cluster; add-ons run on this machine against it and are taken away at the end."""

    capabilities = frozenset({"operator-processes"})
    tools = ("kubectl",)

    def __init__(
        self, spec: ClusterSpec, supervisor: Supervisor, toolchain: Toolchain, existing: ExistingSpec | None = None
    ) -> None:
        super().__init__(spec, supervisor, toolchain)
        self._existing = existing or ExistingSpec()

    def check(self) -> None:
        """Refuse a kubeconfig that cannot be read, and a cluster that may not be a test cluster.

        Raises:
            UsageError: See above; nothing was asked of the cluster yet.
        """
        self._admit(self._flattened())

    def start_control_plane(self) -> None:
        """Take the administrator's identity over into the run's folder, and wait until the API server answers."""
        found = self._flattened()
        self._admit(found)
        write_private(self.kubeconfig, yaml.safe_dump(found).encode())
        self.wait_api_server()

    def start_nodes(self) -> None:
        """Nothing to start: the nodes are the cluster's own. There must be one that is Ready."""
        ready = [
            node["metadata"]["name"]
            for node in self.client().list("Node")
            if any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))
        ]
        if not ready:
            raise TestbedError(
                f"cluster {self.name} has no node that is Ready",
                why="scenarios create pods, and nothing would run them",
                fix="look at `kubectl get nodes`",
            )

    def wait_api_server(self, timeout: float = 20.0) -> None:
        """Wait until the API server is ready."""
        kube = self.client()
        wait_until(
            f"the API server of cluster {self.name} ({self.url}) is ready",
            lambda: (kube.ready(), "/readyz did not say ok"),
            timeout=timeout,
            retry_on=NOT_YET,
        )

    def _flattened(self) -> dict[str, Any]:
        """The kubeconfig reduced to the wanted context, its files inlined, by kubectl itself."""
        kubectl = self.toolchain.ensure(["kubectl"])["kubectl"]
        argv = [str(kubectl), "config", "view", "--raw", "--flatten", "--minify"]
        path = self._existing.kubeconfig
        if path is not None:
            if not path.is_file():
                raise UsageError(f"there is no kubeconfig {path}", fix="give the path of one, or unset it")
            argv.append(f"--kubeconfig={path}")
        if self.spec.context is not None:
            argv.append(f"--context={self.spec.context}")
        answer = subprocess.run(argv, capture_output=True, text=True, check=False, env=os.environ)
        if answer.returncode:
            raise UsageError(
                f"the kubeconfig of cluster {self.name} cannot be used",
                why=answer.stderr.strip()[-400:],
                fix="name a kubeconfig (--kubeconfig) and one of its contexts (`kubectl config get-contexts`)",
            )
        content: dict[str, Any] = yaml.safe_load(answer.stdout)
        if not content.get("clusters") or not content.get("current-context"):
            raise UsageError(
                f"the kubeconfig of cluster {self.name} names no cluster",
                why=f"looked at {path or os.environ.get('KUBECONFIG') or 'the default kubeconfig'}",
                fix="name a kubeconfig (--kubeconfig) and one of its contexts (`kubectl config get-contexts`)",
            )
        return content

    def _admit(self, content: dict[str, Any]) -> None:
        context, server = str(content["current-context"]), str(content["clusters"][0]["cluster"].get("server", ""))
        if not on_loopback(server) and context not in self._existing.allow_contexts:
            raise UsageError(
                f"cluster {context!r} is not on loopback",
                why=f"its API server is {server}; scenarios break things on purpose",
                fix=f"if it is a test cluster, allow it by name: --allow-context {context}",
            )

    def fidelity(self) -> list[Fidelity]:
        """What is real here."""
        return [Fidelity(part=f"cluster {self.name}", real=f"the existing cluster at {self.url}, as it is")]


def on_loopback(url: str) -> bool:
    """Whether a URL's host can only be this machine. Names other than localhost are not looked up."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
