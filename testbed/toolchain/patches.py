"""Small changes of upstream's source that a tool cannot do without. They stand in the lock, each with its reason.

What the proxy serves and go.sum pins is checked and stays as it is; a copy of it is changed and built.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from testbed.errors import UsageError


class Patch(BaseModel):
    """One replacement in one file of the tool's own module."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    """Path below the module's folder."""
    old: str
    """What is replaced; it must stand in the file exactly once."""
    new: str
    why: str


def patched(patches: list[Patch], name: str, module: Path, lock: Path, scratch: Path) -> Path:
    """Copy a module, change the copy, and write a go.mod that has it built; returns that, for `go build -modfile`.

    Args:
        patches: What to change.
        name: The path of the module.
        module: Its folder in the module cache.
        lock: The folder of the lock's go.mod and go.sum.
        scratch: A folder for the result; the caller removes it after the build.

    Raises:
        UsageError: A file does not hold what is to be replaced, or holds it more than once.
    """
    copy = scratch / "module"
    if not copy.exists():
        # Without permissions: the cache is read-only, and so would be the copy.
        shutil.copytree(module, copy, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns("docs", "*_test.go"))
        for folder in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
            folder.chmod(0o700)
        for patch in patches:
            path = copy / patch.file
            text = path.read_text()
            if (found := text.count(patch.old)) != 1:
                raise UsageError(
                    f"the patch of {patch.file} does not fit",
                    why=f"{patch.old!r} stands in it {found} times",
                    fix="correct the patch in tools.toml: it belongs to another version",
                )
            path.write_text(text.replace(patch.old, patch.new))
    modfile = scratch / "patched.mod"
    modfile.write_text(f"{(lock / 'go.mod').read_text()}\nreplace {name} => {copy}\n")
    shutil.copyfile(lock / "go.sum", modfile.with_suffix(".sum"))
    return modfile
