"""The time scale of canary analyses: the platform's minutes, shortened as far as Flagger lets them be."""

from __future__ import annotations

import math

from testbed.addons.flagger import SHORTEST_INTERVAL
from testbed.operators.canary.children import MAXIMUM_WEIGHT
from testbed.operators.config import CanaryConfig


def analysis_scale(time_scale: float) -> float:
    """By what the windows of an analysis are divided: the declared scale, or less.

    Flagger looks at a canary every 10 s at most. The platform's step of 120 s can so be a twelfth, and no less.
    """
    normal = CanaryConfig()
    step = normal.minimumWindow * normal.stepWeight / MAXIMUM_WEIGHT
    return max(1.0, min(time_scale, step / SHORTEST_INTERVAL))


def scaled_windows(time_scale: float) -> dict[str, int]:
    """The operator's settings that are times, in whole seconds, for a declared scale."""
    normal, scale = CanaryConfig(), analysis_scale(time_scale)
    return {
        "minimumWindow": math.ceil(normal.minimumWindow / scale),
        "minimumInterval": max(SHORTEST_INTERVAL, math.ceil(normal.minimumInterval / scale)),
        "progressDeadline": math.ceil(normal.progressDeadline / scale),
        "warmUp": math.ceil(normal.warmUp / scale),
    }
