from __future__ import annotations

import pytest

from testbed.percentile import percentile


@pytest.mark.parametrize(
    ("samples", "percent", "value"),
    [
        ([4.0], 99, 4.0),
        ([3.0, 1.0, 2.0, 4.0], 50, 2.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
        ([float(n) for n in range(1, 101)], 100, 100.0),
        ([2.0, 1.0], 0, 1.0),
    ],
)
def test_the_nearest_rank(samples: list[float], percent: float, value: float) -> None:
    assert percentile(samples, percent) == value


@pytest.mark.parametrize(("samples", "percent"), [([], 50), ([1.0], 101), ([1.0], -1)])
def test_what_has_no_percentile_is_refused(samples: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(samples, percent)
