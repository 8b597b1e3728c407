"""A GitOps repository on disk and a promoter with fakes at its two ports: health and notifications."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.promotion.approvals import Approvals
from testbed.promotion.config import Check, Environment, Gate, Protections, Settings, Slack
from testbed.promotion.controller import Controller
from testbed.promotion.ledger import Ledger, Request
from testbed.promotion.releases import Health, Verdict
from testbed.promotion.repository import Repository

SECRET = "8f742231b10e8888abcd99yyyzzz85a5"  # noqa: S105 - of this test
APPROVER = "U0ADA"
ENVIRONMENTS = ("dev", "staging", "production")
VALUES = """# of the team orders
image:
  repository: registry.example/orders
  tag: "{tag}"  # the pipeline writes it
replicas: 2
"""


class Developer:
    """Somebody with a clone who pushes."""

    def __init__(self, remote: Path, folder: Path) -> None:
        self.remote = remote
        self.folder = folder

    def git(self, *arguments: str, at: Path | None = None) -> str:
        identity = {
            f"GIT_{role}_{what}": "dev@example.com" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        environment = {**os.environ, **identity, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(
            ["git", *arguments], cwd=at or self.folder, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def set(self, tag: str, environment: str = "dev", service: str = "orders") -> str:
        self.git("pull", "--quiet", "--rebase", "origin", "main")
        path = self.folder / "services" / service / environment / "values.yaml"
        path.write_text(VALUES.format(tag=tag))
        self.git("commit", "--quiet", "--all", f"--message={service} {tag} in {environment}")
        self.git("push", "--quiet", "origin", "HEAD:main")
        return self.git("rev-parse", "HEAD")

    def take_back(self, commit: str = "FETCH_HEAD") -> str:
        """`git revert` of a commit, by default the last one; returns the new one."""
        self.git("pull", "--quiet", "--rebase", "origin", "main")
        self.git("revert", "--no-edit", commit)
        self.git("push", "--quiet", "origin", "HEAD:main")
        return self.git("rev-parse", "HEAD")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Remote and clone, copied for every test: git is started once, not six times a test."""
    folder = tmp_path_factory.mktemp("template")
    developer = Developer(folder / "infra-apps.git", folder / "developer")
    developer.git("init", "--quiet", "--bare", "--initial-branch=main", str(developer.remote), at=folder)
    developer.git("init", "--quiet", "--initial-branch=main", str(developer.folder), at=folder)
    developer.git("remote", "add", "origin", "../infra-apps.git")
    for service in ("orders", "payments"):
        place = developer.folder / "services" / service
        for environment in ENVIRONMENTS:
            (place / environment).mkdir(parents=True)
            (place / environment / "values.yaml").write_text(VALUES.format(tag="1.0.0"))
    developer.git("add", "--all")
    developer.git("commit", "--quiet", "--message=begin")
    developer.git("push", "--quiet", "origin", "HEAD:main")
    return folder


@pytest.fixture
def developer(template: Path, tmp_path: Path) -> Developer:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return Developer(tmp_path / "infra-apps.git", tmp_path / "developer")


@pytest.fixture
def settings(developer: Developer, tmp_path: Path) -> Settings:
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "token").write_text("xoxb-0")
    slack = Slack(
        api="http://127.0.0.1:1/api/",
        channel="C0RELEASES",
        token_file=tmp_path / "token",
        signing_secret_file=tmp_path / "secret",
        approvers={APPROVER: "Ada"},
    )
    return Settings(
        repository=str(developer.remote),
        environments=[Environment(name=name, approval=name == "production") for name in ENVIRONMENTS],
        gate=Gate(
            prometheus=dict.fromkeys(ENVIRONMENTS, "http://127.0.0.1:1"),
            checks=[Check(name="up", query="up", minimum=1)],
        ),
        slack=slack,
        protections=Protections(),
    )


class FakeHealth:
    """Whatever the repository says runs at once and well, unless a test says otherwise."""

    def __init__(self) -> None:
        self.ill: set[tuple[str, str]] = set()

    def look(self) -> None:
        pass

    def of(self, service: str, environment: str, tag: str) -> Health:
        ill = (service, environment) in self.ill
        return Health(tag, not ill, 0, "it is Degraded" if ill else "")


class FakeGate:
    """Open, unless a test says otherwise."""

    def __init__(self) -> None:
        self.closed: set[tuple[str, str]] = set()

    def verdict(self, service: str, environment: str, since: float, now: float) -> Verdict:
        closed = (service, environment) in self.closed
        return Verdict(not closed, "errors: 0.2, at most 0.01 is allowed" if closed else "healthy for 300 s")


class FakeSlack:
    """Remembers what was asked and told."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.told: list[str] = []

    def ask(self, request: Request, evidence: str) -> str:
        self.asked.append(request)
        return f"{len(self.asked)}.0"

    def tell(self, request: Request, text: str) -> None:
        self.told.append(text)


class Promoter:
    """A promoter's parts. `restarted` is what comes after a kill -9: only the files are left."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.now = 1_700_000_000.0
        self.health, self.gate, self.slack = FakeHealth(), FakeGate(), FakeSlack()
        self._build()

    def _build(self) -> None:
        self.ledger = Ledger(self.folder / "ledger.sqlite")
        self.repository = Repository(self.settings, self.folder / "clone.git")
        self.controller = Controller(
            self.settings, self.repository, self.health, self.gate, self.slack, self.ledger, lambda: self.now
        )
        self.approvals = Approvals(self.settings, self.ledger, self.controller.current)

    def restarted(self) -> Promoter:
        self.ledger.close()
        self._build()
        return self

    def settle(self) -> None:
        """Look until nothing moves."""
        for _ in range(10):
            if not self.controller.look():
                assert not self.controller.failure
                return
        raise AssertionError("it never comes to rest")

    def step(self, target: str, service: str = "orders") -> dict[str, str]:
        return next(s for s in self.controller.steps() if (s["service"], s["target"]) == (service, target))

    def tags(self, service: str = "orders") -> list[str]:
        self.repository.refresh()
        found = [self.repository.deployed(service, environment) for environment in ENVIRONMENTS]
        return [one.tag if one else "" for one in found]


@pytest.fixture
def promoter(settings: Settings, tmp_path: Path) -> Iterator[Promoter]:
    folder = tmp_path / "promoter"
    folder.mkdir()
    promoter = Promoter(settings, folder)
    yield promoter
    promoter.ledger.close()
