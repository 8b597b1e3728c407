"""Finding scenarios by name: `gatekeeper-killed` is scenarios/test_gatekeeper_killed.py."""

from __future__ import annotations

import ast
from difflib import get_close_matches
from pathlib import Path

from testbed.errors import UsageError

FOLDER = Path("scenarios")


def _files() -> dict[str, Path]:
    return {path.stem.removeprefix("test_").replace("_", "-"): path for path in sorted(FOLDER.rglob("test_*.py"))}


def catalogue() -> dict[str, str]:
    """The name of every scenario file, and what it says it is.

    Raises:
        UsageError: There is no folder of scenarios here.
    """
    if not FOLDER.is_dir():
        raise UsageError(f"there is no folder {FOLDER}/ here", fix="change to the repository that holds your scenarios")
    return {
        name: (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0] for name, path in _files().items()
    }


def find(wanted: list[str]) -> list[str]:
    """What pytest is to run for names, files or node ids; all scenarios for none.

    Raises:
        UsageError: One is unknown; the message suggests the nearest.
    """
    if not wanted:
        catalogue()
        return [str(FOLDER)]
    return [_find(one) for one in wanted]


def _find(one: str) -> str:
    path, separator, inside = one.partition("::")
    if Path(path).exists():
        return one
    files = _files()
    if path in files:
        return f"{files[path]}{separator}{inside}"
    stem = Path(path).stem.removeprefix("test_").replace("_", "-")
    near = get_close_matches(stem, files, n=1)
    raise UsageError(
        f"there is no scenario {path}",
        why=f"did you mean {near[0]!r}?" if near else "it is neither a file nor the name of one",
        fix=f"use one of: {', '.join(files) or '(there is none here)'}",
    )
