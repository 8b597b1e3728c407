"""KWOK nodes that look like EKS managed node groups."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from testbed.workloads.labels import NODE_ANNOTATION

INSTANCE_TYPES: dict[str, tuple[int, int, int]] = {
    # vCPU, memory in GiB, pods (from the ENI limits of the VPC CNI)
    "m6i.large": (2, 8, 29),
    "m6i.xlarge": (4, 16, 58),
    "m6i.2xlarge": (8, 32, 58),
    "m6i.4xlarge": (16, 64, 234),
    "c6i.xlarge": (4, 8, 58),
    "c6i.2xlarge": (8, 16, 58),
    "r6i.xlarge": (4, 32, 58),
    "r6i.2xlarge": (8, 64, 58),
}


class NodeGroup(BaseModel):
    """A group of equal nodes, spread over zones in turn."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "general"
    count: int = Field(default=3, ge=0, le=500)
    instance_type: Literal[
        "m6i.large",
        "m6i.xlarge",
        "m6i.2xlarge",
        "m6i.4xlarge",
        "c6i.xlarge",
        "c6i.2xlarge",
        "r6i.xlarge",
        "r6i.2xlarge",
    ] = "m6i.2xlarge"
    region: str = "eu-west-1"
    zones: list[str] = Field(default=["eu-west-1a", "eu-west-1b", "eu-west-1c"], min_length=1)
    capacity_type: Literal["ON_DEMAND", "SPOT"] = "ON_DEMAND"
    labels: dict[str, str] = Field(default_factory=dict)

    def nodes(self, group_index: int) -> list[dict[str, Any]]:
        """The Node objects, named as EKS names them."""
        return [self._node(group_index, index) for index in range(self.count)]

    def _node(self, group_index: int, index: int) -> dict[str, Any]:
        cpu, memory, pods = INSTANCE_TYPES[self.instance_type]
        address = f"10.{group_index % 256}.{index // 250}.{index % 250 + 4}"
        name = f"ip-{address.replace('.', '-')}.{self.region}.compute.internal"
        zone = self.zones[index % len(self.zones)]
        resources = {"cpu": str(cpu), "memory": f"{memory}Gi", "pods": str(pods), "ephemeral-storage": "80Gi"}
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "annotations": {NODE_ANNOTATION: "fake"},
                "labels": {
                    "kubernetes.io/hostname": name,
                    "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": "amd64",
                    "node.kubernetes.io/instance-type": self.instance_type,
                    "topology.kubernetes.io/region": self.region,
                    "topology.kubernetes.io/zone": zone,
                    "eks.amazonaws.com/nodegroup": self.name,
                    "eks.amazonaws.com/capacityType": self.capacity_type,
                    **self.labels,
                },
            },
            "spec": {"providerID": f"aws:///{zone}/i-{group_index:08x}{index:09x}"},
            "status": {
                "capacity": resources,
                "allocatable": resources,
                "addresses": [
                    {"type": "InternalIP", "address": address},
                    {"type": "Hostname", "address": name},
                ],
            },
        }
