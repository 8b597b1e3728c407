"""Status conditions, as `kubectl wait` and `kubectl get` read them."""

from __future__ import annotations

import datetime
from typing import Any

READY = "Ready"


class Problem(Exception):
    """Why a resource cannot be what it asks for.

    Args:
        reason: CamelCase, for the condition and for the metric; of a small fixed set.
        message: For the developer: what is wrong, with the field, and what to do.
        retry: Try again with back-off. Without it, only a change of something it depends on starts the next try.
        waiting: Nothing is wrong yet, somebody else has to finish first. Counts as no error.
    """

    def __init__(self, reason: str, message: str, *, retry: bool = True, waiting: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry = retry
        self.waiting = waiting


def condition(kind: str, status: bool, reason: str, message: str) -> dict[str, Any]:
    """One condition; `merge` adds when it changed."""
    return {"type": kind, "status": "True" if status else "False", "reason": reason, "message": message[:32768]}


def merge(old: list[dict[str, Any]], new: list[dict[str, Any]], generation: int) -> list[dict[str, Any]]:
    """The new conditions; `lastTransitionTime` changes with the status of a condition, as the API conventions say."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    before = {entry["type"]: entry for entry in old}
    merged = []
    for entry in new:
        found = before.get(entry["type"], {})
        since = found.get("lastTransitionTime", now) if found.get("status") == entry["status"] else now
        merged.append(entry | {"lastTransitionTime": since, "observedGeneration": generation})
    return merged


def ready(body: dict[str, Any]) -> dict[str, Any]:
    """The Ready condition of an object; empty if it has none."""
    for entry in (body.get("status") or {}).get("conditions") or []:
        if entry["type"] == READY:
            return dict(entry)
    return {}
