"""Which images can run as processes, and how."""

from __future__ import annotations

import re
from dataclasses import dataclass

from testbed.errors import UsageError


@dataclass(frozen=True)
class Image:
    """A kind of image: where it is found, and the tool of the toolchain that stands for it.

    The tool gets the container's arguments, and by environment what it would find in a container: `HOSTNAME`,
    `TESTBED_POD_ADDRESS` (the only address that it may listen on), `TESTBED_IMAGE_TAG` (its version) and
    `TESTBED_FLAGS` (a JSON file with the feature flags of its namespace).
    """

    tool: str
    repositories: tuple[str, ...]
    programs: tuple[str, ...]
    """What a container's `command` may begin with: the image's own program."""
    checks: tuple[str, ...] = ()
    """Programs of the image that exec probes run; the tool does the same with the same arguments."""


IMAGES = (
    Image(
        tool="podinfo",
        repositories=("ghcr.io/stefanprodan/podinfo", "docker.io/stefanprodan/podinfo", "stefanprodan/podinfo"),
        programs=("podinfo",),
        checks=("podcli",),
    ),
)
"""Every known image."""


@dataclass(frozen=True)
class Reference:
    """A parsed image reference."""

    repository: str
    tag: str
    """`latest` where the reference has neither tag nor digest; the digest where it has no tag."""


def parse(image: str) -> Reference:
    """Split an image reference.

    Raises:
        UsageError: It is none.
    """
    match = re.fullmatch(r"(?P<name>[\w./-]+(?::\d+/[\w./-]+)?)(?::(?P<tag>[\w.-]+))?(?:@(?P<digest>\S+))?", image)
    if match is None:
        raise UsageError(f"{image!r} is no image", fix="write REPOSITORY:TAG")
    return Reference(match["name"], match["tag"] or match["digest"] or "latest")


def find(image: str) -> Image:
    """The known image that a reference names.

    Raises:
        UsageError: None does; names those that are known.
    """
    reference = parse(image)
    for known in IMAGES:
        if reference.repository in known.repositories:
            return known
    raise UsageError(
        f"no process is known for the image {image!r}",
        why="pods of the testbed run as processes; nothing is pulled from a registry",
        fix=f"use one of: {', '.join(repositories())}",
    )


def repositories() -> list[str]:
    """The repositories of all known images."""
    return [repository for known in IMAGES for repository in known.repositories]


def pattern() -> str:
    """A regular expression (RE2) that matches exactly the references of known images."""
    alternatives = "|".join(re.escape(repository) for repository in repositories())
    return rf"^({alternatives})(:[^/@]+)?(@.+)?$"
