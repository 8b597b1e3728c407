"""Making tools ready: from the cache, from PATH, from a mirror, or by building them."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, Protocol

import platformdirs
from pydantic import BaseModel

from testbed.errors import TestbedError, UsageError
from testbed.toolchain.cache import Cache, Entry, Facts, build_key, cannot_write, mirror_key, size_of, write_facts
from testbed.toolchain.go import Go, find_go, install_go
from testbed.toolchain.gobuild import build_cache, compile_tool, disk_full, module_folder
from testbed.toolchain.lock import LOCK, Tool, load_lock
from testbed.toolchain.mirror import Mirror, MirroredTool

ROOM_FOR_A_BUILD = 3 * 1024**3
"""Bytes that must be free, for the tool and for what go keeps of the build."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
Source = Literal["cached", "path", "built", "mirrored"]


class BuildListener(Protocol):
    """Hears how the tools are being made ready."""

    def building(self, tool: Tool) -> None:
        """A build of `tool` began."""

    def fetching(self, tool: Tool, mirror: str) -> None:
        """A download of `tool` from a mirror began."""

    def waiting(self, tool: Tool) -> None:
        """Another process builds in the same module; comes again every few seconds."""

    def progress(self, tool: Tool, phase: str, done: int, total: int) -> None:
        """How far the build or download is; `total` is 0 where it is not known. Comes at least every second or so."""

    def ready(self, tool: Tool, source: Source, seconds: float, size: int) -> None:
        """The tool can be used; `seconds` is how long that took now, `size` is in bytes."""


class Silent:
    """A listener that does nothing."""

    def building(self, tool: Tool) -> None:
        """See `BuildListener`."""

    def fetching(self, tool: Tool, mirror: str) -> None:
        """See `BuildListener`."""

    def waiting(self, tool: Tool) -> None:
        """See `BuildListener`."""

    def progress(self, tool: Tool, phase: str, done: int, total: int) -> None:
        """See `BuildListener`."""

    def ready(self, tool: Tool, source: Source, seconds: float, size: int) -> None:
        """See `BuildListener`."""


class ToolStatus(BaseModel):
    """Where one tool stands."""

    name: str
    version: str
    source: Literal["cached", "mirrored", "path", "missing"]
    path: Path | None = None
    size: int = 0
    build_seconds: float | None = None
    """How long its build took, where that is known."""
    go: str | None = None
    optional: str = ""
    """What alone needs it; see `Tool.optional`."""


