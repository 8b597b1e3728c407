"""The neighbours that are timed beside us, on the same binaries: controller-runtime's envtest and KWOK's kwokctl."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from pathlib import Path

from testbed.errors import TestbedError
from testbed.supervisor import Supervisor, clean_environment
from testbed.toolchain import Toolchain

TIMEOUT = 120.0


def envtest_seconds(toolchain: Toolchain, folder: Path) -> float:
    """Start etcd and kube-apiserver by envtest; returns the seconds until its Start returned."""
    binaries = toolchain.ensure(["etcd", "kube-apiserver", "kubectl", "envtest-start"])
    assets = folder / "envtest-assets"
    assets.mkdir(parents=True, exist_ok=True)
    for name in ("etcd", "kube-apiserver", "kubectl"):
        (assets / name).unlink(missing_ok=True)
        (assets / name).symlink_to(binaries[name])
    environment = clean_environment() | {"KUBEBUILDER_ASSETS": str(assets), "TMPDIR": str(folder)}
    answer = subprocess.run(
        [binaries["envtest-start"]], capture_output=True, text=True, env=environment, timeout=TIMEOUT, check=False
    )
    if answer.returncode:
        raise TestbedError("envtest did not start", why=answer.stderr[-600:], fix="run `testbed tools build` again")
    return float(json.loads(answer.stdout.splitlines()[-1])["ready_seconds"])


def kwokctl_seconds(toolchain: Toolchain, folder: Path) -> float:
    """Start a whole cluster (with scheduler, controller-manager and KWOK) by kwokctl; returns its wall time."""
    names = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
    binaries = toolchain.ensure([*names, "kwok", "kwokctl"])
    cluster = f"bench-{uuid.uuid4().hex[:8]}"
    home = folder / "kwokctl"
    home.mkdir(parents=True, exist_ok=True)
    environment = clean_environment() | {"KWOK_WORKDIR": str(home), "HOME": str(home)}
    kwokctl, kubeconfig = str(binaries["kwokctl"]), f"--kubeconfig={home / 'kubeconfig'}"
    delete = [kwokctl, "delete", "cluster", f"--name={cluster}", kubeconfig]
    # Its processes are daemons: somebody must stop them if we are killed.
    keeper = Supervisor.launch(folder / "kwokctl-keeper")
    try:
        keeper.lease()
        keeper.at_end(["env", *(f"{name}={value}" for name, value in environment.items()), *delete])
        began = time.monotonic()
        answer = subprocess.run(
            [
                kwokctl,
                "create",
                "cluster",
                f"--name={cluster}",
                kubeconfig,
                "--runtime=binary",
                "--wait=60s",
                f"--kwok-controller-binary={binaries['kwok']}",
                *(f"--{name}-binary={binaries[name]}" for name in names),
            ],
            capture_output=True,
            text=True,
            env=os.environ | environment,
            timeout=TIMEOUT,
            check=False,
        )
        seconds = time.monotonic() - began
        if answer.returncode:
            raise TestbedError("kwokctl did not start a cluster", why=answer.stderr[-600:], fix="see its output above")
        return seconds
    finally:
        keeper.shutdown(grace=0)
