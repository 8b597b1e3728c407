"""Where things are: the platform's own manifests, and the folders of running platforms."""

from __future__ import annotations

import re
from pathlib import Path

import platformdirs

from testbed.errors import TestbedError, UsageError

_PACKAGE = Path(__file__).parent


def manifests(*parts: str) -> Path:
    """A path below `manifests/`.

    Raises:
        TestbedError: It is in neither place.
    """
    for root in (_PACKAGE.parent / "manifests", _PACKAGE / "_manifests"):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise TestbedError(f"manifests/{'/'.join(parts)} is missing", fix="restore it from version control")


def platforms_folder() -> Path:
    """Where kept platforms and runs live: private to the user."""
    return platformdirs.user_state_path("testbed") / "platforms"


def kept_folder(name: str) -> Path:
    """Where the kept platform of a name lives.

    Raises:
        UsageError: The name is none.
    """
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?", name):
        raise UsageError(f"{name!r} is no name for a platform", fix="use lower-case letters, digits and hyphens")
    return platforms_folder() / f"kept-{name}"
