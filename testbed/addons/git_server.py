"""The git server of the platform: on the hub alone, for Argo CD and for people who push."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from testbed.addons.base import AddOn
from testbed.cluster import Fidelity
from testbed.cluster.pki import write_private
from testbed.gitops.accounts import new_account, save_accounts
from testbed.gitops.protected_paths import ProtectedPath, protect
from testbed.gitops.push_events import WEBHOOKS, Webhook
from testbed.gitops.repository import BRANCH, Repository, make_bare
from testbed.pages import NOT_SERVED, page
from testbed.ports import LOOPBACK, free_ports, retry_on_taken_port
from testbed.supervisor import ProcessSpec, log_tail
from testbed.wait import wait_until

READER, WRITER, PIPELINES = "argocd", "developers", "x-access-token"
PROMOTER, ON_CALL = "promoter", "on-call"
"""Accounts: the first may only read, the others push too; `PIPELINES` is GitHub's name for who has but a token.

`PROMOTER` and `ON_CALL` are for paths that `protect` closes to the others.
Who authored a commit stands in the commit."""
READY_TIMEOUT = 60.0
ROLE = "git-server"


class GitServer(AddOn):
    """Smart HTTP by git itself, with webhooks after every push."""

    name = "git-server"
    hub_only = True
    lane = "gitops"

    @property
    def version(self) -> str:
        """It is part of the testbed."""
        return "v1"

    @property
    def _folder(self) -> Path:
        return self.cluster.folder / ROLE

    @property
    def _address(self) -> str:
        return self.cluster.supervisor.component(self.cluster.component(ROLE)).tags["address"]

    @property
    def url(self) -> str:
        """The server's address, without a path."""
        return f"http://{self._address}"

    @property
    def repositories(self) -> Path:
        """The folder of its bare repositories."""
        return self._folder / "repositories"

    @property
    def pages(self) -> Path:
        """The folder of what it serves as plain files."""
        return self._folder / "pages"

    @property
    def charts_url(self) -> str:
        """The Helm repository among its plain files."""
        return f"{self.url}/pages/charts"

    def repository_url(self, name: str) -> str:
        """Where a repository is cloned from."""
        return f"{self.url}/{name}.git"

    def token(self, account: str) -> str:
        """The token of an account."""
        return (self._folder / f"{account}.token").read_text()

    def install(self) -> None:
        """Accounts, then the process. It has no repository yet."""
        for folder in ("repositories", "clones", "pages"):
            (self._folder / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        accounts = []
        for name in (READER, WRITER, PIPELINES, PROMOTER, ON_CALL):
            account, token = new_account(name, write=name != READER)
            accounts.append(account)
            write_private(self._folder / f"{name}.token", token.encode())
        save_accounts(self._folder / "accounts.json", accounts)
        self._start()

    def resume(self) -> None:
        """The same: it stores nothing in the cluster."""
        self.install()

    @retry_on_taken_port
    def _start(self) -> None:
        (port,) = free_ports(1)
        name = self.cluster.component(ROLE)
        self.cluster.supervisor.stop([name], grace=0)
        options = {
            "root": self._folder / "repositories",
            "accounts": self._folder / "accounts.json",
            "webhooks": self._folder / "webhooks.json",
            "deliveries": self._folder / "deliveries.jsonl",
            "pages": self.pages,
            "listen": f"{LOOPBACK}:{port}",
        }
        flags = [part for option, value in options.items() for part in (f"--{option}", str(value))]
        self.cluster.supervisor.start(
            ProcessSpec(
                name=name,
                argv=[sys.executable, "-m", "testbed.gitops.git_server", *flags],
                env={"MALLOC_ARENA_MAX": "2", "PYTHONDONTWRITEBYTECODE": "1"},
                tags={"cluster": self.cluster.name, "role": ROLE, "address": f"{LOOPBACK}:{port}"},
                restart_limit=100,
            )
        )
        self._wait(self.cluster.supervisor.require_started)

    def ready(self) -> None:
        """Wait until it answers."""
        self._wait(self.cluster.supervisor.require_running)

    def _wait(self, require: Callable[..., None]) -> None:
        name, log = self.cluster.component(ROLE), self.cluster.log(ROLE)
        host, _, port = self._address.partition(":")

        def probe() -> tuple[bool, object]:
            require(name)
            status, text = page(host, int(port), "/-/healthy")
            return status == 200, text

        wait_until(f"{name} answers", probe, timeout=READY_TIMEOUT, retry_on=NOT_SERVED, evidence=lambda: log_tail(log))

    def set_webhooks(self, webhooks: list[Webhook]) -> None:
        """From the next push on, events of every repository go there."""
        write_private(self._folder / "webhooks.json", WEBHOOKS.dump_json(webhooks))

    def create(self, name: str, source: Path | None = None) -> Repository:
        """A new repository, with the content of a folder as its first commit; returns a working copy of it."""
        make_bare(self._folder / "repositories" / f"{name}.git")
        repository = self.clone(name)
        if source is not None:
            repository.add_tree(source, f"Begin {name}")
        return repository

    def protect(self, name: str, rules: Iterable[ProtectedPath]) -> None:
        """From the next push on, only some accounts change some paths of a repository's branch."""
        protect(self._folder / "repositories" / f"{name}.git", BRANCH, rules)

    def clone(self, name: str, who: str = "somebody", account: str = WRITER) -> Repository:
        """A working copy of a repository, in a folder of its own for `who`, who pushes by `account`."""
        folder = self._folder / "clones" / f"{name}-{who}"
        return Repository(self.repository_url(name), folder, account, self.token(account)).clone()

    def remove(self, name: str) -> None:
        """Remove a repository and its working copies."""
        shutil.rmtree(self._folder / "repositories" / f"{name}.git", ignore_errors=True)
        for clone in (self._folder / "clones").glob(f"{name}-*"):
            shutil.rmtree(clone, ignore_errors=True)

    def deliveries(self) -> str:
        """The log of the webhooks' deliveries, one JSON object a line."""
        path = self._folder / "deliveries.jsonl"
        return path.read_text() if path.is_file() else ""

    def uninstall(self) -> None:
        """Stop it and remove the repositories."""
        self.cluster.supervisor.stop([self.cluster.component(ROLE)])
        shutil.rmtree(self._folder, ignore_errors=True)

    def fidelity(self) -> Fidelity:
        """What is real here."""
        return Fidelity(
            part="git server",
            real="git's own smart HTTP, accounts, protected paths, push events as GitHub sends and signs them",
            simulated="no pull requests, no reviews, HTTP on loopback",
        )
