"""Lanes: scenarios of one lane share a platform; scenarios of different lanes do not meet.

An add-on that is never at rest (Flagger with its load, Argo CD with its clusters) has a lane of its own: others
neither wait for it nor are slowed down by it. Under pytest-xdist lanes run side by side, each in one worker.
"""

from __future__ import annotations

import pytest

from testbed import needs
from testbed.addons import ADDONS, addon_classes

CORE = "core"
AWS = "aws"
"""Of what needs the seven accounts and no cluster."""


def lane_of(item: pytest.Item | pytest.Function, fixtures: list[str] | None = None) -> str | None:
    """The lane of a test: that of the last of its add-ons which has one; None for a test without a platform.

    Args:
        item: A collected test, or the definition of one.
        fixtures: Names of all fixtures that it uses; `item`'s own by default.
    """
    used = getattr(item, "fixturenames", []) if fixtures is None else fixtures
    if "platform" not in used:
        return AWS if "aws" in used else None
    wanted = sorted(needs.names(item) & ADDONS.keys(), key=list(ADDONS).index)
    lanes = [addon.lane for addon in addon_classes(wanted) if addon.lane != CORE]
    return lanes[-1] if lanes else CORE


def group_for_xdist(items: list[pytest.Item]) -> None:
    """Keep each lane in one worker (`--dist=loadgroup`, the default where `-n` is given)."""
    for item in items:
        if (lane := lane_of(item)) is not None:
            item.add_marker(pytest.mark.xdist_group(lane))
