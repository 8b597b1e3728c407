"""A repository as its users have it: a working copy, commits under a name, pushes. By git itself."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from testbed.errors import TestbedError
from testbed.gitops.git_server import ISOLATED
from testbed.supervisor import clean_environment

BRANCH = "main"


class Author(BaseModel):
    """Who commits."""

    model_config = ConfigDict(frozen=True)

    name: str
    email: str

    def variables(self) -> dict[str, str]:
        """As git reads them."""
        names = {f"GIT_{role}_NAME": self.name for role in ("AUTHOR", "COMMITTER")}
        return names | {f"GIT_{role}_EMAIL": self.email for role in ("AUTHOR", "COMMITTER")}


PLATFORM = Author(name="Pat Form", email="pat.form@example.com")
"""Somebody of the platform team."""
DEVELOPER = Author(name="Dana Veloper", email="dana.veloper@example.com")
"""Somebody of a service team."""


class Repository:
    """A working copy of one branch.

    Args:
        url: Where it is cloned from and pushed to.
        folder: Where the working copy lives; made by `clone`.
        account: The account of the git server.
        token: Its token; given to git by the environment, so it stands in no command line and no file.
        branch: The branch.
    """

    def __init__(self, url: str, folder: Path, account: str, token: str, branch: str = BRANCH) -> None:
        self.url = url
        self.folder = folder
        self.branch = branch
        self._authorization = base64.b64encode(f"{account}:{token}".encode()).decode()

    def clone(self) -> Repository:
        """Clone anew; returns itself."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.git("init", "--quiet", f"--initial-branch={self.branch}")
        self.git("remote", "add", "origin", self.url)
        self.pull()
        return self

    def pull(self) -> None:
        """Be at the branch of the server; an empty one is fine."""
        self.git("fetch", "--quiet", "origin")
        if self.git("ls-remote", "--heads", "origin", self.branch):
            self.git("reset", "--quiet", "--hard", f"origin/{self.branch}")

    @property
    def head(self) -> str:
        """The commit that the working copy is at."""
        return self.git("rev-parse", "HEAD")

    def read(self, path: str) -> str:
        """The text of a file."""
        return (self.folder / path).read_text()

    def commit(self, message: str, files: Mapping[str, str | None], *, author: Author = DEVELOPER) -> str:
        """Write files (None removes one), commit and push; returns the commit.

        Raises:
            TestbedError: Nothing changed, or the server refused the push.
        """
        self.pull()
        for path, text in files.items():
            target = self.folder / path
            if text is None:
                target.unlink()
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
        return self._commit_all(message, author)

    def edit(self, path: str, change: Callable[[str], str], message: str, *, author: Author = DEVELOPER) -> str:
        """Change one file's text, commit and push; returns the commit."""
        self.pull()
        return self.commit(message, {path: change(self.read(path))}, author=author)

    def add_tree(self, source: Path, message: str, *, without: Iterable[str] = (), author: Author = PLATFORM) -> str:
        """Copy a whole folder in, except what has a name in `without`; commit and push. Returns the commit."""
        shutil.copytree(source, self.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*without))
        return self._commit_all(message, author)

    def revert(self, commit: str, *, author: Author = DEVELOPER) -> str:
        """`git revert` and push; returns the new commit."""
        self.pull()
        self.git("revert", "--no-edit", commit, env=author.variables())
        return self._push()

    def _commit_all(self, message: str, author: Author) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--no-verify", f"--message={message}", env=author.variables())
        return self._push()

    def _push(self) -> str:
        self.git("push", "--quiet", "origin", f"HEAD:refs/heads/{self.branch}")
        return self.head

    def git(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        """Run git in the working copy; returns its output.

        Raises:
            TestbedError: It failed; says what git said.
        """
        credentials = {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {self._authorization}",
        }
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            env={**clean_environment(), **ISOLATED, "GIT_TERMINAL_PROMPT": "0", **credentials, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise TestbedError(
                f"git {arguments[0]} failed in {self.folder.name}",
                why=(done.stderr or done.stdout).strip(),
                fix=f"look at {self.folder}; the server is {self.url}",
            )
        return done.stdout.strip()


def make_bare(path: Path) -> None:
    """A new empty bare repository, as a git server keeps it."""
    subprocess.run(
        ["git", "init", "--quiet", "--bare", f"--initial-branch={BRANCH}", str(path)],
        env={**clean_environment(), **ISOLATED, "GIT_DIR": os.fspath(path)},
        check=True,
    )
