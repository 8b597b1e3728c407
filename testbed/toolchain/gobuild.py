"""Running go for one tool: the build itself with its progress, and what its failures mean."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from testbed.errors import TestbedError, UsageError
from testbed.toolchain.changed import changed_module
from testbed.toolchain.go import Go
from testbed.toolchain.lock import BUILD_FLAGS, Tool
from testbed.toolchain.watched import watched

TICK = 1.0
"""Seconds after which a silent go is reported as still at work."""

Report = Callable[[str, int, int], None]
"""Hears the phase ("compiling packages"), how much of it is done, and of how much (0: not known)."""

_PINNED_ENVIRONMENT = {
    "CGO_ENABLED": "0",
    "GOFLAGS": "-mod=readonly",  # not empty: that would let the flags of `go env -w` in
    "GOGC": "400",
    "GOOS": "linux",
    "GOTOOLCHAIN": "local",
    "GOWORK": "off",
}
_UNPINNED = ("GOARCH", "GOAMD64", "GOARM64", "GOEXPERIMENT", "GOFIPS140")
"""Settings of the user's shell that would make another binary than the one that the cache key promises."""


def compile_tool(go: Go, tool: Tool, output: Path, scratch: Path, report: Report) -> None:
    """Compile a tool into `output`; go's temporary files go below `scratch`, which the caller removes.

    Raises:
        UsageError: The lock is not complete.
        TestbedError: No network, no room, no memory, or a compiler error.
    """
    flags = [*BUILD_FLAGS, f"-ldflags={tool.ldflags()}"]
    if tool.tags:
        flags.append(f"-tags={','.join(tool.tags)}")
    if tool.patches or tool.parts is not None:
        report("copying the module", 0, 0)
        module = module_folder(go, tool, scratch)
        modfile = changed_module(module, tool.folder, tool.version_of, tool.patches, tool.parts, scratch)
        flags.append(f"-modfile={modfile}")
    stale = _stale_packages(go, tool, flags, scratch, report)
    done = 0
    with _running(go, tool, ["build", "-v", *flags, "-o", str(output), tool.package], scratch) as build:
        for line in build.errors():
            if line in stale:
                done += 1
                build.known()
            phase = "linking" if done == len(stale) else "compiling packages"
            report(phase, done, len(stale))


def module_folder(go: Go, tool: Tool, scratch: Path) -> Path:
    """The folder of the tool's own module in the module cache, downloaded if need be.

    Raises:
        TestbedError: It is not the module whose sum the lock has.
    """
    # With its version: else go would read the go.mod of all that it requires, which the lock of assets alone has not.
    with _running(go, tool, ["mod", "download", "-json", f"{tool.version_of}@{tool.version}"], scratch) as download:
        for _ in download.errors():
            pass
    answer = json.loads(download.output)
    if f"{tool.version_of} {tool.version} {answer['Sum']}\n" not in (tool.folder / "go.sum").read_text():
        raise _failure(tool, f"checksum mismatch: {tool.version_of} {tool.version} has the sum {answer['Sum']}")
    return Path(answer["Dir"])


def build_cache(go: Go, tool: Tool, scratch: Path) -> Path:
    """Where go keeps compiled packages."""
    with _running(go, tool, ["env", "GOCACHE"], scratch) as asked:
        for _ in asked.errors():
            pass
    return Path(asked.output.strip())


def _stale_packages(go: Go, tool: Tool, flags: list[str], scratch: Path, report: Report) -> set[str]:
    """The packages that the build has to compile; asking this also downloads the modules."""
    downloaded = 0
    # Of a command that is compiled but not installed go says that it is stale; `go build` does not compile it.
    compiled = "not installed but available in build cache"
    wanted = f'{{{{if and .Stale (ne .StaleReason "{compiled}")}}}}{{{{.ImportPath}}}}{{{{end}}}}'
    with _running(go, tool, ["list", "-deps", *flags, "-f", wanted, tool.package], scratch) as listing:
        for line in listing.errors():
            if line.startswith("go: downloading "):
                downloaded += 1
                listing.known()
            report("downloading modules" if downloaded else "reading packages", downloaded, 0)
    return set(listing.output.split())


