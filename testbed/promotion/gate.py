"""The health gate: Prometheus is asked how an environment was during the last minutes."""

from __future__ import annotations

import math
from typing import Any, Protocol

import requests

from testbed.promotion.config import Check, Settings
from testbed.promotion.releases import Verdict

TIMEOUT = 5.0


class GatePort(Protocol):
    """What decides whether an environment was well."""

    def verdict(self, service: str, environment: str, since: float, now: float) -> Verdict:
        """Whether it was well for the whole window before `now`, with the present release since `since`."""


class PrometheusGate:
    """Every check within its limits at every step of the window, on the release that runs now.

    The window is read from Prometheus each time, so a promoter that was away has missed nothing. No data is not health:
    an environment of which Prometheus knows nothing stays where it is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._gate = settings.gate
        self._http = requests.Session()
        self._http.trust_env = False  # no proxy of the user's

    def verdict(self, service: str, environment: str, since: float, now: float) -> Verdict:
        """See `GatePort`. A Prometheus that does not answer keeps the gate closed."""
        window = self._settings.gate_seconds
        if now - since < window:
            return Verdict(False, f"healthy for {max(0.0, now - since):.1f} s of {window:g} s")
        try:
            for check in self._gate.checks:
                if why := self._fails(check, service, environment, now - window, now):
                    return Verdict(False, f"{check.name}: {why}")
        except (requests.RequestException, KeyError, ValueError) as error:
            return Verdict(False, f"Prometheus did not answer: {error}")
        return Verdict(True, f"healthy for {window:g} s, {len(self._gate.checks)} checks")

    def _fails(self, check: Check, service: str, environment: str, start: float, end: float) -> str:
        query = (
            check.query.replace("{service}", service)
            .replace("{environment}", environment)
            .replace("{range}", self._settings.range)
        )
        # As often as is scraped, and at least twice: at both ends.
        step = min(self._gate.step_seconds, end - start)
        parameters: dict[str, str | float] = {"query": query, "start": start, "end": end, "step": step}
        url = f"{self._gate.prometheus[environment]}/api/v1/query_range"
        answer = self._http.get(url, params=parameters, timeout=TIMEOUT)
        body: dict[str, Any] = answer.json()
        if body["status"] != "success":
            raise ValueError(body.get("error", "no reason given"))
        series = body["data"]["result"]
        if not series:
            return "no data"
        expected = math.floor((end - start) / step) + 1
        for entry in series:
            values = [float(value) for _, value in entry["values"]]
            if len(values) < expected or any(math.isnan(value) for value in values):
                return f"data for {sum(not math.isnan(value) for value in values)} of {expected} looks"
            if check.minimum is not None and min(values) < check.minimum:
                return f"{min(values):.4g}, at least {check.minimum:g} is asked for"
            if check.maximum is not None and max(values) > check.maximum:
                return f"{max(values):.4g}, at most {check.maximum:g} is allowed"
        return ""


class NoGate:
    """Always open: the gate of a negative control."""

    def verdict(self, service: str, environment: str, since: float, now: float) -> Verdict:
        """Open."""
        return Verdict(True, "no gate")
