"""The promoter's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from testbed.errors import UsageError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Environment(_Strict):
    """One environment; releases pass through them in order."""

    name: str
    approval: bool = False
    """Whether a person has to approve what comes here."""


class Check(_Strict):
    """One question of the health gate: a PromQL expression whose every value in the window must be within limits.

    `{service}` and `{environment}` are filled in, and `{range}`: a duration for `rate`.
    """

    name: str
    query: str
    minimum: float | None = None
    maximum: float | None = None

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.minimum is None and self.maximum is None:
            raise ValueError(f"the check {self.name!r} has no limit")
        return self


class Gate(_Strict):
    """How long an environment must have been well, and what that means."""

    prometheus: dict[str, str]
    """URLs by environment."""
    checks: list[Check] = Field(min_length=1)
    seconds: float = Field(default=300, gt=0)
    range_seconds: float = Field(default=60, gt=0)
    least_range_seconds: float = 4
    """A rate needs two scrapes, however much time is scaled."""
    step_seconds: float = Field(default=1, gt=0)
    """Between two looks at the window; not scaled, for scrapes are not."""


class Slack(_Strict):
    """Where approvals are asked for, and how requests from there are told from others."""

    api: str
    """URL of the Web API, with a slash at the end."""
    channel: str
    token_file: Path
    signing_secret_file: Path
    approvers: dict[str, str]
    """Names by user id."""


class Protections(_Strict):
    """What negative controls take away; a promoter in production never does."""

    signatures: bool = True
    gate: bool = True
    fast_forward: bool = True


class Settings(_Strict):
    """All of it."""

    repository: str
    """URL or path of the GitOps repository."""
    branch: str = "main"
    git_config: dict[str, str] = {}
    """Further configuration for git, such as `http.extraHeader`; never logged."""
    values: str = "services/{service}/{environment}/values.yaml"
    """The file with a service's tag in an environment."""
    tag: str = "image.tag"
    """Where in it the tag is."""
    application: str = "{service}-{environment}"
    """Name of the Argo CD Application."""
    application_namespace: str = "argocd"
    kubeconfig: Path | None = None
    """Of the cluster that Argo CD runs on."""
    environments: list[Environment] = Field(min_length=2)
    gate: Gate
    slack: Slack
    time_scale: float = Field(default=1, ge=1)
    """Waiting times are divided by it."""
    every_seconds: float = Field(default=0.5, gt=0)
    """Between two looks when nothing wakes the promoter."""
    fetch_seconds: float = Field(default=0, ge=0)
    """How old the promoter's copy of the repository may be at a look that no push brought about."""
    protections: Protections = Protections()

    @model_validator(mode="after")
    def _every_gate_has_a_prometheus(self) -> Self:
        lacking = {one.name for one in self.environments[:-1]} - self.gate.prometheus.keys()
        if lacking:
            raise ValueError(f"no Prometheus is named for {', '.join(sorted(lacking))}")
        return self

    @property
    def gate_seconds(self) -> float:
        """The gate's window in seconds of this machine."""
        return self.gate.seconds / self.time_scale

    @property
    def range(self) -> str:
        """The duration for `rate`, as PromQL."""
        return f"{max(round(self.gate.range_seconds / self.time_scale), self.gate.least_range_seconds):g}s"


def load_settings(path: Path) -> Settings:
    """Read settings from YAML.

    Raises:
        UsageError: It cannot be read, or is malformed.
    """
    try:
        return Settings.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        # Without the values: `git_config` may hold a password.
        why = (
            "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            if isinstance(error, ValidationError)
            else str(error)
        )
        raise UsageError(f"{path} is no configuration of the promoter", why=why, fix="correct the file") from None
