"""pytest-xdist's workers: how tests are dealt out to them, and that those of a lane stay together.

Two things are in the way of `-n 2` keeping lanes together:

- A worker sees the command line, and not what a plugin made of it in the controller: that `-n` alone means
  `--dist=loadgroup` here. So the controller tells it.
- A worker tells the controller of a group by the end of a test's node id, `@group`; xdist 3.8 writes it where pytest
  looks no more since 9.2 (pytest-dev/pytest-xdist#1386), and then no test has a group.
"""

from __future__ import annotations

from typing import Any

import pytest

GROUPED = "loadgroup"
TOLD = "testbed_dist"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """In the controller: tell a worker."""
    node.workerinput[TOLD] = node.config.option.dist


def pytest_configure(config: pytest.Config) -> None:
    """In a worker: heed it."""
    if _told(config).get(TOLD) == GROUPED:
        config.option.loadgroup = True


@pytest.hookimpl(trylast=True)  # after xdist
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker: write groups where pytest looks, if xdist did not."""
    if _told(config).get(TOLD) != GROUPED:
        return
    for item in items:
        groups = sorted({str(mark.args[0]) for mark in item.iter_markers("xdist_group") if mark.args})
        named = f"{item.nodeid}@{'_'.join(groups)}"
        if groups and "@" not in item.nodeid.rpartition("]")[2] and (node_id := getattr(item, "id", None)) is not None:
            setattr(item, "_id", type(node_id).parse(named))  # noqa: B010 (pytest has no other way)


def spread(config: pytest.Config) -> str:
    """The --dist that deals tests of one lane out to several workers; empty where each lane has one."""
    told = _told(config)
    dist = str(told.get(TOLD, ""))
    return dist if told.get("workercount", 1) > 1 and dist != GROUPED else ""


def _told(config: pytest.Config) -> dict[str, Any]:
    """Empty outside of workers."""
    return getattr(config, "workerinput", {})
