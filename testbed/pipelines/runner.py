"""Running GitHub Actions workflows with act, on this machine and without containers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from testbed.aws.issuers import Issuer, github_subject
from testbed.cluster import Fidelity
from testbed.cluster.pki import write_private
from testbed.errors import TestbedError, UsageError
from testbed.pipelines.tokens import TokenEndpoint
from testbed.toolchain import Toolchain
from testbed.toolchain.go import install_go
from testbed.toolchain.watched import watched

ACTIONS = Path(__file__).parent / "actions"
STAND_INS = {
    "actions/checkout": "checkout",
    "actions/setup-go": "setup-go",
    "aws-actions/amazon-ecr-login": "amazon-ecr-login",
    "aws-actions/configure-aws-credentials": "configure-aws-credentials",
    "imjasonh/setup-crane": "setup-crane",
}
"""The actions that a workflow may use, at any version, and the folder of what stands for each."""
WORKFLOW = Path(".github/workflows/release.yaml")
GO = "1.26"
TIMEOUT = 180


@dataclass(frozen=True)
class Run:
    """What a run did."""

    code: int
    output: str
    """All that act wrote, with secrets masked."""
    seconds: float
    sha: str
    tokens: int
    """How many OIDC tokens its jobs took."""
    jobs: dict[str, bool] = field(default_factory=dict)
    """Whether a job succeeded, for those that ended."""


class Runner:
    """A GitHub and its runner for workflows.

    Args:
        toolchain: Has act and what steps call.
        work: A private folder.
        issuer: Signs OIDC tokens as GitHub does.
        environment: What every step sees: the AWS endpoint, the registry, the git server.
    """

    def __init__(self, toolchain: Toolchain, work: Path, issuer: Issuer, environment: Mapping[str, str]) -> None:
        binaries = toolchain.ensure(["act", "crane"])
        go = install_go(toolchain.cache, GO)
        self._act = binaries["act"]
        self._work = work
        self._issuer = issuer
        path = [str(binaries["crane"].parent), str(go.binary.parent), environment.get("PATH", os.defpath)]
        self._environment = {
            # A proxy for AWS would take the requests to the other servers of the run as well.
            **{name: value for name, value in environment.items() if not name.upper().endswith("_PROXY")},
            "PATH": os.pathsep.join(path),
            "TESTBED_PYTHON": sys.executable,
            "GIT_CONFIG_NOSYSTEM": "1",
            # The flags and the cache of the tools' own builds: the standard library is compiled once a machine.
            "CGO_ENABLED": "0",
            "GOCACHE": _go_env(go.binary, "GOCACHE"),
            "GOFLAGS": "-trimpath -buildvcs=false -gcflags=all=-dwarf=false",
            "GOPROXY": "off",
            "GOTOOLCHAIN": "local",
        }

    def run(
        self,
        source: Path,
        repository: str,
        *,
        branch: str = "main",
        actor: str = "dana",
        variables: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        changed: Mapping[str, str] | None = None,
    ) -> Run:
        """Commit a folder as a repository and run its workflow as a push of that commit does.

        Args:
            source: The repository's files.
            repository: OWNER/NAME.
            branch: That is pushed.
            actor: Who pushes.
            variables: The organization's `vars`.
            secrets: The repository's secrets.
            changed: Files that are other than in `source`.

        Raises:
            UsageError: It has no workflow, or one that uses an action for which nothing stands.
        """
        folder = self._work / f"run-{uuid.uuid4().hex[:8]}"
        checkout = folder / "checkout"
        shutil.copytree(source, checkout)
        for path, text in (changed or {}).items():
            (checkout / path).write_text(text)
        workflow = read_workflow(checkout / WORKFLOW)
        sha = _commit(checkout, repository, branch)
        ref = f"refs/heads/{branch}"
        owner, _, name = repository.partition("/")
        described = {"name": name, "full_name": repository, "default_branch": "main", "owner": {"login": owner}}
        event = {"ref": ref, "after": sha, "repository": described, "pusher": {"name": actor}}
        claims = {
            "repository": repository,
            "repository_owner": owner,
            "ref": ref,
            "sha": sha,
            "actor": actor,
            "event_name": "push",
            "workflow": workflow.get("name", WORKFLOW.stem),
            "job_workflow_ref": f"{repository}/{WORKFLOW}@{ref}",
            "jti": uuid.uuid4().hex,
        }
        endpoint = TokenEndpoint(self._issuer, github_subject(repository, branch), claims)
        with endpoint.serving() as token:
            files = {
                "event.json": json.dumps(event),
                "vars": _dotenv(variables or {}),
                "secrets": _dotenv(secrets or {}),
                "env": _dotenv(token if may_have_tokens(workflow) else {}),
            }
            for file, text in files.items():
                write_private(folder / file, text.encode())
            began = time.monotonic()
            code, output = self._start(folder, checkout, actor, workflow)
        return Run(code, output, time.monotonic() - began, sha, endpoint.requests, _jobs(output))

    def _start(self, folder: Path, checkout: Path, actor: str, workflow: dict[str, Any]) -> tuple[int, str]:
        home = folder / "home"
        home.mkdir()
        command: list[str | Path] = [
            *("timeout", "--signal=KILL", str(TIMEOUT), self._act, "push"),
            *("--platform", "ubuntu-latest=-self-hosted", "--directory", checkout, "--actor", actor),
            *("--eventpath", folder / "event.json", "--env-file", folder / "env"),
            *("--var-file", folder / "vars", "--secret-file", folder / "secrets"),
            *("--action-cache-path", folder / "cache", "--no-cache-server", "--pull=false"),
            *("--container-daemon-socket", "-"),
        ]
        for action in sorted(used_actions(workflow)):
            command += ["--local-repository", f"{action}={ACTIONS / STAND_INS[action.partition('@')[0]]}"]
        with tempfile.TemporaryFile(dir=folder) as output:
            environment = {**self._environment, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
            with watched(command, stdout=output, cwd=checkout, env=environment) as process:
                said = process.stderr.read() if process.stderr else b""
            output.seek(0)
            return process.returncode, (output.read() + said).decode(errors="replace")

    @staticmethod
    def fidelity() -> Fidelity:
        """What is real and what is simulated."""
        return Fidelity(
            part="GitHub Actions: act",
            real="the workflow file with its jobs, steps, outputs, variables and secrets; Go, git and crane; the image "
            "and its registry; the exchange of an OIDC token for a role's credentials",
            simulated=f"GitHub itself; steps run on this machine, not in a fresh one; {', '.join(sorted(STAND_INS))} "
            "are small stand-ins; `permissions` decide only whether a workflow gets OIDC tokens at all; the registry "
            "is not ECR (no immutable tags, no scan), its password is the one that moto's ECR gives out",
        )


def read_workflow(path: Path) -> dict[str, Any]:
    """A workflow file.

    Raises:
        UsageError: It is none, or uses an action for which nothing stands here.
    """
    try:
        found = yaml.safe_load(path.read_text())
        used = used_actions(found)
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path.name} is no workflow", why=str(error), fix="correct the file") from None
    for action in sorted(used):
        name, _, version = action.partition("@")
        if name not in STAND_INS or not version:
            raise UsageError(
                f"the action {action} cannot be used here",
                why=f"actions are not fetched; there are stand-ins for versions of {', '.join(sorted(STAND_INS))}",
                fix="use one of these or a local action, or add a stand-in",
            )
    return dict(found)


def used_actions(workflow: dict[str, Any]) -> set[str]:
    """What the steps of a workflow use, as NAME@VERSION, without the repository's own actions."""
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    return {step["uses"] for step in steps if "uses" in step and not step["uses"].startswith("./")}


