"""Declared time scales: of alerts' routes and of canary analyses."""

from __future__ import annotations

import pytest

from testbed.addons.alertmanager import scaled_routes
from testbed.addons.analysis import analysis_scale, scaled_windows
from testbed.operators.config import CanaryConfig


def test_every_wait_of_every_route_is_divided() -> None:
    before = {"route": {"group_wait": "30s", "routes": [{"repeat_interval": "4h", "routes": [{"group_wait": "1s"}]}]}}
    after = scaled_routes(before, 60)["route"]
    assert after["group_wait"] == "500ms"
    assert after["routes"][0]["repeat_interval"] == "240000ms"
    assert after["routes"][0]["routes"][0]["group_wait"] == "100ms"
    assert before["route"]["group_wait"] == "30s"


@pytest.mark.parametrize(("declared", "applied"), [(60, 12), (12, 12), (4, 4), (1, 1)])
def test_flagger_bounds_the_scale_of_an_analysis(declared: float, applied: float) -> None:
    assert analysis_scale(declared) == applied


def test_scaled_windows_are_settings_of_the_operator() -> None:
    config = CanaryConfig(**scaled_windows(60))
    assert (config.minimumWindow, config.minimumInterval, config.warmUp) == (50, 10, 5)
    assert config.progressDeadline == 30
    unscaled = {"minimumWindow": 600, "minimumInterval": 30, "progressDeadline": 360, "warmUp": 60}
    assert scaled_windows(1) == unscaled
