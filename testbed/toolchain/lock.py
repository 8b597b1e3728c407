"""The lock: which tools there are, at which version, from which sources."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from testbed.errors import UsageError
from testbed.toolchain.changed import Patch
from testbed.toolchain.parts import Parts

LOCK = Path(__file__).parent
"""The folder with `tools.toml` and `modules/`."""

BUILD_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false")
"""The same for every tool: reproducible, and without the debug data that takes a third of the time."""


class Tool(BaseModel):
    """One entry of `tools.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    module: str
    """Folder under `modules/`."""
    package: str = ""
    """What is built; empty for an entry that has only assets."""
    version_of: str
    """The Go module whose version is the tool's."""
    version_args: list[str] = []
    """Arguments that make the tool print its version; without them a tool on PATH is never used."""
    stamp: list[str] = []
    """Linker variables, with {version}, {major} and {minor} filled in."""
    tags: list[str] = []
    """Build tags: they leave out what a run does not use."""
    patches: list[Patch] = []
    """Changes of upstream's source, each with its reason."""
    parts: Parts | None = None
    """Which of the program's parts are built; all of them without it."""
    assets: list[str] = []
    """Globs below the module's own folder: upstream manifests that the add-ons install from."""
    seconds: float = Field(default=60, gt=0)
    """About how long a build takes on two cores after the tools above it in the lock; only estimates use it."""
    optional: str = ""
    """What alone needs it, where neither scenarios nor tests do: it is built when it is named, or when that runs."""
    version: str = ""
    folder: Path = LOCK

    @property
    def go_needed(self) -> str:
        """The least version of Go that builds it."""
        match = re.search(r"^go (\S+)", (self.folder / "go.mod").read_text(), re.M)
        return match[1] if match else "1.26"

    def ldflags(self) -> str:
        """The value of `-ldflags`."""
        major, minor = [*self.version.lstrip("v").split("."), "", ""][:2]
        stamps = [entry.format(version=self.version, major=major, minor=minor) for entry in self.stamp]
        return " ".join(["-s", "-w", *(f"-X {entry}" for entry in stamps)])

    def digest(self) -> str:
        """SHA-256 over all that decides what the binary is, except Go's version and the platform."""
        digest = hashlib.sha256()
        # Without what a tool does not have, so that what was built before these fields existed stays valid.
        unset = {name for name in ("tags", "patches", "parts") if not getattr(self, name)}
        entry = self.model_dump_json(exclude={"folder", "seconds", "optional"} | unset)
        digest.update("\0".join([entry, *BUILD_FLAGS]).encode())
        for source in sorted(self.folder.iterdir()):
            if source.suffix in {".mod", ".sum", ".go"}:
                digest.update(f"\0{source.name}\0".encode() + source.read_bytes())
        return digest.hexdigest()


def load_lock(folder: Path = LOCK) -> dict[str, Tool]:
    """Read the lock; returns the tools by name.

    Raises:
        UsageError: `tools.toml` is malformed, or a module has no go.mod, no go.sum, or lacks the version it promises.
    """
    path = folder / "tools.toml"
    try:
        entries = [Tool.model_validate(entry) for entry in tomllib.loads(path.read_text())["tool"]]
    except KeyError:
        raise _malformed(path, "it has no [[tool]]") from None
    except (OSError, ValueError, TypeError) as error:  # TOML and validation errors are ValueErrors
        raise _malformed(path, str(error)) from None
    twice = {entry.name for entry in entries if sum(other.name == entry.name for other in entries) > 1}
    if twice:
        raise _malformed(path, f"twice in it: {', '.join(sorted(twice))}")
    return {entry.name: _complete(entry, folder) for entry in entries}


def _malformed(path: Path, why: str) -> UsageError:
    return UsageError(
        "the lock of the tools cannot be read", why=f"{path}: {why}", fix=f"restore {path.name} from version control"
    )


def _complete(entry: Tool, folder: Path) -> Tool:
    module = folder / "modules" / entry.module
    for name in ("go.mod", "go.sum"):
        if not (module / name).is_file():
            raise UsageError(
                f"the lock of {entry.name} has no {name}",
                why=f"{module / name} is missing; without it what is built is not pinned",
                fix=f"restore {name} from version control",
            )
    # A replaced module (`replace A => B v1`) is named by its replacement: that is what go.sum holds.
    name = re.escape(entry.version_of)
    found = re.search(rf"^(?:(?:require)?\s*|replace \S+ => ){name} (v\S+)", (module / "go.mod").read_text(), re.M)
    if found is None:
        raise UsageError(
            f"the lock of {entry.name} has no version",
            why=f"{module / 'go.mod'} does not require {entry.version_of}",
            fix="restore go.mod from version control",
        )
    sums = (module / "go.sum").read_text()
    if f"{entry.version_of} {found[1]} h1:" not in sums:
        raise UsageError(
            f"the lock of {entry.name} lacks its sum",
            why=f"{module / 'go.sum'} has no line for {entry.version_of} {found[1]}",
            fix="restore go.sum from version control, or write it with `go mod download` in that folder",
        )
    return entry.model_copy(update={"version": found[1], "folder": module})
