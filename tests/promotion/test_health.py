"""What counts as healthy in Argo CD's own words."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.promotion.health import health

WELL: dict[str, Any] = {
    "sync": {"status": "Synced"},
    "health": {"status": "Healthy", "lastTransitionTime": "2026-01-01T10:00:05Z"},
    "history": [{"deployedAt": "2026-01-01T09:00:00Z"}, {"deployedAt": "2026-01-01T10:00:00Z"}],
    "summary": {"images": ["registry.example:5000/orders:1.1.0", "ghcr.io/side/car:3"]},
}


def of(status: dict[str, Any]) -> Any:
    return health({"metadata": {"name": "orders-dev"}, "status": status}, "1.1.0")


def test_healthy_since_the_later_of_deployment_and_recovery() -> None:
    found = of(WELL)
    assert (found.healthy, found.tag, found.since) == (True, "1.1.0", 1767261605.0)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"sync": {"status": "OutOfSync"}}, "orders-dev is OutOfSync"),
        ({"health": {"status": "Degraded", "message": "back-off"}}, "orders-dev is Degraded: back-off"),
        ({"summary": {"images": ["registry.example/orders:1.0.0"]}}, "orders-dev runs 1.0.0, not yet 1.1.0"),
        ({"summary": {}}, "orders-dev runs nothing, not yet 1.1.0"),
        ({"history": [], "health": {"status": "Healthy"}}, "orders-dev does not say since when it is healthy"),
    ],
)
def test_not_healthy(changed: dict[str, Any], why: str) -> None:
    found = of(WELL | changed)
    assert (found.healthy, found.why) == (False, why)
