"""The one definition of a percentile that limits, benchmarks and reports share."""

from __future__ import annotations

import math
from collections.abc import Iterable


def percentile(samples: Iterable[float], percent: float) -> float:
    """The least of the samples that `percent` (0..100) of them do not exceed: the nearest rank, never interpolated.

    Raises:
        ValueError: There is no sample, or `percent` is out of range.
    """
    ordered = sorted(samples)
    if not ordered or not 0 <= percent <= 100:
        raise ValueError(f"no {percent}th percentile of {len(ordered)} samples")
    return ordered[max(1, math.ceil(percent / 100 * len(ordered))) - 1]
