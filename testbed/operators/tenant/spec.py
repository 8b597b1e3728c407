"""The TenantWorkspace resource."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testbed.operators.api import Body, Resource
from testbed.operators.conditions import Problem

TENANT = Resource("platform.testbed.dev/v1alpha1", "TenantWorkspace", "tenantworkspaces", namespaced=False)
FINALIZER = "platform.testbed.dev/tenant-workspace"


class TenantQuota(BaseModel):
    """What differs from the platform's default quota."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    cpu: int | str | None = None
    memory: int | str | None = None
    storage: int | str | None = None
    pods: int | None = None
    persistentVolumeClaims: int | None = None
    loadBalancers: int | None = None


class TenantSpec(BaseModel):
    """What a team asks for. The schema of the CRD is stricter; this is what the code relies on."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    team: str = Field(min_length=1)
    environment: Literal["dev", "staging", "production", "sandbox"]
    repositories: list[str] = Field(min_length=1)
    quota: TenantQuota = TenantQuota()


def spec_of(body: Body) -> Body:
    """The specification as it is; empty where it is no object, as one from before the schema may be."""
    spec = body.get("spec")
    return spec if isinstance(spec, dict) else {}


def parse(spec: Any) -> TenantSpec:
    """The specification.

    Raises:
        Problem: Something is missing or of the wrong type; names the field.
    """
    try:
        return TenantSpec.model_validate(spec)
    except ValidationError as error:
        said = "; ".join(
            f"spec.{'.'.join(str(part) for part in entry['loc'])}: {entry['msg']}" for entry in error.errors()[:5]
        )
        raise Problem("InvalidSpec", said, retry=False) from None
