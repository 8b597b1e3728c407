"""Three environments with a promoter, as scenarios see them.

A repository of applications with its services, an Argo CD Application for each in every environment, users of them,
the promoter, and Slack's stand-in. Everything is of the scenario's own and gone afterwards.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import requests
import yaml

from testbed.addons.git_server import WRITER
from testbed.addons.prometheus import SCRAPE_SECONDS, Prometheus
from testbed.cluster import Cluster, Fidelity
from testbed.cluster.pki import write_private
from testbed.gitops.applications import AUTOMATED, GitOps
from testbed.gitops.components import NAMESPACE
from testbed.gitops.repository import BRANCH, Repository
from testbed.pages import NOT_SERVED, page
from testbed.ports import LOOPBACK, free_ports, retry_on_taken_port
from testbed.promotion import people
from testbed.promotion.config import Check, Protections
from testbed.promotion.health import health as application_health
from testbed.promotion.slack import EVENT
from testbed.promotion.traffic import Traffic
from testbed.supervisor import ProcessSpec, log_tail
from testbed.wait import Probe, wait_until

ENVIRONMENTS = ("dev", "staging", "production")
IMAGE = "ghcr.io/stefanprodan/podinfo"
FIRST_TAG = "1.0.0"
APPROVER, APPROVER_NAME = "U0ADA", "Ada Prover"
STRANGER = "U0EVE"
CHANNEL = "C0RELEASES"
ACCOUNT = "promoter"
READY_TIMEOUT = 60.0
_USERS = 'path!~"healthz|readyz|livez|metrics"'


def values_path(service: str, environment: str) -> str:
    """The values file of a service in an environment."""
    return f"services/{service}/{environment}/values.yaml"


class Stage:
    """The environments and the promoter.

    Args:
        gitops: Git server and Argo CD; the platform's clusters are named as the environments.
        source: The repository of applications; its chart deploys the services.
        services: Names of the services.
        time_scale: The gate's five minutes are divided by it.
        env: Environment variables of the services' containers.
    """

    def __init__(
        self, gitops: GitOps, source: Path, services: Iterable[str], time_scale: float, env: list[dict[str, str]]
    ) -> None:
        self.gitops = gitops
        self.services = list(services)
        self.time_scale = time_scale
        self.repository = gitops.repository("infra-apps")
        self.repository.add_tree(source, "Begin")
        others: dict[str, str | None] = {
            str(path.relative_to(source)): None for path in source.glob("services/**/values.yaml")
        }
        self.repository.commit("Services of this scenario", others | self._files(env))
        self._supervisor = gitops.platform.supervisor
        self._folder = gitops.hub.folder / f"promotion-{gitops.suffix}"
        self._folder.mkdir(mode=0o700)
        self._secret = secrets.token_hex(16)
        self._token = f"xoxb-{secrets.token_hex(12)}"
        write_private(self._folder / "signing.secret", self._secret.encode())
        write_private(self._folder / "slack.token", self._token.encode())
        self._http = requests.Session()
        self._http.trust_env = False  # no proxy of the user's
        self._open = contextlib.ExitStack()

    def _files(self, env: list[dict[str, str]]) -> dict[str, str]:
        files: dict[str, str] = {}
        for service in self.services:
            shared = {"team": service, "costCenter": "cc-1042", "priorityClassName": "", "replicas": 1, "env": env}
            files[f"services/{service}/values.yaml"] = yaml.safe_dump(shared | {"image": {"repository": IMAGE}})
            for environment in ENVIRONMENTS:
                files[values_path(service, environment)] = f"image:\n  tag: {FIRST_TAG}\n"
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
        self.gitops.wait_synced(names, timeout=90, healthy=True)
        for environment in ENVIRONMENTS:
            traffic = Traffic(self.cluster(environment), [self.namespace(one) for one in self.services])
            self._open.enter_context(traffic.flowing())

    def start(self, protections: Protections, checks: list[Check] | None = None) -> None:
        """Start Slack's stand-in and the promoter, with the protections that the scenario is about."""
        self._start("slack", self._slack_command)
        self._grant()
        self._configure(protections, checks or [self.success_rate(), self.up()])
        self._start("promoter", self._promoter_command)

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

    def _grant(self) -> None:
        """The promoter's account: it may list Applications, and nothing else."""
        kube = self.gitops.hub.client()
        account = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}
        api = "rbac.authorization.k8s.io/v1"
        metadata = {"name": ACCOUNT, "namespace": NAMESPACE}
        rule = {"apiGroups": ["argoproj.io"], "resources": ["applications"], "verbs": ["get", "list", "watch"]}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT}
        kube.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        kube.apply({"apiVersion": api, "kind": "Role", "metadata": metadata, "rules": [rule]})
        kube.apply(
            {"apiVersion": api, "kind": "RoleBinding", "metadata": metadata, "roleRef": role, "subjects": [account]}
        )

    def _configure(self, protections: Protections, checks: list[Check]) -> None:
        login = base64.b64encode(f"{WRITER}:{self.gitops.git.token(WRITER)}".encode()).decode()
        prometheus = {name: self.gitops.platform.addon(Prometheus, name).url for name in ENVIRONMENTS}
        settings = {
            "repository": self.repository.url,
            "branch": BRANCH,
            "git_config": {"http.extraHeader": f"Authorization: Basic {login}"},
            "values": values_path("{service}", "{environment}"),
            "application": self.application("{service}", "{environment}"),
            "application_namespace": NAMESPACE,
            "kubeconfig": str(self.gitops.hub.service_account_kubeconfig(NAMESPACE, ACCOUNT)),
            "environments": [{"name": name, "approval": name == "production"} for name in ENVIRONMENTS],
            "gate": {
                "prometheus": prometheus,
                "checks": [check.model_dump() for check in checks],
                "step_seconds": SCRAPE_SECONDS,
            },
            "slack": {
                "api": f"http://{self._address('slack')}/api/",
                "channel": CHANNEL,
                "token_file": str(self._folder / "slack.token"),
                "signing_secret_file": str(self._folder / "signing.secret"),
                "approvers": {APPROVER: APPROVER_NAME},
            },
            "time_scale": self.time_scale,
            "every_seconds": 0.3,
            "fetch_seconds": 0.5,
            "protections": protections.model_dump(),
        }
        write_private(self._folder / "promoter.yaml", yaml.safe_dump(settings).encode())

    def _slack_command(self, address: str) -> list[str]:
        token = self._folder / "slack.token"
        return ["testbed.promotion.slack_stand_in", f"--listen={address}", f"--token-file={token}"]

    def _promoter_command(self, address: str) -> list[str]:
        config, state = self._folder / "promoter.yaml", self._folder / "state"
        return ["testbed.promotion", f"--config={config}", f"--state={state}", f"--listen={address}"]

    def _component(self, role: str) -> str:
        return self.gitops.hub.component(f"{role}-{self.gitops.suffix}")

    def _address(self, role: str) -> str:
        return self._supervisor.component(self._component(role)).tags["address"]

    @retry_on_taken_port
    def _start(self, role: str, command: Any) -> None:
        (port,) = free_ports(1)
        name, address = self._component(role), f"{LOOPBACK}:{port}"
        self._supervisor.stop([name], grace=0)
        self._supervisor.start(
            ProcessSpec(
                name=name,
                argv=[sys.executable, "-m", *command(address)],
                env={"MALLOC_ARENA_MAX": "2", "PYTHONDONTWRITEBYTECODE": "1"},
                tags={"cluster": self.gitops.hub.name, "role": role, "address": address},
                restart_limit=100,
            )
        )
        self._open.callback(self._supervisor.stop, [name], 1.0)
        self.wait_serving(role, started=True)

    def wait_serving(self, role: str = "promoter", *, started: bool = False) -> None:
        """Wait until one of the two answers and, the promoter, looked once."""
        name = self._component(role)
        path = "/healthz" if role == "promoter" else "/-/healthy"
        _, _, port = self._address(role).partition(":")

        def probe() -> tuple[bool, object]:
            (self._supervisor.require_started if started else self._supervisor.require_running)(name)
            status, text = page(LOOPBACK, int(port), path)
            return status == 200, text

        self.wait_until(f"{role} is ready", probe, READY_TIMEOUT, role)

    def wait_until(self, awaited: str, probe: Probe, timeout: float, role: str = "promoter") -> object:
        """`testbed.wait.wait_until`, with the end of the promoter's log when time runs out."""
        log = self._supervisor.component(self._component(role)).log
        return wait_until(awaited, probe, timeout=timeout, retry_on=NOT_SERVED, evidence=lambda: log_tail(log))

    def kill(self) -> None:
        """Kill -9 the promoter; its supervisor starts it again, as Kubernetes would."""
        self._supervisor.signal(self._component("promoter"), signal.SIGKILL)

    @property
    def restarts(self) -> int:
        """How often the promoter was started again."""
        return self._supervisor.component(self._component("promoter")).restarts

    def ask(self, path: str) -> Any:
        """A page of the promoter, as JSON."""
        return self._http.get(f"http://{self._address('promoter')}{path}", timeout=10).json()

    def step(self, service: str, target: str) -> dict[str, Any]:
        """Where a service stands on its way into an environment; empty before the promoter's first look."""
        steps = self.ask("/promotions")["steps"]
        return next((dict(one) for one in steps if (one["service"], one["target"]) == (service, target)), {})

    def messages(self) -> list[dict[str, Any]]:
        """The promoter's messages in Slack, oldest first."""
        answer = self._http.get(
            f"http://{self._address('slack')}/api/conversations.history",
            params={"channel": CHANNEL, "limit": "1000"},
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=10,
        ).json()
        found = [one for one in answer["messages"] if (one.get("metadata") or {}).get("event_type") == EVENT]
        return list(reversed(found))

    def wait_asked(self, release: str, *, timeout: float) -> dict[str, Any]:
        """Wait until an approval is asked for; returns the message with its buttons."""
        text = f"Release {release} to production?"
        found: list[dict[str, Any]] = []

        def probe() -> tuple[bool, object]:
            found[:] = [one for one in self.messages() if one["text"] == text]
            return bool(found), self.step(release.partition("@")[0], "production")

        self.wait_until(f"Slack is asked for {release}", probe, timeout)
        return found[-1]

    def signed(self, body: bytes, **given: float) -> people.Sent:
        """A body as Slack signs it."""
        return people.signed(body, self._secret, **given)

    def send(self, sent: people.Sent) -> tuple[int, str]:
        """Send a request to the approval endpoint; returns status and text."""
        return people.send(f"http://{self._address('promoter')}/slack/interactive", sent)

    def approve(self, message: dict[str, Any]) -> people.Sent:
        """Have the approver press the button; returns what Slack sent.

        Raises:
            AssertionError: The promoter refused it.
        """
        sent = self.signed(people.press(message, APPROVER, "approve"))
        status, text = self.send(sent)
        if status != 200:
            raise AssertionError(f"the approval was refused: {status} {text}")
        return sent

    def release(self, service: str, tag: str, environment: str = "dev", who: Repository | None = None) -> str:
        """Commit a tag, as the pipeline does; returns the commit."""
        values = {values_path(service, environment): f"image:\n  tag: {tag}\n"}
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
            step = self.step(service, environment) if environment != ENVIRONMENTS[0] else ""
            well = health is not None and health.healthy and tags == {tag}
            return well, f"{tags}, {health}, {step}"

        self.wait_until(f"{service} {tag} runs in {environment}", probe, timeout)

    def log(self, environment: str, service: str) -> list[tuple[str, str]]:
        """(commit, message) of the commits to a service in an environment, oldest first."""
        self.repository.pull()
        shown = self.repository.git(
            "log", "--reverse", "--format=%H%x01%B%x02", "--", values_path(service, environment)
        )
        parts = [part.strip().split("\x01", 1) for part in shown.split("\x02") if part.strip()]
        return [(commit, message) for commit, message in parts]

    def close(self) -> None:
        """Stop the processes and the users, and delete the namespaces; the rest goes with `gitops`."""
        self._open.close()
        kube = self.gitops.hub.client()
        for kind in ("RoleBinding", "Role", "ServiceAccount"):
            api = "v1" if kind == "ServiceAccount" else "rbac.authorization.k8s.io/v1"
            kube.delete(kind, ACCOUNT, namespace=NAMESPACE, api_version=api)
        for service in self.services:
            for environment in ENVIRONMENTS:
                self.gitops.change(self.application(service, environment), {"spec": {"syncPolicy": None}})
                self.cluster(environment).client().delete("Namespace", self.namespace(service))

    def fidelity(self) -> Fidelity:
        """What is real and what is simulated."""
        return Fidelity(
            part="promotion",
            real="the promoter with its commits, Slack's signatures and payloads, Argo CD's health, Prometheus' window",
            simulated=f"Slack itself; the gate's 5 minutes divided by {self.time_scale:g}; users are a few requests a "
            "second to each pod",
        )
