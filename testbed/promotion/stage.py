"""Three environments with a promoter, as scenarios see them.

A repository of applications with its services, an Argo CD Application for each in every environment, users of them,
the promoter, and Slack's stand-in. Everything is of the scenario's own and gone afterwards.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from testbed.addons.git_server import ON_CALL, PROMOTER
from testbed.addons.prometheus import SCRAPE_SECONDS, Prometheus
from testbed.cluster import Cluster, Fidelity
from testbed.gitops.applications import AUTOMATED, GitOps
from testbed.gitops.protected_paths import ProtectedPath
from testbed.gitops.repository import BRANCH, Repository
from testbed.promotion.config import Check, Protections
from testbed.promotion.health import health as application_health
from testbed.promotion.processes import PromoterProcesses
from testbed.promotion.traffic import Traffic

ENVIRONMENTS = ("dev", "staging", "production")
IMAGE = "ghcr.io/stefanprodan/podinfo"
SIMULATED = "registry.example.com/services"
"""An image that no process stands for: its pods are the node simulator's, have no metrics and cost nothing."""
FIRST_TAG = "1.0.0"
PATHS = "argocd.argoproj.io/manifest-generate-paths"
PROTECTED = (ProtectedPath("services/*/production/**", (PROMOTER, ON_CALL)),)
"""What production runs changes by the promoter, which asks for approval; whoever is on call takes it back."""
_USERS = 'path!~"healthz|readyz|livez|metrics"'


def values_path(service: str, environment: str) -> str:
    """The values file of a service in an environment."""
    return f"services/{service}/{environment}/values.yaml"


def tag_values(tag: str) -> str:
    """The text of a values file with a tag."""
    return f'image:\n  tag: "{tag}"\n'


