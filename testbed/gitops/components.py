"""Argo CD's programs as processes: their arguments, environment and health pages.

Upstream's pods read their parameters from two ConfigMaps; so do these, by the same names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from testbed.cluster.pki import write_private
from testbed.ports import LOOPBACK

NAMESPACE = "argocd"
REDIS = "argocd-redis"
REPO_SERVER = "argocd-repo-server"
CONTROLLER = "argocd-application-controller"
APPLICATION_SETS = "argocd-applicationset-controller"
SERVER = "argocd-server"
ROLES = (REDIS, REPO_SERVER, CONTROLLER, APPLICATION_SETS, SERVER)
PORTS = 10

PARAMETERS = {
    "timeout.reconciliation": "ARGOCD_RECONCILIATION_TIMEOUT",
    "timeout.reconciliation.jitter": "ARGOCD_RECONCILIATION_JITTER",
    "server.insecure": "ARGOCD_SERVER_INSECURE",
    "controller.self.heal.backoff.timeout.seconds": "ARGOCD_APPLICATION_CONTROLLER_SELF_HEAL_BACKOFF_TIMEOUT_SECONDS",
    "controller.sync.wave.delay.seconds": "ARGOCD_SYNC_WAVE_DELAY",
}
"""Keys of the ConfigMaps that are used here, and the variables that upstream's pods get them as."""


class Program(BaseModel):
    """How one program is started."""

    model_config = ConfigDict(frozen=True)

    role: str
    argv: list[str]
    env: dict[str, str]
    health: str
    """Port and path of its health page; empty for one without."""
    address: str = ""
    """Where it serves others."""


class Layout(BaseModel):
    """What the programs are told.

    `parameters` is the data of argocd-cm and argocd-cmd-params-cm; `kubeconfigs` are by service account.
    """

    model_config = ConfigDict(frozen=True)

    folder: Path
    binary: Path
    redis: Path
    helpers: list[Path]
    """Folders of helm and kustomize, which the repo-server calls."""
    kubeconfigs: dict[str, Path]
    parameters: dict[str, str]
    redis_password: str
    ports: list[int]


def variables(parameters: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of parameters."""
    return {variable: parameters[key] for key, variable in PARAMETERS.items() if key in parameters}


def programs(layout: Layout) -> list[Program]:
    """All of Argo CD, in an order in which nobody waits for the next one. Writes what they read from files."""
    folder, ports = layout.folder, list(layout.ports)
    redis, repo, repo_metrics, controller, sets, sets_probe, sets_webhook, server, server_metrics, _ = ports
    home = folder / "home"
    temporary = folder / "tmp"
    for made in (home, temporary):
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
    configuration = f"bind {LOOPBACK}\nport {redis}\nrequirepass {layout.redis_password}\nsave ''\nappendonly no\n"
    redis_conf = write_private(folder / "redis.conf", configuration.encode())
    redis_at, repo_at = f"{LOOPBACK}:{redis}", f"{LOOPBACK}:{repo}"
    common = {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "REDIS_PASSWORD": layout.redis_password,
        "ARGOCD_GPG_ENABLED": "false",
        "GOGC": "50",
        **variables(layout.parameters),
    }

    def argo(role: str, *arguments: str, health: str, address: str = "", **env: str) -> Program:
        kubeconfig = layout.kubeconfigs.get(role)
        reach = {"KUBECONFIG": str(kubeconfig)} if kubeconfig else {}
        where = [f"--namespace={NAMESPACE}"] if kubeconfig else []
        whole = common | reach | {"ARGOCD_BINARY_NAME": role} | env
        argv = [str(layout.binary), *where, *arguments]
        return Program(role=role, argv=argv, env=whole, health=health, address=address)

    path = os.pathsep.join([*map(str, layout.helpers), os.environ.get("PATH", os.defpath)])
    return [
        Program(role=REDIS, argv=[str(layout.redis), str(redis_conf)], env={}, health="", address=redis_at),
        argo(
            REPO_SERVER,
            f"--address={LOOPBACK}",
            f"--port={repo}",
            f"--metrics-address={LOOPBACK}",
            f"--metrics-port={repo_metrics}",
            f"--redis={redis_at}",
            health=f"{repo_metrics}/healthz",
            address=repo_at,
            PATH=path,
            # Below its working folder: a socket's path may have 107 bytes at most.
            ARGOCD_ASK_PASS_SOCK="ask-pass.sock",  # noqa: S106 - a path
        ),
        argo(
            CONTROLLER,
            f"--metrics-port={controller}",
            f"--repo-server={repo_at}",
            f"--redis={redis_at}",
            health=f"{controller}/healthz",
            # `https://kubernetes.default.svc` is the cluster of the kubeconfig: as Argo CD's own developers run it.
            ARGOCD_FAKE_IN_CLUSTER="true",
        ),
        argo(
            APPLICATION_SETS,
            f"--metrics-addr={LOOPBACK}:{sets}",
            f"--probe-addr={LOOPBACK}:{sets_probe}",
            f"--webhook-addr={LOOPBACK}:{sets_webhook}",
            f"--argocd-repo-server={repo_at}",
            health=f"{sets}/metrics",
            address=f"{LOOPBACK}:{sets_webhook}",
        ),
        argo(
            SERVER,
            f"--address={LOOPBACK}",
            f"--port={server}",
            f"--metrics-address={LOOPBACK}",
            f"--metrics-port={server_metrics}",
            f"--repo-server={repo_at}",
            f"--redis={redis_at}",
            health=f"{server}/healthz",
            address=f"{LOOPBACK}:{server}",
            ARGOCD_FAKE_IN_CLUSTER="true",
        ),
    ]
