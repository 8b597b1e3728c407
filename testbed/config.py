"""Configuration: what a team's platform is, in `[tool.testbed]` of pyproject.toml or in a file of its own."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testbed.addons import ADDONS, addon_classes
from testbed.aws.distribution import Distribution
from testbed.cluster import (
    CAPABILITIES,
    Cluster,
    ClusterSpec,
    EmbeddedCluster,
    ExistingCluster,
    ExistingSpec,
    KindCluster,
    KindSpec,
)
from testbed.errors import UsageError

Backend = Literal["embedded", "kind", "existing"]
BACKENDS: dict[str, type[Cluster]] = {
    "embedded": EmbeddedCluster,
    "kind": KindCluster,
    "existing": ExistingCluster,
}


class PlatformSpec(BaseModel):
    """What a platform should be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: Backend = "embedded"
    existing: ExistingSpec = Field(default_factory=ExistingSpec)
    kind: KindSpec = Field(default_factory=KindSpec)
    clusters: list[ClusterSpec] = Field(default_factory=lambda: [ClusterSpec()], min_length=1)
    addons: list[str] = Field(default=["gatekeeper"])
    snapshots: bool = True
    """Start from a snapshot of the installed platform where there is one, and make one where there is none."""

    infra_cloud: Distribution = Field(default_factory=Distribution)
    """What runs the infrastructure code."""

    def tools(self) -> list[str]:
        """The binaries that the clusters and the add-ons need.

        Raises:
            UsageError: An add-on is unknown or cannot run on the backend, or two clusters have one name.
        """
        for addon in addon_classes(self.addons):
            if lacking := addon.capabilities - BACKENDS[self.backend].capabilities:
                raise UsageError(
                    f"the add-on {addon.name} cannot run on the backend {self.backend}",
                    why=f"the backend lacks {', '.join(sorted(lacking))}",
                    fix="leave the add-on out, or use the backend embedded",
                )
        names = [cluster.name for cluster in self.clusters]
        if len(set(names)) != len(names):
            raise UsageError("two clusters have the same name", why=", ".join(names), fix="give each its own name")
        named = dict.fromkeys(name for cluster in self.clusters for name in self.addons_of(cluster))
        addons = [tool for addon in addon_classes([*named]) for tool in addon.tools]
        return list(dict.fromkeys([*BACKENDS[self.backend].tools, *addons]))

    def require_machine(self) -> None:
        """Refuse a machine that cannot have the backend's clusters; raises `UsageError`."""
        BACKENDS[self.backend].require_machine()

    def addons_of(self, cluster: ClusterSpec) -> list[str]:
        """The names of a cluster's add-ons."""
        return self.addons if cluster.addons is None else cluster.addons

    def lacks(self, needs: set[str]) -> set[str]:
        """The capabilities among `needs`, and of the add-ons among them, that the backend does not have."""
        of_addons = [addon.capabilities for addon in addon_classes(sorted(needs & ADDONS.keys()))]
        return (needs & CAPABILITIES.keys()).union(*of_addons) - BACKENDS[self.backend].capabilities


def load(path: Path | None = None, **overrides: Any) -> PlatformSpec:
    """The configured platform.

    Args:
        path: A TOML file; else `$TESTBED_CONFIG`, else the table `[tool.testbed]` of `pyproject.toml` in this folder,
            else everything has its default.
        overrides: Fields that the command line gives, and `node_image` for that of the backend kind; None means not
            given.

    Raises:
        UsageError: The file is missing or malformed, or a value is wrong; the message names the field.
    """
    chosen = path or (Path(os.environ["TESTBED_CONFIG"]) if os.environ.get("TESTBED_CONFIG") else None)
    where, table = _read(chosen)
    given = {name: value for name, value in overrides.items() if value is not None}
    if (node_image := given.pop("node_image", None)) is not None:
        given["kind"] = {**table.get("kind", {}), "image": node_image}
    try:
        spec = PlatformSpec.model_validate({**table, **given})
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise UsageError(
            "the platform cannot be as asked for",
            why="; ".join(problems),
            fix=f"correct {where if not given else f'{where}, or the options that you gave'}; "
            f"fields: {', '.join(PlatformSpec.model_fields)}",
        ) from None
    spec.tools()
    return spec


def _read(path: Path | None) -> tuple[str, dict[str, Any]]:
    file = path or Path("pyproject.toml")
    if path is None and not file.is_file():
        return "the configuration", {}
    try:
        content = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"the configuration {file} cannot be read", why=str(error), fix="correct the file") from None
    if file.name == "pyproject.toml":
        content = content.get("tool", {}).get("testbed", {})
        return f"[tool.testbed] in {file}", content
    return str(file), content
