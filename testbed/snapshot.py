"""Snapshots: what the clusters of an installed platform store, kept so that the next start need not install it again.

A snapshot holds etcd's data, no key and no certificate: a restored cluster makes its own. Its key covers all that
decides what is stored (tools, manifests, add-ons, nodes, the code that installs), so a stale one is never found.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

import testbed
from testbed.cluster import ClusterSpec
from testbed.paths import manifests
from testbed.toolchain import Toolchain

KEPT = 8
"""Snapshots that are kept; the least recently used ones go."""
CODE = ("addons", "cluster", "gitops", "operators", "workloads")
"""Packages whose code decides what a platform stores."""


class Snapshots:
    """The snapshots in the cache of the toolchain, one a kind of cluster."""

    def __init__(self, toolchain: Toolchain) -> None:
        self._toolchain = toolchain
        self.folder = toolchain.cache / "snapshots"

    def key(self, cluster: ClusterSpec, addons: Iterable[str], tools: Iterable[str]) -> str:
        """Names the snapshot of a cluster with add-ons. Clusters that differ only by name or port share it."""
        digest = hashlib.sha256()
        digest.update(cluster.model_dump_json(exclude={"name", "api_port", "context", "addons"}).encode())
        digest.update("\0".join(sorted(addons)).encode())
        for tool in self._toolchain.find(tools):
            digest.update(f"\0{tool.name} {tool.digest()}".encode())
        package = Path(testbed.__file__).parent
        sources = [path for name in CODE for path in (package / name).rglob("*.py")]
        for path in sorted([*sources, *manifests().rglob("*.yaml")]):
            digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
        return digest.hexdigest()[:24]

    def find(self, key: str) -> Path | None:
        """The folder of a snapshot, or None."""
        folder = self.folder / key
        if not folder.is_dir():
            return None
        os.utime(folder)
        return folder

    def new(self, key: str) -> Path:
        """A path that does not exist yet, for `Cluster.save`; then `commit` it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.folder / f"{key}.{os.getpid()}-{time.monotonic_ns()}.part"

    def commit(self, key: str, part: Path) -> None:
        """Make a saved snapshot the one of its key, unless another process was first."""
        with FileLock(self.folder / "lock"):
            if (self.folder / key).exists():
                shutil.rmtree(part)
                return
            part.rename(self.folder / key)
            complete = [path for path in self.folder.iterdir() if path.is_dir() and path.suffix != ".part"]
            for old in sorted(complete, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
                shutil.rmtree(old, ignore_errors=True)
            for left in self.folder.glob("*.part"):  # of a process that was killed while it saved
                if time.time() - left.stat().st_mtime > 600:
                    shutil.rmtree(left, ignore_errors=True)

    def discard(self, key: str) -> None:
        """Remove a snapshot that did not start."""
        shutil.rmtree(self.folder / key, ignore_errors=True)
