"""The Docker engine of this machine, as the backend kind needs it."""

from __future__ import annotations

import os
import shutil
import subprocess

from testbed.errors import UsageError

ANSWERS_WITHIN = 30.0
"""Seconds for the engine's first answer; a busy one takes some."""
_PREFIXES = ("DOCKER_", "KIND_EXPERIMENTAL_")


def require_engine() -> None:
    """Refuse a machine on which no container can be started.

    Raises:
        UsageError: There is no `docker`, or its engine does not answer; says which and why.
    """
    docker = shutil.which("docker")
    if docker is None:
        raise UsageError(
            "the backend kind cannot run here: there is no Docker",
            why="the command `docker` is not on PATH",
            fix="install Docker, or use the backend embedded, which needs none",
        )
    argv = [docker, "version", "--format", "{{.Server.Version}}"]
    try:
        answer = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=ANSWERS_WITHIN)
        problem = answer.stderr.strip() if answer.returncode else ""
    except subprocess.TimeoutExpired:
        problem = f"`docker version` did not answer within {ANSWERS_WITHIN:g} s"
    if problem:
        raise UsageError(
            "the backend kind cannot run here: no Docker engine answers",
            why=problem[-400:],
            fix="start Docker (and be in its group, or set DOCKER_HOST), or use the backend embedded",
        )


def engine_environment() -> dict[str, str]:
    """The variables that say which engine is meant; the supervisor's components see no others of the user's shell."""
    return {name: value for name, value in os.environ.items() if name.startswith(_PREFIXES)}


def gateway(network: str) -> str:
    """This machine's IPv4 address on a network of the engine; empty where there is none."""
    template = "{{range .IPAM.Config}}{{println .Gateway}}{{end}}"
    argv = ["docker", "network", "inspect", network, "--format", template]
    answer = subprocess.run(argv, capture_output=True, text=True, check=False)
    return next((line for line in answer.stdout.split() if "." in line), "")
