"""Every binary that a run needs: pinned as a Go module, built once, kept in a cache, shared through a mirror."""

from testbed.toolchain.build import BuildListener, Toolchain, ToolStatus
from testbed.toolchain.lock import LOCK, Tool, load_lock
from testbed.toolchain.mirror import Mirror

__all__ = ["LOCK", "BuildListener", "Mirror", "Tool", "ToolStatus", "Toolchain", "load_lock"]
