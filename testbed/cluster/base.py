"""What every cluster backend offers."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from testbed.cluster.client import KubeClient
from testbed.cluster.nodes import NodeGroup


class ClusterSpec(BaseModel):
    """What a cluster should be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(default="dev", pattern=r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$")
    node_groups: list[NodeGroup] = Field(default_factory=lambda: [NodeGroup()])


class Fidelity(BaseModel):
    """What is real and what is simulated in one part of the platform."""

    part: str
    real: str
    simulated: str = ""


class Cluster(Protocol):
    """A running Kubernetes cluster."""

    name: str
    kubeconfig: Path
    """A kubeconfig of an administrator (0600)."""

    def client(self) -> KubeClient:
        """A client as administrator. One per thread."""

    def fidelity(self) -> list[Fidelity]:
        """What is real here."""
