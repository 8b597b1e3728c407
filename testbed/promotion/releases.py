"""What is promoted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Release:
    """A tag of a service that was brought to the first environment.

    `commit` is the one that brought it there; it tells two releases of one tag apart (a revert is a new release).
    """

    service: str
    tag: str
    commit: str

    def __str__(self) -> str:
        return f"{self.service}@{self.tag}"


@dataclass(frozen=True)
class Deployed:
    """What the repository says of a service in an environment."""

    tag: str
    release_commit: str
    """From the trailer of the promotion; empty where somebody changed the file by hand."""


@dataclass(frozen=True)
class Health:
    """What Argo CD says of a service in an environment."""

    tag: str
    """The tag that runs; empty when none or several do."""
    healthy: bool
    since: float
    """Unix time since when it is so."""
    why: str = ""
    """In words, when it is not healthy."""


@dataclass(frozen=True)
class Verdict:
    """Whether a gate is open, and why."""

    open: bool
    why: str
