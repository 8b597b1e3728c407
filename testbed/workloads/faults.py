"""Faults that a scenario gives to a release, and feature flags that it flips while the release runs.

A fault is part of the release: `Faults(...).env()` goes into the environment of the container in the Deployment's pod
template, beside the new image tag. The service itself then behaves so (toolchain/modules/podinfo/faults.go): its own
metrics show it, and its answers carry the release's tag in the header `X-Testbed-Version`.

A fault with a `flag` acts only while that feature flag is on. Flags belong to a namespace and are flipped by
`flip(kube, namespace, flag, on)`; every pod of the namespace sees it within about half a second, without a new release.

    from testbed.workloads.releases import podinfo, roll_out

    deployment = podinfo("checkout", tag="6.9.3", faults=Faults(error_rate=0.3, flag="new-pricing"))
    roll_out(kube, "shop", deployment)
    flip(kube, "shop", "new-pricing", True)
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from testbed.cluster import KubeClient, Manifest
from testbed.workloads.labels import FLAGS

VARIABLE = "TESTBED_FAULTS"
FLAGS_OBJECT = "feature-flags"
"""The ConfigMap that `flip` writes; no workload refers to it, so no progressive delivery takes it for a change."""


class Faults(BaseModel):
    """How a release misbehaves. Everything is off by default; faults add up.

    The health, readiness and metrics pages are spared: a release that is slow or wrong still says that it lives.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    latency_ms: float = Field(default=0, ge=0)
    """Milliseconds that are added to every request."""
    latency_jitter_ms: float = Field(default=0, ge=0)
    """At most so many more, evenly distributed."""
    latency_ms_per_100_rps: float = Field(default=0, ge=0)
    """Milliseconds for every 100 requests/s that this pod served in the second before: slow under load only."""
    pool_size: int = Field(default=0, ge=0)
    """Requests queue for so many connections (of a database, say); 0 is no pool."""
    pool_hold_ms: float = Field(default=0, ge=0)
    """Milliseconds for which a request holds its connection: beyond pool_size / pool_hold_ms the queue grows."""
    error_rate: float = Field(default=0, ge=0, le=1)
    """Share of requests that fail."""
    error_status: int = Field(default=500, ge=400, le=599)
    """What they fail with."""
    cold_start_seconds: float = Field(default=0, ge=0)
    """So long after its start, a pod is slow."""
    cold_start_latency_ms: float = Field(default=0, ge=0)
    """How slow."""
    memory_mb_per_second: float = Field(default=0, ge=0)
    """A leak; with a memory limit the pod is OOMKilled."""
    crash_after_seconds: float = Field(default=0, ge=0)
    """The process exits with code 2 so long after its start."""
    crash_after_requests: int = Field(default=0, ge=0)
    """The process exits with code 2 at this request."""
    flag: str = ""
    """The feature flag behind which all of it is; empty for always."""
    path: str = ""
    """Only requests whose path begins so; empty for all."""

    @model_validator(mode="after")
    def _pairs(self) -> Faults:
        for one, other in (("pool_size", "pool_hold_ms"), ("cold_start_seconds", "cold_start_latency_ms")):
            if bool(getattr(self, one)) != bool(getattr(self, other)):
                raise ValueError(f"{one} and {other} go together")
        return self

    def env(self) -> list[dict[str, str]]:
        """The entries for a container's `env`; empty without a fault."""
        chosen = self.model_dump_json(exclude_defaults=True)
        return [] if chosen == "{}" else [{"name": VARIABLE, "value": chosen}]


def flip(kube: KubeClient, namespace: str, flag: str, on: bool) -> None:
    """Turn a feature flag of a namespace on or off; its other flags stay as they are."""
    found = kube.get("ConfigMap", FLAGS_OBJECT, namespace=namespace, api_version="v1") or {}
    manifest: Manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": FLAGS_OBJECT, "namespace": namespace, "labels": {FLAGS: "true"}},
        "data": {**(found.get("data") or {}), flag: "true" if on else "false"},
    }
    kube.apply(manifest)
