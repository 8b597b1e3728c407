"""The folder of ready tools: one entry a tool, lock and Go version, made whole or not at all.

tools/NAME/KEY/{bin/NAME, assets/, entry.json}    an entry; appears by one rename
tools/NAME/KEY.part/                              an entry in the making, left by a kill: the next holder removes it
locks/MODULE.lock                                 held by the process that builds in a module
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from testbed.errors import TestbedError, UsageError
from testbed.toolchain.go import Go
from testbed.toolchain.lock import Tool

LOOK_EVERY = 5.0
"""Seconds between two reports of a process that waits for another one's build."""


class Facts(BaseModel):
    """What `entry.json` says of an entry."""

    version: str
    go: str
    """The version of the Go that built it."""
    lock: str
    """`Tool.digest` of what was built."""
    seconds: float
    """How long the build took."""
    sha256: str
    """Of the binary."""
    machine: str = platform.machine()
    source: Literal["built", "mirrored"] = "built"
    pinned: bool = False
    """It came from a mirror whose index was pinned."""


class Entry:
    """One ready tool in the cache."""

    def __init__(self, folder: Path, name: str, facts: Facts) -> None:
        self.folder = folder
        self.binary = folder / "bin" / name
        self.assets = folder / "assets"
        self.facts = facts


class Cache:
    """The entries below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, tool: Tool, go: Go | None, *, pinned_only: bool) -> Entry | None:
        """The entry to use for a tool, or None.

        One that the present Go built comes first, then one from a mirror. Without a Go here any Go's will do.

        Args:
            pinned_only: A mirror is pinned: what was once fetched without a pin is not trusted.
        """
        if go is not None and (built := self._read(tool, self._folder(tool) / build_key(tool, go))) is not None:
            return built
        mirrored = self._read(tool, self._folder(tool) / mirror_key(tool))
        if mirrored is not None and (mirrored.facts.pinned or not pinned_only):
            return mirrored
        if go is not None:
            return None
        entries = (self._read(tool, path.parent) for path in sorted(self._folder(tool).glob("*/entry.json")))
        return next((found for found in entries if found is not None and found.facts.source == "built"), None)

    def _folder(self, tool: Tool) -> Path:
        return self.folder / "tools" / tool.name

    def _read(self, tool: Tool, folder: Path) -> Entry | None:
        try:
            facts = Facts.model_validate_json((folder / "entry.json").read_bytes())
        except (OSError, ValidationError):
            return None
        entry = Entry(folder, tool.name, facts)
        right = facts.lock == tool.digest() and facts.machine == platform.machine()
        return entry if right and entry.binary.is_file() else None

    @contextlib.contextmanager
    def holding(self, tool: Tool, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the lock of the tool's module; `waiting` is called now and then while another process has it.

        Raises:
            UsageError: The cache cannot be written.
        """
        lock = FileLock(self.folder / "locks" / f"{tool.module}.lock")
        try:
            for folder in (self._folder(tool), self.folder / "locks"):
                folder.mkdir(parents=True, exist_ok=True)
            patience = 0.0
            while True:
                try:
                    lock.acquire(timeout=patience)
                    break
                except Timeout:
                    patience = LOOK_EVERY
                    waiting()
        except OSError as error:
            raise cannot_write(self.folder, error) from None
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def making(self, tool: Tool, key: str) -> Iterator[Path]:
        """A folder to fill; when the block ends well it becomes the entry `key`. Call it under `holding`."""
        entry = self._folder(tool) / key
        part = entry.with_name(f"{key}.part")
        for left in entry.parent.glob("*.part"):  # of a process that was killed: we hold the lock
            shutil.rmtree(left, ignore_errors=True)
        try:
            (part / "bin").mkdir(parents=True)
            (part / "assets").mkdir()
            yield part
            for path in part.rglob("*"):
                if path.is_file():  # on the disk before its name is: also a power cut leaves no broken tool
                    with path.open("rb") as written:
                        os.fsync(written.fileno())
            shutil.rmtree(entry, ignore_errors=True)
            part.rename(entry)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def stale(self, current: list[Path], tools: list[Tool]) -> list[Path]:
        """Entries other than `current`: of another lock, Go or machine, and what killed builds left.

        Half-made entries of tools that this lock does not know are left alone: another version may be building them.
        """
        known = {tool.name for tool in tools}
        found = []
        for folder in sorted((self.folder / "tools").glob("*/*")):
            if folder in current or (folder.suffix == ".part" and folder.parent.name not in known):
                continue
            found.append(folder)
        return found

    def remove(self, folders: list[Path], tools: list[Tool]) -> int:
        """Remove folders of entries; returns the bytes freed. Those of `tools` only under their modules' locks.

        Raises:
            TestbedError: Another process is building in one of the modules.
        """
        with contextlib.ExitStack() as held:
            for module in sorted({tool.module for tool in tools}):
                lock = FileLock(self.folder / "locks" / f"{module}.lock")
                try:
                    if (self.folder / "locks").is_dir():
                        held.enter_context(lock.acquire(timeout=0))
                except Timeout:
                    raise TestbedError(
                        "nothing was removed: another process is building",
                        why=f"it holds {lock.lock_file}",
                        fix="try again when it has ended",
                    ) from None
            freed = 0
            for folder in folders:
                size = size_of(folder)
                try:
                    shutil.rmtree(folder)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise cannot_write(self.folder, error) from None
                freed += size
            return freed


def build_key(tool: Tool, go: Go) -> str:
    """The name of the entry that `go` makes of a tool on this machine."""
    return hashlib.sha256(f"{tool.digest()} {go.version} {platform.machine()}".encode()).hexdigest()[:24]


def mirror_key(tool: Tool) -> str:
    """The name of the entry that comes from a mirror, whichever Go built it."""
    return hashlib.sha256(f"{tool.digest()} mirrored {platform.machine()}".encode()).hexdigest()[:24]


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process may be removing
            total += path.lstat().st_size
    return total


def cannot_write(folder: Path, error: OSError) -> UsageError:
    """The error for a cache that cannot be written."""
    return UsageError(
        "the cache of the tools cannot be written",
        why=f"{folder}: {error.strerror or error}",
        fix="set TESTBED_CACHE to a folder that you can write to",
    )


def write_facts(part: Path, facts: Facts) -> None:
    """Write `entry.json` of an entry in the making."""
    (part / "entry.json").write_text(json.dumps(facts.model_dump(), indent=1))
