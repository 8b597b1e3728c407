"""Helm and Kustomize on this machine, as Argo CD's repo-server calls them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from testbed.cluster import Manifest
from testbed.errors import TestbedError
from testbed.supervisor import clean_environment
from testbed.toolchain import Toolchain


def rendered(
    toolchain: Toolchain,
    chart: Path,
    values: dict[str, Any] | None = None,
    files: tuple[Path, ...] = (),
    name: str = "x",
) -> list[Manifest]:
    """The objects of a chart.

    Raises:
        TestbedError: The chart does not render; says what helm said.
    """
    flags = [f"--values={file}" for file in files]
    if values is not None:
        flags += [f"--set-json={key}={json.dumps(value)}" for key, value in values.items()]
    return _objects(_run(toolchain, "helm", "template", name, str(chart), *flags))


def built(toolchain: Toolchain, overlay: Path) -> list[Manifest]:
    """The objects of a Kustomize overlay; raises as `rendered`."""
    return _objects(_run(toolchain, "kustomize", "build", str(overlay)))


def package(toolchain: Toolchain, chart: Path, repository: Path) -> None:
    """Publish a chart in a folder that is served as a Helm repository."""
    _run(toolchain, "helm", "package", str(chart), "--destination", str(repository))
    _run(toolchain, "helm", "repo", "index", str(repository))


def _objects(text: str) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(text) if document]


def _run(toolchain: Toolchain, tool: str, *arguments: str) -> str:
    binary = toolchain.ensure([tool])[tool]
    done = subprocess.run(
        [str(binary), *arguments], env=clean_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise TestbedError(f"{tool} {arguments[0]} failed", why=done.stderr.strip(), fix=f"look at {arguments[-1]}")
    return done.stdout
