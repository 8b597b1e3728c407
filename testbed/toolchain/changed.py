"""Building from a changed copy of a tool's own module, where upstream's source has no flag for what is needed.

What the proxy serves and go.sum pins is checked and stays as it is; a copy of it is changed and built.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from testbed.errors import UsageError
from testbed.toolchain.parts import Parts, shortened

LEFT_OUT = ("*_test.go", "testdata", "test-fixtures", "docs", "website")
"""Of the copy: what no build reads."""


class Patch(BaseModel):
    """One replacement in one file of the tool's own module."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    """Path below the module's folder."""
    old: str
    """What is replaced; it stands in the file exactly once, else the build fails."""
    new: str
    why: str


def changed_module(
    module: Path, lock: Path, name: str, patches: list[Patch], parts: Parts | None, scratch: Path
) -> Path:
    """Copy a module, change the copy, and write a go.mod that has it built; returns that, for `go build -modfile`.

    Args:
        module: The module's folder in the module cache.
        lock: The folder of the lock's go.mod and go.sum.
        name: The path of the module.
        patches: What to replace.
        parts: What to build of a program of many parts; None for all.
        scratch: A folder for the result; the caller removes it after the build.

    Raises:
        UsageError: The source is not as a patch or the parts expect it.
    """
    copy = scratch / "module"
    changed = {path: text for patch in patches for path, text in [_patched(module, patch)]}
    if parts is not None:
        changed |= shortened(parts, module)
    # Contents alone: the module cache is read-only, its copy must not be.
    shutil.copytree(module, copy, ignore=shutil.ignore_patterns(*LEFT_OUT), copy_function=shutil.copyfile)
    for folder in [copy, *(path for path in copy.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)
    for path, text in changed.items():
        (copy / path).write_text(text)
    modfile = scratch / "changed.mod"
    modfile.write_text(_go_mod((lock / "go.mod").read_text(), name, copy))
    shutil.copyfile(lock / "go.sum", modfile.with_suffix(".sum"))
    return modfile


def _patched(module: Path, patch: Patch) -> tuple[str, str]:
    path = module / patch.file
    text = path.read_text() if path.is_file() else ""
    if (found := text.count(patch.old)) != 1:
        raise UsageError(
            f"the patch of {patch.file} does not fit",
            why=f"{patch.old!r} stands in it {found} times, not once",
            fix="correct the patch in tools.toml: it belongs to another version",
        )
    return patch.file, text.replace(patch.old, patch.new)


def _go_mod(text: str, name: str, copy: Path) -> str:
    """The go.mod with the module replaced by the copy; of `replace A => name v1` it is A that is replaced anew."""
    replaced = re.search(rf"^replace (\S+) => {re.escape(name)} \S+\n?", text, re.M)
    kept = text if replaced is None else text.replace(replaced[0], "")
    return f"{kept}\nreplace {name if replaced is None else replaced[1]} => {copy}\n"
