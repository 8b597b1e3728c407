"""Every binary that a run needs: pinned as a Go module, built once, kept in a cache."""

from testbed.toolchain.build import BuildListener, Toolchain, ToolStatus
from testbed.toolchain.lock import LOCK, Tool, load_lock

__all__ = ["LOCK", "BuildListener", "Tool", "ToolStatus", "Toolchain", "load_lock"]
