"""Push events: what GitHub posts to a webhook after a push, from what git says about the branches before and after."""

from __future__ import annotations

import hashlib
import hmac
import subprocess
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter

NOTHING = "0" * 40
"""Stands for "no commit": the branch was made, or deleted."""
_STATUS = {"A": "added", "M": "modified", "D": "removed", "T": "modified"}


class Webhook(BaseModel):
    """Where push events of every repository go."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    secret: str


WEBHOOKS = TypeAdapter(list[Webhook])


def _git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "--git-dir", str(repository), *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def branches(repository: Path) -> dict[str, str]:
    """The commit of every branch and tag, by ref."""
    lines = _git(repository, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def push_events(
    repository: Path, url: str, before: dict[str, str], after: dict[str, str], pusher: str
) -> list[dict[str, Any]]:
    """The payloads of GitHub's event `push`, one for every ref that differs.

    Args:
        repository: The bare repository.
        url: Its address for browsers: GitHub's `html_url`, without `.git`.
        before: `branches` before the push.
        after: `branches` after it.
        pusher: The account that pushed.
    """
    default = _git(repository, "symbolic-ref", "--short", "HEAD").strip()
    events = []
    for ref in sorted(before.keys() | after.keys()):
        old, new = before.get(ref, NOTHING), after.get(ref, NOTHING)
        if old == new:
            continue
        commits = [] if new == NOTHING else _commits(repository, old, new)
        events.append(
            {
                "ref": ref,
                "before": old,
                "after": new,
                "created": old == NOTHING,
                "deleted": new == NOTHING,
                "commits": commits,
                "head_commit": commits[-1] if commits else None,
                "repository": {
                    "name": repository.stem,
                    "full_name": repository.stem,
                    "html_url": url,
                    "clone_url": f"{url}.git",
                    "default_branch": default,
                },
                "pusher": {"name": pusher},
            }
        )
    return events


def _commits(repository: Path, old: str, new: str) -> list[dict[str, Any]]:
    """The pushed commits, oldest first, each with the files that it changed; the last 20, as GitHub limits them."""
    revisions = [new] if old == NOTHING else [f"{old}..{new}"]
    shown = "--format=%x00%H%x01%an%x01%ae%x01%aI%x01%s"
    output = _git(repository, "log", "--max-count=20", "--reverse", "--name-status", "--no-renames", shown, *revisions)
    commits = []
    for part in output.split("\0")[1:]:
        head, *changes = [line for line in part.splitlines() if line]
        identity, name, email, when, subject = head.split("\x01")
        commit: dict[str, Any] = {
            "id": identity,
            "message": subject,
            "timestamp": when,
            "author": {"name": name, "email": email},
            "added": [],
            "modified": [],
            "removed": [],
        }
        for change in changes:
            status, _, path = change.partition("\t")
            commit[_STATUS.get(status[:1], "modified")].append(path)
        commits.append(commit)
    return commits


def signatures(secret: str, body: bytes) -> dict[str, str]:
    """GitHub's headers that prove who sent a body: HMAC with SHA-256, and with SHA-1 as before 2020."""
    return {
        "X-Hub-Signature-256": f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}",
        "X-Hub-Signature": f"sha1={hmac.new(secret.encode(), body, hashlib.sha1).hexdigest()}",
    }
