"""An organization's CI: its repositories, the check of their workflows, the runner, and where images go."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from testbed.addons.git_server import PIPELINES, GitServer
from testbed.aws.accounts import ACCOUNTS, SHARED_SERVICES
from testbed.aws.cloud import Cloud
from testbed.aws.issuers import GITHUB
from testbed.cluster import Fidelity
from testbed.errors import TestbedError
from testbed.gitops.accounts import new_account, save_accounts
from testbed.pages import NOT_SERVED, page
from testbed.pipelines.registry import Registry
from testbed.pipelines.runner import WORKFLOW, Run, Runner
from testbed.ports import LOOPBACK, free_ports, retry_on_taken_port
from testbed.supervisor import ProcessSpec, Supervisor, clean_environment, log_tail
from testbed.toolchain import Toolchain
from testbed.wait import wait_until

SERVICE = "orders"
GIT_SERVER = "ci-git-server"
VALUES = f"services/{SERVICE}/dev/values.yaml"
FIRST = f'image:\n  repository: 210000000003.dkr.ecr.eu-west-1.amazonaws.com/{SERVICE}\n  tag: "none"\n'
AUTHOR = {f"GIT_{role}_{what}": "dana@example.com" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


class WorkflowRefused(TestbedError):
    """A policy does not accept a workflow; `why` has the violations."""


class Pipelines:
    """CI over a cloud.

    Args:
        cloud: Where images' credentials come from.
        toolchain: Has act, crane, the registry and Conftest.
        work: A private folder.
        fixtures: The folder with `service` and `policy`.
        platform_git: The git server of a platform, whose infra-apps its Argo CD deploys. Without it there is a git
            server with an infra-apps that nobody deploys.
    """

    def __init__(
        self, cloud: Cloud, toolchain: Toolchain, work: Path, fixtures: Path, platform_git: GitServer | None = None
    ) -> None:
        self.cloud = cloud
        self.checked = True
        """Whether workflows are checked before they run."""
        self._work = work
        self._fixtures = fixtures
        self._conftest = toolchain.ensure(["conftest"])["conftest"]
        self._own_git = platform_git is None
        if platform_git is not None:
            self._git_server, self._git_token = platform_git.repositories, platform_git.token(PIPELINES)
            git_url = platform_git.url
        else:
            self._git_server = work / "git"
            git_url = self._make_git()
        self.registry = Registry(cloud.supervisor, toolchain, work / "registry", self._password())
        self.registry.start()
        self.registry.push_base()
        environment = cloud.environment(None) | {
            "TESTBED_GIT_SERVER": git_url,
            "TESTBED_REGISTRY": self.registry.address,
        }
        runs = work / "runs"
        runs.mkdir()
        self._runner = Runner(toolchain, runs, cloud.issuer(GITHUB), environment)

    @property
    def supervisor(self) -> Supervisor:
        """The cloud's."""
        return self.cloud.supervisor

    def fidelity(self) -> list[Fidelity]:
        """What is real and what is simulated."""
        return [*self.cloud.fidelity(), self._runner.fidelity()]

    def _password(self) -> str:
        """The registry's password, as ECR gives it to whoever may ask."""
        ecr = self.cloud.bootstrap(ACCOUNTS[SHARED_SERVICES]).client("ecr")
        token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
        return base64.b64decode(token).decode().partition(":")[2]

    def _git(self, folder: Path, *arguments: str) -> str:
        environment = clean_environment() | AUTHOR | {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
        done = subprocess.run(
            ["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode:
            raise TestbedError(f"git {arguments[0]} failed", why=done.stderr.strip(), fix=f"look at {folder}")
        return done.stdout

    def _make_git(self) -> str:
        """Start a git server of our own; returns its address."""
        self._infra_apps()
        (self._work / "pages").mkdir()
        account, self._git_token = new_account(PIPELINES, write=True)
        save_accounts(self._work / "accounts.json", [account])
        return self._serve_git()

    def _infra_apps(self) -> None:
        """The repository that pipelines deploy by, with the service's values for dev."""
        self._git_server.mkdir(parents=True)
        bare = self._git_server / "infra-apps.git"
        self._git(self._git_server, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
        clone = self._work / "seed"
        self._git(self._git_server, "clone", "--quiet", str(bare), str(clone))
        values = clone / VALUES
        values.parent.mkdir(parents=True)
        values.write_text(FIRST)
        self._git(clone, "checkout", "--quiet", "-b", "main")
        self._git(clone, "add", "--all")
        self._git(clone, "commit", "--quiet", "--message=Begin")
        self._git(clone, "push", "--quiet", "origin", "main")
        shutil.rmtree(clone)

    @retry_on_taken_port
    def _serve_git(self) -> str:
        """Serve the repositories by HTTP, to who has a token; returns the server's address."""
        (port,) = free_ports(1)
        options = {
            "root": self._git_server,
            "accounts": self._work / "accounts.json",
            "webhooks": self._work / "webhooks.json",
            "deliveries": self._work / "deliveries.jsonl",
            "pages": self._work / "pages",
            "listen": f"{LOOPBACK}:{port}",
        }
        flags = [part for option, value in options.items() for part in (f"--{option}", str(value))]
        self.supervisor.stop([GIT_SERVER], grace=0)
        self.supervisor.start(
            ProcessSpec(name=GIT_SERVER, argv=[sys.executable, "-m", "testbed.gitops.git_server", *flags])
        )

        def probe() -> tuple[bool, object]:
            self.supervisor.require_started(GIT_SERVER)
            status, text = page(LOOPBACK, port, "/-/healthy")
            return status == 200, text

        log = self.supervisor.component(GIT_SERVER).log
        wait_until("the git server answers", probe, timeout=30, retry_on=NOT_SERVED, evidence=lambda: log_tail(log))
        return f"http://{LOOPBACK}:{port}"

    def deployments(self) -> list[str]:
        """The subjects of the commits in infra-apps, oldest first, less the one that began it."""
        log = self._git(self._git_server / "infra-apps.git", "log", "--reverse", "--format=%s", "main")
        return log.splitlines()[1:]

    def values(self) -> str:
        """The service's values for dev."""
        return self._git(self._git_server / "infra-apps.git", "show", f"main:{VALUES}")

    def source(self, path: str) -> str:
        """The text of a file of the service."""
        return (self._fixtures / "service" / path).read_text()

    def workflow(self) -> str:
        """The text of the service's workflow."""
        return self.source(str(WORKFLOW))

    def check(self, workflow: str) -> None:
        """Check a workflow against the platform's policy.

        Raises:
            WorkflowRefused: It has a static credential, takes AWS credentials without a role, uses an action that is
                not pinned to a commit, or may release an older commit after a newer one.
        """
        path = self._work / "workflow.yaml"
        path.write_text(workflow)
        answer = subprocess.run(
            [self._conftest, "test", "--output", "json", "--policy", self._fixtures / "policy", path],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=clean_environment(),
        )
        try:
            messages = [found["msg"] for result in json.loads(answer.stdout) for found in result.get("failures") or []]
        except json.JSONDecodeError:
            raise TestbedError("conftest could not check a workflow", why=answer.stderr, fix="correct it") from None
        if messages or answer.returncode:
            raise WorkflowRefused(
                "policy refuses the workflow", why="\n".join(messages) or answer.stderr, fix="correct the workflow"
            )

    def push(
        self,
        repository: str = f"example/{SERVICE}",
        *,
        branch: str = "main",
        role: str = "",
        secrets: Mapping[str, str] | None = None,
        workflow: str | None = None,
        changed: Mapping[str, str] | None = None,
    ) -> Run:
        """Push the service's code to a repository: its workflow is checked and run.

        Args:
            repository: OWNER/NAME on GitHub.
            branch: That is pushed.
            role: ARN of the role for images, the organization's variable `IMAGES_ROLE`.
            secrets: The repository's secrets.
            workflow: Text of its workflow, where it is another than the fixture's.
            changed: Texts of its files, where they are others than the fixture's.

        Raises:
            WorkflowRefused: Before anything ran.
        """
        text = self.workflow() if workflow is None else workflow
        if self.checked:
            self.check(text)
        return self._runner.run(
            self._fixtures / "service",
            repository,
            branch=branch,
            variables={"IMAGES_ROLE": role},
            secrets={"INFRA_APPS_TOKEN": self._git_token, **(secrets or {})},
            changed={str(WORKFLOW): text, **(changed or {})},
        )

    def close(self) -> None:
        """Stop the registry, and the git server if it is ours."""
        self.registry.stop()
        if self._own_git:
            self.supervisor.stop([GIT_SERVER], grace=0)
