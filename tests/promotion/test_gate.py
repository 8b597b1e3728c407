"""The gate reads a whole window from Prometheus; anything missing in it keeps it closed."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from testbed.promotion.config import Settings
from testbed.promotion.gate import PrometheusGate

NOW = 1_700_000_000.0


class Answer:
    def __init__(self, body: Any) -> None:
        self._body = body

    def json(self) -> Any:
        return self._body


def gate(settings: Settings, monkeypatch: pytest.MonkeyPatch, *series: list[float]) -> PrometheusGate:
    found = PrometheusGate(settings.model_copy(update={"time_scale": 60}))
    asked: list[dict[str, Any]] = []

    def get(url: str, params: dict[str, Any], timeout: float) -> Answer:
        asked.append(params)
        result = [{"metric": {}, "values": [[NOW, str(value)] for value in values]} for values in series]
        return Answer({"status": "success", "data": {"result": result}})

    monkeypatch.setattr(found._http, "get", get)
    return found


@pytest.mark.parametrize(
    ("series", "opened", "why"),
    [
        ([[1.0] * 6], True, "healthy for 5 s, 1 checks"),
        ([[1.0] * 5 + [0.0]], False, "up: 0, at least 1 is asked for"),
        ([[0.0] + [1.0] * 5], False, "up: 0, at least 1 is asked for"),
        ([[1.0] * 6, [0.5] * 6], False, "up: 0.5, at least 1 is asked for"),
        ([[1.0] * 5], False, "up: data for 5 of 6 looks"),
        ([[1.0] * 5 + [float("nan")]], False, "up: data for 5 of 6 looks"),
        ([], False, "up: no data"),
    ],
)
def test_verdict(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, series: list[list[float]], opened: bool, why: str
) -> None:
    verdict = gate(settings, monkeypatch, *series).verdict("orders", "dev", NOW - 5, NOW)
    assert (verdict.open, verdict.why) == (opened, why)


def test_not_long_enough(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = gate(settings, monkeypatch, [1.0] * 6).verdict("orders", "dev", NOW - 4.5, NOW)
    assert (verdict.open, verdict.why) == (False, "healthy for 4.5 s of 5 s")


def test_prometheus_away(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    found = PrometheusGate(settings)

    def get(*_: Any, **__: Any) -> None:
        raise requests.ConnectionError("refused")

    monkeypatch.setattr(found._http, "get", get)
    assert not found.verdict("orders", "dev", 0, NOW).open
