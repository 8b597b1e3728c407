"""Making tools ready: from the cache, from PATH, or by building them."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, Protocol

import platformdirs
from filelock import FileLock, Timeout
from pydantic import BaseModel

from testbed.errors import TestbedError, UsageError
from testbed.toolchain.go import Go, find_go, install_go
from testbed.toolchain.lock import BUILD_FLAGS, LOCK, Tool, load_lock

ROOM_FOR_A_BUILD = 3 * 1024**3
Source = Literal["cached", "path", "built"]
_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class BuildListener(Protocol):
    """Hears how the tools are being made ready."""

    def building(self, tool: Tool) -> None:
        """A build of `tool` began."""

    def waiting(self, tool: Tool) -> None:
        """Another process is building in the same module."""

    def ready(self, tool: Tool, source: Source, seconds: float, size: int) -> None:
        """The tool can be used; `seconds` is how long that took now, `size` is in bytes."""


class ToolStatus(BaseModel):
    """Where one tool stands."""

    name: str
    version: str
    source: Literal["cached", "path", "missing"]
    path: Path | None = None
    size: int = 0
    build_seconds: float | None = None


class Toolchain:
    """The tools of the lock, made ready on demand.

    Args:
        cache: Where built tools are kept; `$TESTBED_CACHE`, else the user's cache folder.
        lock: The folder with `tools.toml` and `modules/`.
    """

    def __init__(self, *, cache: Path | None = None, lock: Path = LOCK) -> None:
        default = os.environ.get("TESTBED_CACHE") or platformdirs.user_cache_path("testbed")
        self.cache = cache if cache is not None else Path(default)
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
        """Every tool with its version and whether it is ready. Builds nothing."""
        rows = []
        for tool in self._tools.values():
            entry = self._entry(tool)
            if entry is not None:
                facts = json.loads((entry / "entry.json").read_text())
                product = _product(entry, tool)
                rows.append(
                    ToolStatus(
                        name=tool.name,
                        version=tool.version,
                        source="cached",
                        path=product,
                        size=_size(product),
                        build_seconds=facts["seconds"],
                    )
                )
            elif (binary_on_path := self._on_path(tool)) is not None:
                size = binary_on_path.stat().st_size
                rows.append(
                    ToolStatus(name=tool.name, version=tool.version, source="path", path=binary_on_path, size=size)
                )
            else:
                rows.append(ToolStatus(name=tool.name, version=tool.version, source="missing"))
        return rows

    def ensure(self, names: Iterable[str], *, listener: BuildListener | None = None) -> dict[str, Path]:
        """Make tools ready; returns their binaries by name, of entries with assets alone the folder of these.

        Raises:
            UsageError: Unknown name, or a cache that cannot be written.
            TestbedError: A build failed: no network, no room, no Go, or a compiler error.
        """
        wanted = self.find(names)
        return {tool.name: self._ensure_one(tool, listener) for tool in wanted}

    def assets(self, name: str) -> Path:
        """The folder with the upstream files of a tool, at their paths in its module."""
        (tool,) = self.find([name])
        entry = self._entry(tool)
        if entry is None:
            self._build_locked(tool, None)
            entry = self._entry(tool)
        if entry is None:
            raise TestbedError(f"{name} vanished from the cache", fix=f"run `testbed tools build {name}` again")
        return entry / "assets"

    def clean(self, names: Iterable[str] = ()) -> int:
        """Remove cached tools (all without `names`); returns the bytes that were freed."""
        freed = 0
        for tool in self.find(names) if (names := list(names)) else self.tools():
            folder = self.cache / "tools" / tool.name
            freed += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            shutil.rmtree(folder, ignore_errors=True)
        return freed

    def _go(self, tool: Tool, *, install: bool) -> Go | None:
        match = re.search(r"^go (\S+)", (tool.folder / "go.mod").read_text(), re.M)
        needed = match[1] if match else "1.26"
        found = find_go(self.cache, needed)
        return install_go(self.cache, needed) if found is None and install else found

    def _key(self, tool: Tool, go: Go) -> str:
        return hashlib.sha256(f"{tool.digest()} {go.version} {platform.machine()}".encode()).hexdigest()[:24]

    def _entry(self, tool: Tool) -> Path | None:
        """The cached entry of a tool, whichever Go built it when this machine has none."""
        folder = self.cache / "tools" / tool.name
        if not folder.is_dir():
            return None
        go = self._go(tool, install=False)
        if go is not None:
            entry = folder / self._key(tool, go)
            return entry if (entry / "entry.json").is_file() else None
        for facts in sorted(folder.glob("*/entry.json")):
            if json.loads(facts.read_text())["lock"] == tool.digest():
                return facts.parent
        return None

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

    def _ensure_one(self, tool: Tool, listener: BuildListener | None) -> Path:
        began = time.monotonic()
        source: Source = "cached"
        entry = self._entry(tool)
        binary = _product(entry, tool) if entry else None
        if binary is None and (binary := self._on_path(tool)) is not None:
            source = "path"
        if binary is None:
            source, binary = self._build_locked(tool, listener)
        if listener is not None:
            listener.ready(tool, source, time.monotonic() - began, _size(binary))
        return binary

    def _build_locked(self, tool: Tool, listener: BuildListener | None) -> tuple[Source, Path]:
        folder = self.cache / "tools" / tool.name
        locks = self.cache / "locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            locks.mkdir(exist_ok=True)
            lock = FileLock(locks / f"{tool.module}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if listener is not None:
                    listener.waiting(tool)
                lock.acquire()
        except OSError as error:
            raise UsageError(
                "the cache of the tools cannot be written",
                why=str(error),
                fix="set TESTBED_CACHE to a folder that you can write to",
            ) from None
        with contextlib.ExitStack() as held:
            held.callback(lock.release)
            entry = self._entry(tool)  # the process that we waited for may have built it
            if entry is not None:
                return "cached", _product(entry, tool)
            for stale in folder.glob("*.part"):  # of a process that was killed: we hold the lock
                shutil.rmtree(stale, ignore_errors=True)
            if listener is not None:
                listener.building(tool)
            return "built", self._build(tool, folder)

    def _build(self, tool: Tool, folder: Path) -> Path:
        free = shutil.disk_usage(folder).free
        if free < ROOM_FOR_A_BUILD:
            raise _disk_full(tool, f"{free / 1e9:.1f} GB are free below {folder}, a build needs 3 GB")
        go = self._go(tool, install=True)
        if go is None:
            raise TestbedError("no Go", fix="install Go")
        began = time.monotonic()
        entry = folder / self._key(tool, go)
        part = folder / f"{entry.name}.part"
        try:
            (part / "bin").mkdir(parents=True)
            output = part / "bin" / tool.name
            if tool.package:
                tags = [f"-tags={','.join(tool.tags)}"] if tool.tags else []
                flags = [*BUILD_FLAGS, *tags, f"-ldflags={tool.ldflags()}"]
                _run_go(go, tool, ["build", *flags, "-o", str(output), tool.package])
            self._copy_assets(tool, go, part / "assets")
            facts = {
                "version": tool.version,
                "go": go.version,
                "lock": tool.digest(),
                "seconds": round(time.monotonic() - began, 1),
                "sha256": hashlib.sha256(output.read_bytes()).hexdigest() if tool.package else "",
            }
            (part / "entry.json").write_text(json.dumps(facts, indent=1))
            shutil.rmtree(entry, ignore_errors=True)
            part.rename(entry)
        except OSError as error:
            raise _disk_full(tool, str(error)) from None
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return _product(entry, tool)

    def _copy_assets(self, tool: Tool, go: Go, target: Path) -> None:
        target.mkdir()
        if not tool.assets:
            return
        # With its version, so that go does not read the go.mod of everything that the module requires.
        answer = json.loads(_run_go(go, tool, ["mod", "download", "-json", f"{tool.version_of}@{tool.version}"]))
        if f"{tool.version_of} {tool.version} {answer['Sum']}" not in (tool.folder / "go.sum").read_text():
            raise TestbedError(
                f"the module of {tool.name} {tool.version} is not the one in go.sum",
                why=f"what was downloaded has the sum {answer['Sum']}",
                fix="check GOPROXY: somebody may have changed the module",
            )
        module = Path(answer["Dir"])
        for pattern in tool.assets:
            found = sorted(module.glob(pattern))
            if not found:
                raise TestbedError(f"{tool.name} {tool.version} has no file {pattern}", fix="correct tools.toml")
            for path in found:
                copy = target / path.relative_to(module)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())


def _product(entry: Path, tool: Tool) -> Path:
    """What a cached entry is wanted for: its binary, or its assets where it has no binary."""
    return entry / "bin" / tool.name if tool.package else entry / "assets"


def _size(product: Path) -> int:
    files = product.rglob("*") if product.is_dir() else [product]
    return sum(file.stat().st_size for file in files if file.is_file())


def _disk_full(tool: Tool, why: str) -> TestbedError:
    return TestbedError(
        f"{tool.name} could not be written", why=why, fix="free some room, or set TESTBED_CACHE to another disk"
    )


def _with_parent() -> None:
    _libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _run_go(go: Go, tool: Tool, arguments: list[str]) -> str:
    """Run go in the tool's module folder; it dies with us, on Ctrl-C and on kill -9."""
    environment = os.environ | {
        "CGO_ENABLED": "0",
        "GOGC": "400",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "",
        "GOWORK": "off",
    }
    process = subprocess.Popen(
        [go.binary, *arguments],
        cwd=tool.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_with_parent,
    )
    try:
        out, err = process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode:
        raise _failure(tool, out + err)
    return out


def _failure(tool: Tool, output: str) -> TestbedError:
    tail = "\n".join(output.strip().splitlines()[-20:])
    if "no space left on device" in output:
        return _disk_full(tool, tail)
    if re.search(r"dial tcp|no such host|i/o timeout|connection refused|TLS handshake timeout", output):
        return TestbedError(
            f"{tool.name} could not be built: the Go module proxy was not reached",
            why=tail,
            fix="check the network and GOPROXY; a warm Go module cache needs none",
        )
    if "missing go.sum entry" in output:
        return UsageError(f"the lock of {tool.name} lacks a sum", why=tail, fix="restore go.sum from version control")
    return TestbedError(f"{tool.name} {tool.version} did not build", why=tail, fix="run the build again after a fix")
