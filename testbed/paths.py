"""Where the platform's own manifests are, in a source tree and in an installed package."""

from __future__ import annotations

from pathlib import Path

from testbed.errors import TestbedError

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