def may_have_tokens(workflow: dict[str, Any]) -> bool:
    """Whether some job has the permission `id-token: write`, its own or the workflow's."""
    default = workflow.get("permissions", {})
    granted = [job.get("permissions", default) for job in workflow["jobs"].values()]
    return any(one == "write-all" or (isinstance(one, dict) and one.get("id-token") == "write") for one in granted)


def _jobs(output: str) -> dict[str, bool]:
    ended = re.findall(r"^\[[^/\]]+/(\S+?)\s*\].*Job (succeeded|failed)", output, re.M)
    return {job: how == "succeeded" for job, how in ended}


def _dotenv(values: Mapping[str, str]) -> str:
    return "".join(f"{name}={json.dumps(value)}\n" for name, value in values.items())


def _go_env(go: Path, name: str) -> str:
    answer = subprocess.run([go, "env", name], capture_output=True, text=True, check=True, timeout=30)
    return answer.stdout.strip()


def _commit(folder: Path, repository: str, branch: str) -> str:
    """Make a folder a clone of a GitHub repository with one commit; returns the commit."""
    identity = {
        f"GIT_{role}_{what}": "dana@example.com" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    environment = {
        **identity,
        "PATH": os.environ.get("PATH", os.defpath),
        "GIT_CONFIG_NOSYSTEM": "1",
        "HOME": str(folder),
    }

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode:
            raise TestbedError(f"git {arguments[0]} failed", why=done.stderr.strip(), fix="look at the repository")
        return done.stdout.strip()

    git("init", "--quiet", f"--initial-branch={branch}")
    git("remote", "add", "origin", f"https://github.com/{repository}.git")
    git("add", "--all")
    git("commit", "--quiet", "--message=Release")
    return git("rev-parse", "HEAD")
