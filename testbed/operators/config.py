"""What the platform team sets for the operators: a YAML file, mounted from a ConfigMap on a real cluster."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from testbed.errors import UsageError
from testbed.operators.drift import quantity


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Quota(_Strict):
    """What a tenant may use; also the form of the platform's limits for it."""

    cpu: str = "4"
    memory: str = "16Gi"
    storage: str = "100Gi"
    pods: int = Field(default=50, ge=0)
    persistentVolumeClaims: int = Field(default=20, ge=0)
    loadBalancers: int = Field(default=0, ge=0)

    @field_validator("cpu", "memory", "storage", mode="before")
    @classmethod
    def _is_quantity(cls, value: object) -> str:
        quantity(value)
        return str(value)


class Container(_Strict):
    """Resources of one container."""

    cpu: str
    memory: str

    @field_validator("cpu", "memory", mode="before")
    @classmethod
    def _is_quantity(cls, value: object) -> str:
        quantity(value)
        return str(value)


class TenantConfig(_Strict):
    """Settings of the TenantWorkspace operator."""

    defaultQuota: Quota = Quota()
    maximumQuota: Quota = Quota(
        cpu="32", memory="128Gi", storage="1Ti", pods=200, persistentVolumeClaims=100, loadBalancers=2
    )
    containerDefault: Container = Container(cpu="500m", memory="512Mi")
    containerRequest: Container = Container(cpu="100m", memory="128Mi")
    containerMaximum: Container = Container(cpu="4", memory="16Gi")
    nameLength: int = Field(default=40, ge=1, le=63)
    reservedNames: list[str] = ["default", "argocd", "flagger-system", "gatekeeper-system", "platform-operators"]
    reservedPrefixes: list[str] = ["kube-", "openshift-", "platform-"]
    ingressNamespaces: list[str] = ["gateway-system", "monitoring"]
    """Namespaces of the platform that may reach every tenant: the gateway, and Prometheus."""
    projectNamespace: str = "argocd"
    clusterServer: str = "https://kubernetes.default.svc"
    """The cluster's name in AppProjects."""
    podSecurity: str = "baseline"
    directoryMaxAge: float = Field(default=24 * 3600, gt=0)
    """Seconds for which the teams directory is believed without a new sync."""


class CanaryConfig(_Strict):
    """Settings of the CanaryPolicy operator."""

    minimumWindow: int = Field(default=600, ge=10)
    """Seconds from the first traffic shift to the promotion, at least."""
    minimumInterval: int = Field(default=30, ge=10)
    """Seconds between two looks at the metrics, at least: a scrape must fit in."""
    stepWeight: int = Field(default=10, ge=1, le=50)
    """Percent of traffic a step, at most."""
    warmUp: int = Field(default=60, ge=0)
    """Seconds of synthetic requests before the first real one, at least."""
    failedChecks: int = Field(default=2, ge=1)
    """Checks that may fail before the full rollback."""
    progressDeadline: int = Field(default=360, ge=10)
    """Seconds for which a release's pods may be unavailable before the full rollback. No metric tells of pods that
    crash: they have none. With Flagger's 600 the case study's 8 minutes to recover would be over."""
    minimumSuccessRate: float = Field(default=95.0, ge=0, le=100)
    maximumLatency: int = Field(default=5000, ge=1)
    """Milliseconds: no SLO may allow more at the 99th percentile."""
    provider: str = "gatewayapi:v1"
    gateway: str = "gateway-system/public"
    """Namespace and name of the Gateway that services get without naming one."""
    systemNamespace: str = "flagger-system"
    """Where the metric templates and the load tester are; teams have no access there."""
    loadTester: str = "http://flagger-loadtester.flagger-system/"
    prometheus: str = "http://prometheus-operated.monitoring:9090"
    proxy: str = ""
    """An HTTP forward proxy by which the load tester reaches services, where it has no cluster DNS."""


def load[T: BaseModel](kind: type[T], path: Path | None) -> T:
    """Read a configuration; the defaults without a path.

    Raises:
        UsageError: The file is missing, or something in it is wrong; names the field.
    """
    if path is None:
        return kind()
    try:
        return kind.model_validate(yaml.safe_load(path.read_text()) or {})
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise UsageError(
            f"{path} is no configuration of the operator", why=str(error), fix="correct the file"
        ) from None
