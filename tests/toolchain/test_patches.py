"""Patches change a copy, exactly where they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.toolchain.lock import load_lock
from testbed.toolchain.patches import Patch, patched

PATCH = Patch(file="pkg/listen.go", old='"0.0.0.0:%d"', new='"127.0.0.1:%d"', why="loopback only")


@pytest.fixture
def module(tmp_path: Path) -> Path:
    folder = tmp_path / "cache" / "example.com" / "tool@v1.2.3"
    (folder / "pkg").mkdir(parents=True)
    (folder / "pkg" / "listen.go").write_text('address := "0.0.0.0:%d"\n')
    (folder / "go.mod").write_text("module example.com/tool\n")
    (folder / "pkg" / "listen.go").chmod(0o444)
    (folder / "pkg").chmod(0o555)
    folder.chmod(0o555)
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock" / "go.mod").write_text("module lock\n\nrequire example.com/tool v1.2.3\n")
    (tmp_path / "lock" / "go.sum").write_text("sum\n")
    (tmp_path / "scratch").mkdir()
    return folder


def test_a_copy_is_changed_and_replaces_the_module(module: Path, tmp_path: Path) -> None:
    modfile = patched([PATCH], "example.com/tool", module, tmp_path / "lock", tmp_path / "scratch")
    copy = tmp_path / "scratch" / "module"
    assert modfile.read_text().endswith(f"replace example.com/tool => {copy}\n")
    assert modfile.with_suffix(".sum").read_text() == "sum\n"
    assert (copy / "pkg" / "listen.go").read_text() == 'address := "127.0.0.1:%d"\n'
    assert "0.0.0.0" in (module / "pkg" / "listen.go").read_text()  # noqa: S104 - the cache stays as it is


def test_a_patch_that_does_not_fit_is_refused(module: Path, tmp_path: Path) -> None:
    other = PATCH.model_copy(update={"old": "nowhere"})
    with pytest.raises(UsageError, match="does not fit"):
        patched([other], "example.com/tool", module, tmp_path / "lock", tmp_path / "scratch")


def test_a_patch_changes_what_the_tool_is() -> None:
    tool = load_lock()["argocd"]
    assert tool.digest() != tool.model_copy(update={"patches": []}).digest()
