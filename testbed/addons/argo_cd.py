"""Argo CD: the real programs on the hub, which deploy to every cluster of the platform."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from testbed.addons.base import AddOn
from testbed.addons.git_server import READER, GitServer
from testbed.cluster import Cluster, Fidelity, KubeClient, Manifest, load_manifests
from testbed.cluster.client import NOT_YET
from testbed.cluster.pki import write_private
from testbed.gitops import components
from testbed.gitops.components import NAMESPACE, REPO_SERVER, ROLES, SERVER
from testbed.gitops.push_events import Webhook
from testbed.gitops.redis import redis_server
from testbed.gitops.registration import IN_CLUSTER, cluster_secret, register
from testbed.pages import NOT_SERVED, page
from testbed.paths import manifests
from testbed.ports import LOOPBACK, free_ports, retry_on_taken_port
from testbed.supervisor import ProcessSpec, log_tail
from testbed.wait import wait_until

API = "argoproj.io/v1alpha1"
READY_TIMEOUT = 120.0
ACCOUNTS = (components.CONTROLLER, components.APPLICATION_SETS, SERVER)
"""Programs with a service account: upstream's RBAC is made for these."""
NAMESPACE_LABELS = {"cost-center": "cc-1042", "team": "platform", "environment": "sandbox"}
PROBE = "testbed-probe"


