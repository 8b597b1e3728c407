"""The teams directory: Team objects, which a job copies from the identity provider.

A custom resource and not a ConfigMap: its fields are checked by the API server, who may edit a team can be said by
RBAC for one team, a watch hears of one team's change alone, and the job that copies it has a status to write into, so
that a directory which nobody copies any more can be told from one that is right.
"""

from __future__ import annotations

import datetime
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testbed.operators.api import Resource
from testbed.operators.conditions import Problem

TEAM = Resource("platform.testbed.dev/v1alpha1", "Team", "teams", namespaced=False)


class Groups(BaseModel):
    """Groups of the identity provider, as the API server sees them in a token."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    developers: str = Field(min_length=1, max_length=253)
    viewers: str | None = Field(default=None, min_length=1, max_length=253)


class TeamSpec(BaseModel):
    """One team."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    displayName: str = ""
    costCenter: str = Field(pattern=r"^cc-[0-9]{4}$")
    groups: Groups


def problem_of(name: str, team: dict[str, Any] | None, max_age: float, now: datetime.datetime) -> Problem | None:
    """Why a team cannot have workspaces, or None.

    Args:
        name: What the workspace calls it.
        team: The Team object, None where there is none.
        max_age: Seconds for which what the directory said is believed.
        now: The time, with its zone.
    """
    if team is None:
        return Problem("TeamNotFound", f"spec.team: no Team {name!r} is in the directory; {HOW_TO_FIX}")
    status = team.get("status") or {}
    for entry in status.get("conditions") or []:
        if entry.get("type") == "GroupsFound" and entry.get("status") == "False":
            said = entry.get("message") or "a group is gone"
            return Problem(
                "TeamGroupMissing", f"spec.team: the identity provider has no group of {name!r}: {said}; {HOW_TO_FIX}"
            )
    try:
        synced = datetime.datetime.fromisoformat(str(status["syncedAt"]))
        age = (now - synced).total_seconds()
    except (KeyError, ValueError, TypeError):
        return Problem(
            "TeamStale",
            f"spec.team: Team {name!r} was never confirmed by the identity provider; run the directory sync",
        )
    if age > max_age:
        return Problem(
            "TeamStale",
            f"spec.team: Team {name!r} was last confirmed by the identity provider at {status['syncedAt']}, more than "
            f"{max_age / 3600:g} h ago; see why the directory sync does not run",
        )
    return None


HOW_TO_FIX = "add or correct the Team, or name another one"


def parse(name: str, team: dict[str, Any]) -> TeamSpec:
    """The team's fields.

    Raises:
        Problem: They are not what the schema says (a Team from before the schema).
    """
    try:
        return TeamSpec.model_validate(team.get("spec") or {})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Problem("TeamInvalid", f"Team {name!r}: spec.{where}: {first['msg']}") from None


def unknown(name: str, known: list[str]) -> str:
    """What to tell somebody who names a team that is not there."""
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "ask the platform team to add it"
    return f"spec.team: no Team {name!r} is in the directory; {hint}"
