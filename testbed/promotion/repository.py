"""The GitOps repository: which release runs where, and commits that promote.

git itself does the work, on a bare clone and without a working copy or lock files: a promotion is a blob, a tree and a
commit on top of the head that was read, and its push is refused when somebody else was faster.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, ScalarString
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from testbed.errors import TestbedError
from testbed.promotion.config import Settings
from testbed.promotion.releases import Deployed, Release
from testbed.supervisor import clean_environment

RELEASE_COMMIT = "Release-Commit"
AUTHOR = ("promoter", "promoter@example.com")
TIMEOUT = 30.0
PUSHES = 20


class GitFailed(TestbedError):
    """git ended with an error; `why` is what it said."""


class Overtaken(TestbedError):
    """Somebody else's push came first."""


class Repository:
    """One promoter's view of the repository.

    Args:
        settings: Where it is and where the tags are in it.
        folder: For the bare clone; kept over restarts.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.head = ""
        self._tags: dict[tuple[str, str], str | None] = {}
        self._logs: dict[tuple[str, ...], str] = {}
        """What git said of the present head."""
        self._fetched = 0.0
        self._head_ref = f"refs/remotes/origin/{settings.branch}"

    def _git(self, *arguments: str, stdin: str | None = None, extra: Mapping[str, str] | None = None) -> str:
        environment = clean_environment() | {
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_AUTHOR_NAME": AUTHOR[0],
            "GIT_AUTHOR_EMAIL": AUTHOR[1],
            "GIT_COMMITTER_NAME": AUTHOR[0],
            "GIT_COMMITTER_EMAIL": AUTHOR[1],
            "GIT_CONFIG_COUNT": str(len(self.settings.git_config)),
        }
        for number, (key, value) in enumerate(self.settings.git_config.items()):
            # By environment: command lines can be read by everybody.
            environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        try:
            answer = subprocess.run(
                ["git", "-C", str(self.folder), *arguments],
                input=stdin,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
                env=environment | dict(extra or {}),
            )
        except subprocess.TimeoutExpired:
            raise GitFailed(f"git {arguments[0]} did not end within {TIMEOUT:g} s", fix="is the server up?") from None
        if answer.returncode:
            raise GitFailed(
                f"git {arguments[0]} failed", why=answer.stderr.strip()[-1000:], fix="look at the repository"
            )
        return answer.stdout

    def refresh(self, *, within: float = 0) -> None:
        """Fetch, unless that was done `within` seconds.

        Raises:
            GitFailed: The repository does not answer, or has no such branch.
        """
        if time.monotonic() - self._fetched < within:
            return
        if not (self.folder / "HEAD").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._git("init", "--quiet", "--bare")
        branch = self.settings.branch
        self._git("fetch", "--quiet", "--no-tags", self.settings.repository, f"+refs/heads/{branch}:{self._head_ref}")
        before, self.head = self.head, self._git("rev-parse", self._head_ref).strip()
        if before != self.head:
            self._logs.clear()
        self._fetched = time.monotonic()

    def _told(self, *arguments: str) -> str:
        """What git says of the present head; asked once."""
        if arguments not in self._logs:
            self._logs[arguments] = self._git(*arguments)
        return self._logs[arguments]

    def path(self, service: str, environment: str) -> str:
        """The values file of a service in an environment."""
        return self.settings.values.format(service=service, environment=environment)

    def services(self) -> list[str]:
        """Names of the services that have a values file for the first environment."""
        first = self.settings.environments[0].name
        template = re.escape(self.settings.values).replace(r"\{service\}", "(?P<service>[^/]+)")
        pattern = re.compile(template.replace(r"\{environment\}", re.escape(first)))
        names = self._told("ls-tree", "-r", "--name-only", self.head).splitlines()
        return sorted(match["service"] for name in names if (match := pattern.fullmatch(name)))

    def deployed(self, service: str, environment: str) -> Deployed | None:
        """What the head says runs there; None where there is no file or no tag in it."""
        path = self.path(service, environment)
        tag = self._tag_at(self.head, path)
        if tag is None:
            return None
        text = self._told("log", "-1", f"--format=%(trailers:key={RELEASE_COMMIT},valueonly)", self.head, "--", path)
        return Deployed(tag, text.strip())

    def releases(self, service: str) -> list[Release]:
        """Every release of a service in the order in which they came to the first environment."""
        path = self.path(service, self.settings.environments[0].name)
        commits = self._told("log", "--first-parent", "--reverse", "--format=%H", self.head, "--", path).split()
        found: list[Release] = []
        for commit in commits:
            tag = self._tag_at(commit, path)
            if tag is not None and (not found or found[-1].tag != tag):
                found.append(Release(service, tag, commit))
        return found

    def promotions(self, service: str, environment: str) -> list[tuple[str, str]]:
        """(commit, release commit) of every promotion into an environment, oldest first."""
        path = self.path(service, environment)
        form = f"%H %(trailers:key={RELEASE_COMMIT},valueonly,separator=%x20)"
        lines = self._told("log", "--first-parent", "--reverse", f"--format={form}", self.head, "--", path).splitlines()
        return [(words[0], words[1]) for line in lines if len(words := line.split()) == 2]

    def _tag_at(self, commit: str, path: str) -> str | None:
        if (commit, path) not in self._tags:
            try:
                self._tags[commit, path] = self._read(self._git("show", f"{commit}:{path}"))
            except GitFailed:
                self._tags[commit, path] = None  # the file was not there then
        return self._tags[commit, path]

    def _read(self, text: str) -> str | None:
        try:
            found: Any = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - knows strings only: 1.10 is not 1.1
            for key in self.settings.tag.split("."):
                found = found[key]
        except (yaml.YAMLError, KeyError, TypeError):
            return None  # a broken file: Argo CD reports it, and nothing is promoted from it
        return found if isinstance(found, str) and found else None

    def _written(self, text: str, tag: str) -> str:
        """The same file with another tag; comments, order and quotes stay; a tag has quotes."""
        editor = YAML()
        editor.preserve_quotes = True
        editor.width = 4096
        document = editor.load(text)
        place = document
        *parents, last = self.settings.tag.split(".")
        for key in parents:
            place = place[key]
        # Quoted as it was, else quoted: what reads it, Helm, takes more for numbers than this library does.
        quoted = type(place[last]) if isinstance(place[last], ScalarString) else DoubleQuotedScalarString
        place[last] = quoted(tag)
        output = io.StringIO()
        editor.dump(document, output)
        return output.getvalue()

    @retry(
        retry=retry_if_exception_type(Overtaken),
        stop=stop_after_attempt(PUSHES),
        wait=wait_random(0, 0.2),
        reraise=True,
    )
    def promote(self, release: Release, environment: str, trailers: Mapping[str, str]) -> str | None:
        """Commit a release into an environment and push; returns the commit, or None when its tag is there already.

        Raises:
            GitFailed: The repository does not answer or refuses the push for another reason than an older head.
            Overtaken: Others were faster `PUSHES` times.
        """
        if self.settings.protections.fast_forward or not self.head:
            self.refresh()
        parent, path = self.head, self.path(release.service, environment)
        text = self._git("show", f"{parent}:{path}")
        if self._read(text) == release.tag:
            return None
        blob = self._git("hash-object", "-w", "--stdin", stdin=self._written(text, release.tag)).strip()
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="index-") as scratch:
            index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
            self._git("read-tree", parent, extra=index)
            self._git("update-index", "--cacheinfo", f"100644,{blob},{path}", extra=index)
            tree = self._git("write-tree", extra=index).strip()
        lines = "\n".join(f"{key}: {' '.join(value.split())}" for key, value in trailers.items())
        message = f"Promote {release} to {environment}\n\n{RELEASE_COMMIT}: {release.commit}\n{lines}\n"
        commit = self._git("commit-tree", tree, "-p", parent, stdin=message).strip()
        force = [] if self.settings.protections.fast_forward else ["--force"]
        try:
            self._git(
                "push", "--quiet", *force, self.settings.repository, f"{commit}:refs/heads/{self.settings.branch}"
            )
        except GitFailed as error:
            if re.search(r"non-fast-forward|fetch first|cannot lock ref|stale info|failed to update ref", error.why):
                raise Overtaken(f"the push of {release} was overtaken", why=error.why, fix="try again") from None
            raise
        with contextlib.suppress(GitFailed):
            self.refresh()
        return commit
