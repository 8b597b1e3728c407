"""The promoter and Slack's stand-in as processes of a platform, and what a scenario asks and sends them."""

from __future__ import annotations

import secrets
import signal
import sys
from collections.abc import Callable
from typing import Any

import requests
import yaml

from testbed.addons.promotion import ACCOUNT
from testbed.cluster import Cluster
from testbed.cluster.pki import write_private
from testbed.gitops.components import NAMESPACE
from testbed.pages import NOT_SERVED, page
from testbed.ports import LOOPBACK, free_ports, retry_on_taken_port
from testbed.promotion import people
from testbed.promotion.slack import EVENT
from testbed.supervisor import ProcessSpec, log_tail
from testbed.wait import Probe, wait_until

APPROVER, APPROVER_NAME = "U0ADA", "Ada Prover"
STRANGER = "U0EVE"
CHANNEL = "C0RELEASES"
READY_TIMEOUT = 60.0


class PromoterProcesses:
    """Both processes, supervised on the hub.

    Args:
        hub: Argo CD's cluster.
        suffix: Of the scenario: tells its processes from those of others.
    """

    def __init__(self, hub: Cluster, suffix: str) -> None:
        self._hub = hub
        self._suffix = suffix
        self._supervisor = hub.supervisor
        self._folder = hub.folder / f"promotion-{suffix}"
        self._folder.mkdir(mode=0o700)
        self._secret = secrets.token_hex(16)
        self._token = f"xoxb-{secrets.token_hex(12)}"
        write_private(self._folder / "signing.secret", self._secret.encode())
        write_private(self._folder / "slack.token", self._token.encode())

    def start(self, settings: dict[str, Any]) -> None:
        """Start both; `settings` are the promoter's, less its account and Slack."""
        self._start("slack", self._slack_command)
        own = {
            "application_namespace": NAMESPACE,
            "kubeconfig": str(self._hub.service_account_kubeconfig(NAMESPACE, ACCOUNT)),
            "slack": {
                "api": f"http://{self._address('slack')}/api/",
                "channel": CHANNEL,
                "token_file": str(self._folder / "slack.token"),
                "signing_secret_file": str(self._folder / "signing.secret"),
                "approvers": {APPROVER: APPROVER_NAME},
            },
        }
        write_private(self._folder / "promoter.yaml", yaml.safe_dump(settings | own).encode())
        self._start("promoter", self._promoter_command)

    def stop(self) -> None:
        """Stop both."""
        self._supervisor.stop([self._component(role) for role in ("promoter", "slack")], grace=1)

    def _slack_command(self, address: str) -> list[str]:
        token = self._folder / "slack.token"
        return ["testbed.promotion.slack_stand_in", f"--listen={address}", f"--token-file={token}"]

    def _promoter_command(self, address: str) -> list[str]:
        config, state = self._folder / "promoter.yaml", self._folder / "state"
        return ["testbed.promotion", f"--config={config}", f"--state={state}", f"--listen={address}"]

    def _component(self, role: str) -> str:
        return self._hub.component(f"{role}-{self._suffix}")

    def _address(self, role: str) -> str:
        return self._supervisor.component(self._component(role)).tags["address"]

    @retry_on_taken_port
    def _start(self, role: str, command: Callable[[str], list[str]]) -> None:
        (port,) = free_ports(1)
        name, address = self._component(role), f"{LOOPBACK}:{port}"
        self._supervisor.stop([name], grace=0)
        self._supervisor.start(
            ProcessSpec(
                name=name,
                argv=[sys.executable, "-m", *command(address)],
                env={"MALLOC_ARENA_MAX": "2", "PYTHONDONTWRITEBYTECODE": "1"},
                tags={"cluster": self._hub.name, "role": role, "address": address},
                restart_limit=100,
            )
        )
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
        return self._get("promoter", path)

    def _get(self, role: str, path: str, headers: dict[str, str] | None = None) -> Any:
        with requests.Session() as http:
            http.trust_env = False  # no proxy of the user's
            return http.get(f"http://{self._address(role)}{path}", headers=headers, timeout=10).json()

    def step(self, service: str, target: str) -> dict[str, Any]:
        """Where a service stands on its way into an environment; empty before the promoter's first look."""
        steps = self.ask("/promotions")["steps"]
        return next((dict(one) for one in steps if (one["service"], one["target"]) == (service, target)), {})

    def messages(self) -> list[dict[str, Any]]:
        """The promoter's messages in Slack, oldest first."""
        bearer = {"Authorization": f"Bearer {self._token}"}
        answer = self._get("slack", f"/api/conversations.history?channel={CHANNEL}&limit=1000", bearer)
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

    def promoted(self, service: str, environment: str, tag: str) -> bool:
        """Whether a release, or a newer one in its place, was promoted into an environment."""
        found: list[dict[str, Any]] = [one for one in self.ask(f"/history/{service}") if one["tag"] == tag]
        return bool(found) and found[-1][environment] != "pending"
