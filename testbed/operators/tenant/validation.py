"""What the webhook refuses, and why. Pure functions; every message names the field and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from testbed.operators.api import Body
from testbed.operators.config import TenantConfig
from testbed.operators.drift import quantity
from testbed.operators.tenant.spec import spec_of

QUANTITIES = ("cpu", "memory", "storage")
COUNTS = ("pods", "persistentVolumeClaims", "loadBalancers")
_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?", re.ASCII)


def name_problems(name: str, config: TenantConfig) -> Iterable[str]:
    """What is wrong with a workspace's name, which becomes the name of the namespace."""
    if not _LABEL.fullmatch(name):
        yield f"metadata.name: {name!r} must be lower-case letters, digits and hyphens, beginning with a letter"
    if len(name) > config.nameLength:
        yield f"metadata.name: {len(name)} characters; use at most {config.nameLength}"
    if name in config.reservedNames:
        yield f"metadata.name: {name!r} belongs to the platform; choose another name"
    for prefix in config.reservedPrefixes:
        if name.startswith(prefix):
            yield f"metadata.name: names that begin with {prefix!r} belong to the platform; choose another name"


def quota_problems(asked: Any, config: TenantConfig) -> Iterable[str]:
    """Where a quota is more than the platform allows, or no number."""
    if asked is None:
        return
    if not isinstance(asked, dict):
        yield f"spec.quota: must be an object, is {type(asked).__name__}"
        return
    limits = config.maximumQuota.model_dump()
    for field in (*QUANTITIES, *COUNTS):
        value = asked.get(field)
        if value is None:
            continue
        try:
            number = quantity(value)
        except ValueError as error:
            yield f"spec.quota.{field}: {error}"
            continue
        if field in COUNTS and number != int(number):
            yield f"spec.quota.{field}: {value!r} must be a whole number"
        if number > quantity(limits[field]):
            yield (
                f"spec.quota.{field}: {value} is more than the platform's limit of {limits[field]}; "
                "ask for less, or the platform team for an exception"
            )


def repository_problems(repositories: Any) -> Iterable[str]:
    """A wildcard would open the project for every repository."""
    if not isinstance(repositories, list):
        return
    for index, url in enumerate(repositories):
        if isinstance(url, str) and "*" in url:
            yield f"spec.repositories[{index}]: {url!r} has a wildcard; name each repository"
    if len({str(url) for url in repositories}) != len(repositories):
        yield "spec.repositories: a repository is named twice"


def change_problems(old: Body, new: Body, old_team_exists: bool) -> Iterable[str]:
    """What may not change. A team may, once the old one is gone: so the workspace of a dissolved team lives on."""
    before, after = spec_of(old), spec_of(new)
    if before.get("environment") != after.get("environment"):
        yield (
            f"spec.environment: cannot change from {before.get('environment')!r} to {after.get('environment')!r}; "
            "make a new workspace and move"
        )
    if before.get("team") != after.get("team") and old_team_exists:
        yield (
            f"spec.team: cannot change from {before.get('team')!r} to {after.get('team')!r}: access and costs would "
            "move unseen; make a new workspace and move, or remove the old Team first"
        )


def problems(new: Body, old: Body | None, config: TenantConfig, old_team_exists: bool) -> list[str]:
    """Everything that the webhook refuses, except a team that is unknown."""
    spec = spec_of(new)
    found = [*quota_problems(spec.get("quota"), config), *repository_problems(spec.get("repositories"))]
    if old is None:
        return [*name_problems(str(new["metadata"].get("name", "")), config), *found]
    return [*change_problems(old, new, old_team_exists), *found]
