"""Building some of the parts of a program that registers all of its parts in generated files.

A part that is not registered is not compiled: Go compiles what is imported. Upstream's two generated files are made
shorter, nothing else is changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from testbed.errors import UsageError

CALL = re.compile(r"\.(\w+Client)\(")


class Parts(BaseModel):
    """Which parts, and where the generated files are; paths are below the module's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str
    """Each folder in it is a part."""
    keep: list[str]
    """Names of the parts that are wanted."""
    registry: str
    """The file that imports every part and lists it, a line each."""
    clients: str
    """The file with a function for each client of a part; those that no code calls any more go."""


def shortened(parts: Parts, module: Path) -> dict[str, str]:
    """The generated files, by their paths, as they are when only the wanted parts are registered.

    Raises:
        UsageError: A part does not exist, or a file is not of the shape that is expected.
    """
    if missing := [name for name in parts.keep if not (module / parts.folder / name).is_dir()]:
        raise UsageError(f"there is no part {', '.join(missing)} below {parts.folder}", fix="correct tools.toml")
    return {
        parts.registry: _registry((module / parts.registry).read_text(), parts),
        parts.clients: _clients((module / parts.clients).read_text(), _called(module, parts)),
    }


def _registry(source: str, parts: Parts) -> str:
    """The registry with the lines of the wanted parts only."""
    found = set(re.findall(rf'^\t"\S+/{parts.folder}/(\w+)"$', source, re.M))
    if not set(parts.keep) <= found:
        raise UsageError(f"{parts.registry} does not register every wanted part", fix="correct tools.toml")
    dropped = found - set(parts.keep)
    return "".join(
        line
        for line in source.splitlines(keepends=True)
        if not (match := re.match(rf'\t+(?:"\S+/{parts.folder}/(\w+)"$|(\w+)\.)', line))
        or (match[1] or match[2]) not in dropped
    )


def _called(module: Path, parts: Parts) -> set[str]:
    """Names of the clients that the wanted parts, the parts that those import, and the rest of the program call."""
    root = module / parts.folder
    rest = [folder for folder in (module / "internal").iterdir() if folder not in {root, module / "internal/generate"}]
    called = {name for folder in rest for text in _texts(folder) for name in CALL.findall(text)}
    todo, seen = list(parts.keep), set[str]()
    while todo:
        seen.add(name := todo.pop())
        for text in _texts(root / name):
            called |= set(CALL.findall(text))
            todo += set(re.findall(rf'"\S+/{parts.folder}/(\w+)"', text)) - seen
    return called


def _texts(folder: Path) -> Iterator[str]:
    return (path.read_text() for path in folder.rglob("*.go") if not path.name.endswith("_test.go"))


def _clients(source: str, called: set[str]) -> str:
    """The file without the functions that nobody calls and without the imports that only those used."""
    function = re.compile(r"^func \(\w+ \*\w+\) (\w+Client)\(.*?^}\n\n?", re.M | re.S)
    kept = function.sub(lambda match: match[0] if match[1] in called else "", source)

    def used(match: re.Match[str]) -> str:
        name = match[1] or match[2].rsplit("/", 1)[-1]
        return match[0] if re.search(rf"\b{re.escape(name)}\.", kept) else ""

    return re.sub(r'^\t(?:(\w+) )?"(\S+)"\n', used, kept, flags=re.M)