class Toolchain:
    """The tools of the lock, made ready on demand.

    Args:
        cache: Where built tools are kept; `$TESTBED_CACHE`, else the user's cache folder.
        lock: The folder with `tools.toml` and `modules/`.
        mirror: Where ready tools are fetched from; what `$TESTBED_MIRROR` names, if anything.
    """

    def __init__(self, *, cache: Path | None = None, lock: Path = LOCK, mirror: Mirror | None = None) -> None:
        default = os.environ.get("TESTBED_CACHE") or platformdirs.user_cache_path("testbed")
        self.cache = cache if cache is not None else Path(default)
        self.mirror = mirror or Mirror.from_environment()
        self._cache = Cache(self.cache)
        self._tools = load_lock(lock)

    def tools(self) -> list[Tool]:
        """Every tool of the lock."""
        return list(self._tools.values())

    def find(self, names: Iterable[str]) -> list[Tool]:
        """The tools of these names.

        Raises:
            UsageError: A name is not in the lock; the message suggests the nearest one.
        """
        found = []
        for name in names:
            if name not in self._tools:
                near = get_close_matches(name, self._tools, n=1)
                raise UsageError(
                    f"unknown tool {name!r}",
                    why=f"did you mean {near[0]!r}?" if near else "it is not in the lock",
                    fix=f"use one of: {', '.join(self._tools)}",
                )
            found.append(self._tools[name])
        return found

    def status(self) -> list[ToolStatus]:
        """Every tool with its version and whether it is ready. Builds and fetches nothing."""
        rows = []
        for tool in self._tools.values():
            row = ToolStatus(name=tool.name, version=tool.version, source="missing", optional=tool.optional)
            if (entry := self.entry(tool)) is not None:
                row.source = "mirrored" if entry.facts.source == "mirrored" else "cached"
                row.path, row.build_seconds, row.go = entry.binary, entry.facts.seconds, entry.facts.go
            elif (on_path := self._on_path(tool)) is not None:
                row.source, row.path = "path", on_path
            if row.path is not None:
                row.size = row.path.stat().st_size
            rows.append(row)
        return rows

    def ensure(self, names: Iterable[str], *, listener: BuildListener | None = None) -> dict[str, Path]:
        """Make tools ready; returns their binaries by name.

        Raises:
            UsageError: Unknown name, a lock that is not complete, or a cache that cannot be written.
            TestbedError: A build failed (no network, no room, no Go, a compiler error), or the mirror did.
        """
        wanted = self.find(names)
        return {tool.name: self._ensure_one(tool, listener or Silent()) for tool in wanted}

    def assets(self, name: str) -> Path:
        """The folder with the upstream files of a tool, at their paths in its module."""
        (tool,) = self.find([name])
        entry = self.entry(tool)
        return (entry or self._make(tool, Silent())[1]).assets

    def entry(self, tool: Tool) -> Entry | None:
        """The entry of a tool in the cache, or None."""
        pinned = self.mirror is not None and self.mirror.pin is not None
        return self._cache.find(tool, self.go(tool), pinned_only=pinned)

    def go(self, tool: Tool) -> Go | None:
        """The Go on this machine that is new enough for a tool, or None."""
        return find_go(self.cache, tool.go_needed)

    def clean(self, names: Iterable[str] = ()) -> int:
        """Remove cached tools (all without `names`); returns the bytes that were freed.

        Raises:
            TestbedError: Another process is building one of them.
        """
        tools = self.find(names) if (names := list(names)) else self.tools()
        return self._cache.remove([self.cache / "tools" / tool.name for tool in tools], tools)

    def stale(self) -> list[Path]:
        """What is in the cache and not used with this lock, this Go and this machine."""
        current = [entry.folder for tool in self.tools() if (entry := self.entry(tool)) is not None]
        return self._cache.stale(current, self.tools())

    def stale_bytes(self) -> int:
        """The size of what `clean_stale` would remove."""
        return sum(size_of(folder) for folder in self.stale())

    def clean_stale(self) -> int:
        """Remove what other versions of the lock, or another Go, left; returns the bytes that were freed.

        Raises:
            TestbedError: Another process is building.
        """
        return self._cache.remove(self.stale(), self.tools())

    def _on_path(self, tool: Tool) -> Path | None:
        binary = shutil.which(tool.name)
        if binary is None or not tool.version_args or tool.assets:
            return None
        try:
            answer = subprocess.run(
                [binary, *tool.version_args], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        exact = rf"(?<![\w.]){re.escape(tool.version.lstrip('v'))}(?![\w.+-])"
        return Path(binary) if re.search(exact, answer.stdout.replace("v", " ")) else None

    def _ensure_one(self, tool: Tool, listener: BuildListener) -> Path:
        began = time.monotonic()
        source: Source = "cached"
        if (entry := self.entry(tool)) is not None:
            binary = entry.binary
        elif (on_path := self._on_path(tool)) is not None:
            source, binary = "path", on_path
        else:
            source, entry = self._make(tool, listener)
            binary = entry.binary
        listener.ready(tool, source, time.monotonic() - began, binary.stat().st_size)
        return binary

    def _make(self, tool: Tool, listener: BuildListener) -> tuple[Source, Entry]:
        with self._cache.holding(tool, lambda: listener.waiting(tool)):
            if (entry := self.entry(tool)) is not None:  # made by the process that we waited for
                return "cached", entry
            mirrored = self.mirror.find(tool) if self.mirror else None
            try:
                if mirrored is not None:
                    self._fetch(tool, mirrored, listener)
                else:
                    self._build(tool, listener)
            except OSError as error:
                raise (
                    disk_full(tool, str(error)) if error.errno in _NO_ROOM else cannot_write(self.cache, error)
                ) from None
        entry = self.entry(tool)
        if entry is None:
            raise TestbedError(
                f"{tool.name} vanished from the cache", fix=f"run `testbed tools build {tool.name}` again"
            )
        return "mirrored" if mirrored else "built", entry

    def _fetch(self, tool: Tool, mirrored: MirroredTool, listener: BuildListener) -> None:
        assert self.mirror is not None  # noqa: S101 - for the type checker
        listener.fetching(tool, self.mirror.shown)
        with self._cache.making(tool, mirror_key(tool)) as part:
            self.mirror.fetch(mirrored, part, lambda done, total: listener.progress(tool, "fetching", done, total))
            facts = Facts(
                version=tool.version,
                go=mirrored.go,
                lock=mirrored.lock,
                seconds=mirrored.seconds,
                sha256=mirrored.files[f"bin/{tool.name}"].sha256,
                machine=platform.machine(),
                source="mirrored",
                pinned=self.mirror.pin is not None,
            )
            write_facts(part, facts)

    def _build(self, tool: Tool, listener: BuildListener) -> None:
        self._require_room(tool, self.cache)
        listener.building(tool)
        if (go := self.go(tool)) is None:
            listener.progress(tool, "installing Go", 0, 0)
            go = install_go(self.cache, tool.go_needed)
        began = time.monotonic()
        with self._cache.making(tool, build_key(tool, go)) as part:
            scratch = part / "scratch"
            scratch.mkdir()
            self._require_room(tool, build_cache(go, tool, scratch))
            output = part / "bin" / tool.name

            def report(phase: str, done: int, total: int) -> None:
                listener.progress(tool, phase, done, total)

            if tool.package:
                compile_tool(go, tool, output, scratch, report)
            else:  # assets alone: what stands for a binary says where they are from
                output.parent.mkdir(exist_ok=True)
                output.write_text(f"{tool.version_of} {tool.version}\n")
            if tool.assets:
                _copy_assets(tool, module_folder(go, tool, scratch), part / "assets")
            shutil.rmtree(scratch)
            with output.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            seconds = round(time.monotonic() - began, 1)
            facts = Facts(version=tool.version, go=go.version, lock=tool.digest(), seconds=seconds, sha256=digest)
            write_facts(part, facts)

    def _require_room(self, tool: Tool, folder: Path) -> None:
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        if free < ROOM_FOR_A_BUILD:
            raise disk_full(tool, f"{free / 1e9:.1f} GB are free below {folder}, a build needs 3 GB")


def _copy_assets(tool: Tool, module: Path, target: Path) -> None:
    for pattern in tool.assets:
        found = sorted(module.glob(pattern))
        if not found:
            raise UsageError(f"{tool.name} {tool.version} has no file {pattern}", fix="correct tools.toml")
        for path in found:
            copy = target / path.relative_to(module)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
