"""Protected paths: which accounts may change which files of a branch, by git's own `pre-receive` hook.

What git servers call push rules or rulesets. The hook compares the branch before and after the push, so it also sees
what a forced push would undo. It knows files, not fields: whoever may change the chart may still change what runs.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_HOOK = """#!/bin/sh
# Who may change what on {branch}. git runs it before it accepts a push, with the account in REMOTE_USER.
set -eu
empty=$(git hash-object -t tree /dev/null)

only() {{ # PATTERN, accounts in words, ACCOUNT...
    pattern=$1 whom=$2
    shift 2
    for account; do
        if [ "$account" = "${{REMOTE_USER:-}}" ]; then return; fi
    done
    changed=$(git diff --name-only --no-renames "$old" "$new" -- ":(top,glob)$pattern")
    [ -n "$changed" ] || return 0
    echo "$changed" | while read -r path; do
        echo "$path is protected: ${{REMOTE_USER:-nobody}} may not change it, only $whom" >&2
    done
    exit 1
}}

while read -r old new ref; do
    [ "$ref" = {ref} ] || continue
    case $old in *[!0]*) ;; *) old=$empty ;; esac
    case $new in *[!0]*) ;; *) new=$empty ;; esac
{rules}
done
"""


@dataclass(frozen=True)
class ProtectedPath:
    """One rule."""

    pattern: str
    """A glob from the repository's top, as in git's pathspecs: `**` stands for any folders."""
    accounts: tuple[str, ...]
    """Who may change what it matches; nobody else who may push."""


def protect(repository: Path, branch: str, rules: Iterable[ProtectedPath]) -> None:
    """From the next push on, a bare repository's branch has these rules and no others; none takes the hook away."""
    hook = repository / "hooks" / "pre-receive"
    lines = [f"    only {shlex.join([rule.pattern, ', '.join(rule.accounts), *rule.accounts])}" for rule in rules]
    if not lines:
        hook.unlink(missing_ok=True)
        return
    hook.parent.mkdir(exist_ok=True)
    written = hook.with_suffix(".new")
    written.write_text(_HOOK.format(branch=branch, ref=shlex.quote(f"refs/heads/{branch}"), rules="\n".join(lines)))
    written.chmod(0o700)
    written.replace(hook)