class Stage:
    """The environments and the promoter.

    Args:
        gitops: Git server and Argo CD; the platform's clusters are named as the environments.
        source: The repository of applications; its chart deploys the services.
        services: Names of the services.
        time_scale: The gate's five minutes are divided by it.
        image: Repository of their image.
        env: Environment variables of their containers.
        protected: Paths that not everybody who may push may change.
    """

    def __init__(
        self,
        gitops: GitOps,
        source: Path,
        services: Iterable[str],
        *,
        time_scale: float,
        image: str = IMAGE,
        env: Iterable[dict[str, str]] = (),
        protected: Iterable[ProtectedPath] = PROTECTED,
    ) -> None:
        self.gitops = gitops
        self.services = list(services)
        self.time_scale = time_scale
        self.image = image
        self.repository = gitops.repository("infra-apps")
        self.name = f"infra-apps-{gitops.suffix}"
        """The repository's name on the git server."""
        # The fixture's services have a history of their own, also under a name that the scenario takes.
        self.repository.add_tree(source, "Begin", without=["services"])
        self.repository.commit("Services of this scenario", self._files(list(env)))
        gitops.git.protect(self.name, protected)
        self.promoter = PromoterProcesses(gitops.hub, gitops.suffix)
        self._open = contextlib.ExitStack()

    def _files(self, env: list[dict[str, str]]) -> dict[str, str]:
        files: dict[str, str] = {}
        for service in self.services:
            shared = {"team": service, "costCenter": "cc-1042", "priorityClassName": "", "replicas": 1, "env": env}
            files[f"services/{service}/values.yaml"] = yaml.safe_dump(shared | {"image": {"repository": self.image}})
            for environment in ENVIRONMENTS:
                files[values_path(service, environment)] = tag_values(FIRST_TAG)
        return files

    def namespace(self, service: str) -> str:
        """Where a service runs, in every cluster."""
        return f"{service}-{self.gitops.suffix}"

    def application(self, service: str, environment: str) -> str:
        """The name of its Application."""
        return f"{service}-{environment}-{self.gitops.suffix}"

    def cluster(self, environment: str) -> Cluster:
        """The cluster of an environment."""
        return self.gitops.platform.clusters[environment]

    def deploy(self) -> None:
        """Make the Applications and wait until the first release runs everywhere; users come."""
        labels = {"cost-center": "cc-1042", "team": "platform", "environment": "sandbox"}
        policy = AUTOMATED | {
            "syncOptions": ["CreateNamespace=true"],
            "managedNamespaceMetadata": {"labels": labels},
        }
        names = []
        for service in self.services:
            for environment in ENVIRONMENTS:
                helm = {
                    "releaseName": service,
                    "valueFiles": [
                        f"../../services/{service}/values.yaml",
                        f"../../{values_path(service, environment)}",
                    ],
                    "valuesObject": {"environment": environment},
                }
                source = {"repoURL": self.repository.url, "path": "charts/service", "targetRevision": BRANCH}
                names.append(
                    self.gitops.application(
                        f"{service}-{environment}",
                        source | {"helm": helm},
                        namespace=self.namespace(service),
                        cluster=environment,
                        policy=policy,
                    )
                )
                # A push is looked at by the Applications whose files it changed: each push is one service's.
                paths = f"/charts/service;/services/{service}/values.yaml;/services/{service}/{environment}"
                self.gitops.change(names[-1], {"metadata": {"annotations": {PATHS: paths}}})
        self.gitops.wait_synced(names, timeout=90, healthy=True)
        for environment in ENVIRONMENTS if self.image == IMAGE else ():
            traffic = Traffic(self.cluster(environment), [self.namespace(one) for one in self.services])
            self._open.enter_context(traffic.flowing())

    def start(self, protections: Protections, checks: list[Check] | None = None, *, fetch_seconds: float = 0.5) -> None:
        """Start the promoter.

        Args:
            protections: What the scenario is about.
            checks: The gate's; users' success rate and a pod that is up without it.
            fetch_seconds: How often it fetches the repository when it has nothing to push.
        """
        settings = self._settings(protections, checks or [self.success_rate(), self.up()])
        self._open.callback(self.promoter.stop)
        self.promoter.start(settings | {"fetch_seconds": fetch_seconds})

    def success_rate(self) -> Check:
        """At least 99% of users' requests succeed."""
        everything = f'{{job="{self.namespace("SERVICE")}",{_USERS}}}'.replace("SERVICE", "{service}")
        errors = everything.replace(_USERS, f'{_USERS},status=~"5.."')
        rate = "sum(rate(http_request_duration_seconds_count{}[{{range}}]))"
        query = f"1 - ({rate.format(errors)} or vector(0)) / {rate.format(everything)}".replace("{{range}}", "{range}")
        return Check(name="success-rate", query=query, minimum=0.99)

    def up(self) -> Check:
        """A pod of it can be scraped."""
        job = self.namespace("SERVICE").replace("SERVICE", "{service}")
        return Check(name="up", query=f'sum(up{{job="{job}"}})', minimum=1)

    def _settings(self, protections: Protections, checks: list[Check]) -> dict[str, Any]:
        login = base64.b64encode(f"{PROMOTER}:{self.gitops.git.token(PROMOTER)}".encode()).decode()
        return {
            "repository": self.repository.url,
            "branch": BRANCH,
            "git_config": {"http.extraHeader": f"Authorization: Basic {login}"},
            "values": values_path("{service}", "{environment}"),
            "application": self.application("{service}", "{environment}"),
            "environments": [{"name": name, "approval": name == "production"} for name in ENVIRONMENTS],
            "gate": {
                "prometheus": {name: self.gitops.platform.addon(Prometheus, name).url for name in ENVIRONMENTS},
                "checks": [check.model_dump() for check in checks],
                "step_seconds": SCRAPE_SECONDS,
            },
            "time_scale": self.time_scale,
            "every_seconds": 0.3,
            "protections": protections.model_dump(),
        }

    def release(self, service: str, tag: str, environment: str = "dev", who: Repository | None = None) -> str:
        """Commit a tag, as the pipeline does; returns the commit."""
        values = {values_path(service, environment): tag_values(tag)}
        return (who or self.repository).commit(f"Deploy {service} {tag} to {environment}", values)

    def tag(self, service: str, environment: str) -> str:
        """The tag that the repository says."""
        self.repository.pull()
        return str(yaml.safe_load(self.repository.read(values_path(service, environment)))["image"]["tag"])

    def running(self, service: str, environment: str) -> set[str]:
        """The tags that run, as Argo CD sees them."""
        found = self.gitops.get(self.application(service, environment)).get("status") or {}
        images = (found.get("summary") or {}).get("images") or []
        return {image.rpartition(":")[2] for image in images}

    def wait_running(self, service: str, environment: str, tag: str, *, timeout: float) -> None:
        """Wait until exactly this tag runs and is healthy. Raises `WaitTimeout`."""
        name = self.application(service, environment)

        def probe() -> tuple[bool, object]:
            found = self.gitops.get(name)
            health = application_health(found, tag) if found else None
            tags = self.running(service, environment)
            step = self.promoter.step(service, environment) if environment != ENVIRONMENTS[0] else ""
            well = health is not None and health.healthy and tags == {tag}
            return well, f"{tags}, {health}, {step}"

        self.promoter.wait_until(f"{service} {tag} runs in {environment}", probe, timeout)

    def log(self, environment: str, service: str, who: Repository | None = None) -> list[tuple[str, str]]:
        """(commit, message) of the commits to a service in an environment, oldest first; as a clone of `who` has it."""
        clone = who or self.repository
        if who is None:
            clone.pull()
        shown = clone.git("log", "--reverse", "--format=%H%x01%B%x02", "--", values_path(service, environment))
        parts = [part.strip().split("\x01", 1) for part in shown.split("\x02") if part.strip()]
        return [(commit, message) for commit, message in parts]

    def close(self) -> None:
        """Stop the processes and the users, and delete the namespaces; the rest goes with `gitops`."""
        self._open.close()
        for service in self.services:
            for environment in ENVIRONMENTS:
                self.gitops.change(self.application(service, environment), {"spec": {"syncPolicy": None}})
                self.cluster(environment).client().delete("Namespace", self.namespace(service))

    def fidelity(self) -> Fidelity:
        """What is real and what is simulated."""
        users = (
            "users are a few requests a second to each pod" if self.image == IMAGE else "services are simulated pods"
        )
        return Fidelity(
            part="environments",
            real="Argo CD's Applications in three clusters",
            simulated=f"the gate's 5 minutes divided by {self.time_scale:g}; {users}",
        )