class _Run:
    """One run of go."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._said: deque[str] = deque(maxlen=200)
        self.output = ""

    def errors(self) -> Iterator[str]:
        """The lines of its error output as they come, and an empty one whenever it was silent for `TICK`."""
        assert self._process.stderr is not None  # noqa: S101 - for the type checker
        descriptor, rest = self._process.stderr.fileno(), b""
        while True:
            if not select.select([descriptor], [], [], TICK)[0]:
                yield ""
                continue
            data = os.read(descriptor, 1 << 16)
            *lines, rest = (rest + data).split(b"\n")
            for line in [*lines, rest] if not data else lines:
                self._said.append(line.decode(errors="replace"))
                yield self._said[-1]
            if not data:
                return

    def known(self) -> None:
        """The last line was progress: keep it out of the message of an error."""
        self._said.pop()

    def said(self) -> str:
        """The end of what it said besides progress."""
        return "\n".join(self._said)


@contextlib.contextmanager
def _running(go: Go, tool: Tool, arguments: list[str], scratch: Path) -> Iterator[_Run]:
    """Run go in the tool's module folder. It and all that it starts dies with us: on Ctrl-C, and on kill -9."""
    environment = {name: value for name, value in os.environ.items() if name not in _UNPINNED}
    environment |= _PINNED_ENVIRONMENT | {"GOTMPDIR": str(scratch)}
    with tempfile.TemporaryFile(dir=scratch) as output:
        with watched([go.binary, *arguments], cwd=tool.folder, env=environment, stdout=output) as process:
            run = _Run(process)
            yield run
        output.seek(0)
        run.output = output.read().decode(errors="replace")
    if process.returncode:
        raise _failure(tool, run.output[-4000:] + run.said())


def disk_full(tool: Tool, why: str) -> TestbedError:
    """The error for no room."""
    return TestbedError(
        f"{tool.name} could not be written: no room on the disk",
        why=why,
        fix="free some room (`go clean -cache`, `testbed tools clean --stale`), "
        "or set TESTBED_CACHE, GOCACHE and GOMODCACHE to folders on another disk",
    )


def _failure(tool: Tool, output: str) -> TestbedError:
    tail = "\n".join(output.strip().splitlines()[-20:])
    name = f"{tool.name} {tool.version}"
    if re.search(r"no space left on device|disk quota exceeded", output):
        return disk_full(tool, tail)
    if re.search(r"SECURITY ERROR|checksum mismatch", output):
        return TestbedError(
            f"{name} was not built: a module is not the one that the lock recorded",
            why=tail,
            fix="do not use that module: find out who changed it, the lock's go.sum, the proxy or the module cache",
        )
    if re.search(r"missing go\.sum entry|updates to go\.(mod|sum) needed|no required module provides", output):
        return UsageError(
            f"the lock of {tool.name} is not complete",
            why=tail,
            fix=f"restore go.mod and go.sum in {tool.folder} from version control",
        )
    if re.search(
        r"dial tcp|no such host|i/o timeout|connection refused|TLS handshake timeout|lookup disabled by GOPROXY"
        r"|proxyconnect|network is unreachable|502 Bad Gateway|503 Service Unavailable",
        output,
    ):
        return TestbedError(
            f"{name} could not be built: the Go module proxy was not reached",
            why=tail,
            fix="check the network and GOPROXY; a warm Go module cache or TESTBED_MIRROR needs no proxy",
        )
    if re.search(r"signal: killed|out of memory|cannot allocate memory", output):
        return TestbedError(
            f"{name} could not be built: the compiler was killed, most likely for want of memory",
            why=tail,
            fix="free some memory (the linker of the API server needs about 2 GB), or use TESTBED_MIRROR",
        )
    if re.search(
        r"read-only file system|permission denied|failed to initialize build cache|build cache is (required|disabled)",
        output,
    ):
        return UsageError(
            f"{name} could not be built: go cannot write where it must",
            why=tail,
            fix="set GOCACHE and GOMODCACHE to folders that you can write to",
        )
    return TestbedError(f"{name} did not build", why=tail, fix="read the compiler's message above; then build again")
