"""Small changes of upstream's source that a tool cannot do without; they stand in the lock, and go sees them alone.

The module itself stays as the proxy serves it and go.sum pins it: `go build -overlay` reads the changed copy of a file
in place of the file.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from testbed.errors import UsageError


class Patch(BaseModel):
    """One replacement in one file of the tool's own module."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    """Path below the module's folder."""
    old: str
    """What is replaced; it must stand in the file exactly once."""
    new: str
    why: str


def overlay(patches: list[Patch], module: Path, scratch: Path) -> Path:
    """Write the changed files and the overlay that names them; returns the overlay's path, for `go build -overlay`.

    Args:
        patches: What to change.
        module: The folder of the module in the module cache.
        scratch: A folder for the result; the caller removes it after the build.

    Raises:
        UsageError: A file does not hold what is to be replaced, or holds it more than once.
    """
    changed: dict[Path, str] = {}
    for patch in patches:
        source = module / patch.file
        text = changed[source] if source in changed else source.read_text()
        if (found := text.count(patch.old)) != 1:
            raise UsageError(
                f"the patch of {patch.file} does not fit",
                why=f"{patch.old!r} stands in it {found} times",
                fix="correct the patch in tools.toml: it belongs to another version",
            )
        changed[source] = text.replace(patch.old, patch.new)
    replaced = {}
    for number, (source, text) in enumerate(changed.items()):
        copy = scratch / f"patched-{number}-{source.name}"
        copy.write_text(text)
        replaced[str(source)] = str(copy)
    path = scratch / "overlay.json"
    path.write_text(json.dumps({"Replace": replaced}))
    return path
