"""Filling a mirror with the ready tools of this machine. `mirror.py` says how it is laid out and trusted."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from filelock import FileLock
from pydantic import ValidationError

from testbed.errors import TestbedError, UsageError
from testbed.toolchain.cache import Entry
from testbed.toolchain.lock import Tool
from testbed.toolchain.mirror import PLATFORM, MirroredFile, MirroredTool, MirrorIndex


def fill_mirror(folder: Path, ready: list[tuple[Tool, Entry]]) -> str:
    """Add tools to the mirror in `folder`; tools of other locks and platforms stay in it.

    Returns:
        The sha256 of the new index, to pin.

    Raises:
        UsageError: The folder cannot be written or has an index that is none.
        TestbedError: A tool in the cache is damaged.
    """
    try:
        (folder / "files").mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            index = _present_index(folder)
            for tool, entry in ready:
                new = _add(folder, tool, entry)
                others = [old for old in index.tools if (old.name, old.lock, old.platform) != _identity(new)]
                index.tools = [*others, new]
            index.tools.sort(key=_identity)
            raw = index.model_dump_json(indent=1).encode()
            digest = hashlib.sha256(raw).hexdigest()
            for name in (f"index-{digest}.json", "index.json"):
                _write(folder / name, raw)
    except OSError as error:
        raise UsageError(
            f"the mirror in {folder} cannot be written", why=str(error), fix="give a folder that you can write to"
        ) from None
    return digest


def _identity(tool: MirroredTool) -> tuple[str, str, str]:
    return tool.name, tool.lock, tool.platform


def _present_index(folder: Path) -> MirrorIndex:
    path = folder / "index.json"
    if not path.exists():
        return MirrorIndex()
    try:
        return MirrorIndex.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UsageError(
            f"{path} is no index of a mirror", why=str(error), fix="give an empty folder, or restore it"
        ) from None


def _add(folder: Path, tool: Tool, entry: Entry) -> MirroredTool:
    files = {}
    for source in sorted(path for part in (entry.folder / "bin", entry.assets) for path in part.rglob("*")):
        if not source.is_file():
            continue
        with source.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if source == entry.binary and digest != entry.facts.sha256:
            raise TestbedError(
                f"{tool.name} in the cache is damaged",
                why=f"{source} has sha256 {digest}, its build had {entry.facts.sha256}",
                fix=f"`testbed tools clean {tool.name}`, then build it again",
            )
        files[source.relative_to(entry.folder).as_posix()] = MirroredFile(sha256=digest, size=source.stat().st_size)
        target = folder / "files" / digest
        if not target.exists() or target.stat().st_size != source.stat().st_size:
            part = target.with_suffix(".part")
            shutil.copyfile(source, part)
            part.replace(target)
    facts = entry.facts
    return MirroredTool(
        name=tool.name,
        version=tool.version,
        lock=facts.lock,
        platform=PLATFORM,
        go=facts.go,
        seconds=facts.seconds,
        files=files,
    )


def _write(path: Path, content: bytes) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)