class ArgoCd(AddOn):
    """Redis, repo-server, application controller, ApplicationSet controller, API server."""

    name = "argo-cd"
    requires = ("argo-cd-crds", "git-server")
    after = ("gatekeeper",)
    tools = ("argocd", "helm", "kustomize")
    hub_only = True
    lane = "gitops"
    acts_on = ("argo-cd-crds",)

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.git = GitServer(cluster)

    def _upstream(self) -> list[Manifest]:
        """Upstream's CRDs, ConfigMaps and RBAC of the programs that run here, with the platform's settings."""
        own = {m["metadata"]["name"]: m["data"] for m in load_manifests(manifests("argo-cd"))}
        found = []
        for manifest in load_manifests(self.cluster.toolchain.assets("argocd")):
            name, kind = manifest["metadata"]["name"], manifest["kind"]
            if kind == "ConfigMap":
                if name == "argocd-notifications-cm":
                    continue
                manifest["data"] = {**(manifest.get("data") or {}), **own.get(name, {})}
            elif kind != "CustomResourceDefinition" and name not in (*ACCOUNTS, REPO_SERVER):
                continue
            if kind not in {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}:
                manifest["metadata"]["namespace"] = NAMESPACE
            for subject in manifest.get("subjects", []):  # upstream's Kustomization sets it
                subject["namespace"] = NAMESPACE
            found.append(manifest)
        return sorted(found, key=lambda manifest: manifest["kind"] != "CustomResourceDefinition")

    def install(self) -> None:
        """CRDs, namespace, settings and RBAC, then the programs."""
        kube = self.cluster.client()
        namespace = {"apiVersion": "v1", "kind": "Namespace"}
        kube.apply(namespace | {"metadata": {"name": NAMESPACE, "labels": NAMESPACE_LABELS}})
        found = self._upstream()
        kube.apply_all(found)
        crds = [m["metadata"]["name"] for m in found if m["kind"] == "CustomResourceDefinition"]
        kube.wait_crds(crds, timeout=READY_TIMEOUT)
        kube.apply(_default_project())
        self._begin(kube)

    def resume(self) -> None:
        """The programs, with secrets of their own: those of the snapshot are thrown away."""
        kube = self.cluster.client()
        for name in ("argocd-secret", "argocd-initial-admin-secret"):
            kube.delete("Secret", name, namespace=NAMESPACE, api_version="v1")
        self._begin(kube)

    def _begin(self, kube: KubeClient) -> None:
        webhook_secret = secrets.token_urlsafe(24)
        write_private(self._folder / "webhook.secret", webhook_secret.encode())
        # With the key of the sessions: without it the settings are not valid yet for programs that start before the
        # API server has made one, and the ApplicationSet controller then serves no webhook.
        keys = {"webhook.github.secret": webhook_secret, "server.secretkey": secrets.token_urlsafe(32)}
        kube.apply(_secret("argocd-secret", keys, part="argocd"))
        kube.apply(cluster_secret(IN_CLUSTER, self.cluster.name, {"tlsClientConfig": {"insecure": False}}))
        credentials = {
            "type": "git",
            "url": self.git.url,
            "username": READER,
            "password": self.git.token(READER),
            "forceHttpBasicAuth": "true",
        }
        kube.apply(_secret("git-server", credentials, kind="repo-creds"))
        self._start()
        self.announce()

    def announce(self) -> None:
        """Have the git server tell Argo CD of every push."""
        secret = (self._folder / "webhook.secret").read_text()
        addresses = (self.address(SERVER), self.address(components.APPLICATION_SETS))
        self.git.set_webhooks([Webhook(url=f"http://{at}/api/webhook", secret=secret) for at in addresses])

    @property
    def _folder(self) -> Path:
        return self.cluster.folder / self.name

    @retry_on_taken_port
    def _start(self) -> None:
        supervisor, cluster = self.cluster.supervisor, self.cluster
        supervisor.stop([cluster.component(role) for role in ROLES], grace=0)
        binaries = cluster.toolchain.ensure(self.tools)
        settings = [m["data"] for m in load_manifests(manifests("argo-cd"))]
        layout = components.Layout(
            folder=self._folder,
            binary=binaries["argocd"],
            redis=redis_server(),
            helpers=[binaries["helm"].parent, binaries["kustomize"].parent],
            kubeconfigs={role: cluster.service_account_kubeconfig(NAMESPACE, role) for role in ACCOUNTS},
            parameters={key: value for data in settings for key, value in data.items()},
            redis_password=secrets.token_urlsafe(24),
            ports=free_ports(components.PORTS),
        )
        for program in components.programs(layout):
            tags = {"cluster": cluster.name, "role": program.role, "address": program.address, "health": program.health}
            supervisor.start(
                ProcessSpec(
                    name=cluster.component(program.role),
                    argv=program.argv,
                    env=program.env,
                    cwd=layout.folder,
                    tags=tags,
                    restart_limit=100,
                )
            )
        self._wait_programs(supervisor.require_started)

    def address(self, role: str) -> str:
        """Where one of the programs serves others."""
        return self.cluster.supervisor.component(self.cluster.component(role)).tags["address"]

    def _wait_programs(self, require: Callable[..., None]) -> None:
        for role in ROLES:
            self.wait_healthy(role, require=require)

    def wait_healthy(
        self, role: str, *, timeout: float = READY_TIMEOUT, require: Callable[..., None] | None = None
    ) -> None:
        """Wait until one of the programs says on its health page that it is well."""
        name, log = self.cluster.component(role), self.cluster.log(role)
        port, _, path = self.cluster.supervisor.component(name).tags["health"].partition("/")
        check = require or self.cluster.supervisor.require_running

        def probe() -> tuple[bool, object]:
            check(name)
            if not port:
                return True, "running"
            status, text = page(LOOPBACK, int(port), f"/{path}")
            return status == 200, text[:200]

        wait_until(f"{name} is healthy", probe, timeout=timeout, retry_on=NOT_SERVED, evidence=lambda: log_tail(log))

    def wait_back(self, role: str) -> None:
        """Wait until the program says that it is well."""
        self.wait_healthy(role)

    def ready(self) -> None:
        """Wait until it syncs: an Application of a new repository brings its ConfigMap into the cluster."""
        kube = self.cluster.client()
        config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": PROBE}, "data": {"synced": "yes"}}
        self.git.remove(PROBE)
        self.git.create(PROBE).commit("Probe", {"configmap.yaml": yaml.safe_dump(config_map)})
        source = {"repoURL": self.git.repository_url(PROBE), "path": ".", "targetRevision": "main"}
        spec = {
            "project": "default",
            "source": source,
            "destination": {"server": IN_CLUSTER, "namespace": "default"},
            "syncPolicy": {"automated": {}},
        }
        metadata = {"name": PROBE, "namespace": NAMESPACE}
        kube.apply({"apiVersion": API, "kind": "Application", "metadata": metadata, "spec": spec})

        def probe() -> tuple[bool, object]:
            self.cluster.supervisor.require_running(*(self.cluster.component(role) for role in ROLES))
            if kube.get("ConfigMap", PROBE, namespace="default", api_version="v1") is not None:
                return True, "synced"
            found = kube.get("Application", PROBE, namespace=NAMESPACE, api_version=API) or {}
            return False, found.get("status")

        log = self.cluster.log(components.CONTROLLER)
        try:
            wait_until(
                f"Argo CD on cluster {self.cluster.name} syncs",
                probe,
                timeout=READY_TIMEOUT,
                retry_on=NOT_YET,
                evidence=lambda: log_tail(log),
            )
        finally:
            kube.delete("Application", PROBE, namespace=NAMESPACE, api_version=API)
            kube.delete("ConfigMap", PROBE, namespace="default", api_version="v1")
            self.git.remove(PROBE)

    def join(self, clusters: Iterable[Cluster]) -> None:
        """Register the platform's other clusters, each under its name, as `argocd cluster add` does."""
        kube = self.cluster.client()
        for other in clusters:
            kube.apply(register(other))

    def admin_password(self) -> str:
        """The password of `admin`, which Argo CD made itself at its first start."""
        found = self.cluster.client().get(
            "Secret", "argocd-initial-admin-secret", namespace=NAMESPACE, api_version="v1"
        )
        return _text(found, "password")

    def uninstall(self) -> None:
        """What it deployed stays, as when one removes Argo CD itself; its own objects and programs go."""
        kube = self.cluster.client()
        self.cluster.supervisor.stop([self.cluster.component(role) for role in ROLES])
        for kind in ("ApplicationSet", "Application"):
            for found in kube.list(kind, api_version=API):
                kube.merge(found, {"metadata": {"finalizers": None}})
                kube.delete(kind, found["metadata"]["name"], namespace=NAMESPACE, api_version=API)
        kube.delete("AppProject", "default", namespace=NAMESPACE, api_version=API)
        for manifest in reversed(self._upstream()):
            metadata = manifest["metadata"]
            kube.delete(
                manifest["kind"],
                metadata["name"],
                namespace=metadata.get("namespace"),
                api_version=manifest["apiVersion"],
            )
        for secret in kube.list("Secret", namespace=NAMESPACE, api_version="v1"):
            kube.delete("Secret", secret["metadata"]["name"], namespace=NAMESPACE, api_version="v1")

    def fidelity(self) -> Fidelity:
        """What is real here."""
        return Fidelity(
            part=f"argo-cd {self.version}",
            real="repo-server, application controller, ApplicationSet controller, API server with its login, Redis, "
            "helm, kustomize; upstream's RBAC, one service account each",
            simulated="processes instead of pods; compares every 30 s (120 by default), 1 s between sync waves (2), no "
            "back-off of self-heal, waits for the health of child Applications; no web page, Dex or notifications; the "
            "controller's metrics listen on loopback by a patch",
        )


def _default_project() -> Manifest:
    """The project that Argo CD would make itself at its first start; scenarios need it before that."""
    spec = {
        "sourceRepos": ["*"],
        "destinations": [{"namespace": "*", "server": "*"}],
        "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
    }
    metadata = {"name": "default", "namespace": NAMESPACE}
    return {"apiVersion": API, "kind": "AppProject", "metadata": metadata, "spec": spec}


def _secret(name: str, data: dict[str, str], *, kind: str = "", part: str = "") -> Manifest:
    labels = {"argocd.argoproj.io/secret-type": kind} if kind else {"app.kubernetes.io/part-of": part}
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


def _text(secret: Manifest | None, key: str) -> str:
    data: dict[str, Any] = (secret or {}).get("data") or {}
    return base64.b64decode(data.get(key, "")).decode()
