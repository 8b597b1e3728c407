"""Run the tests of what the platform's manifests say: `python -m testbed.policytests`.

The Gatekeeper policies by gator, the alert rules and the metric queries of canaries by promtool.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from testbed.addons.prometheus import RULES
from testbed.operators.canary.children import LATENCY, QUERIES, SUCCESS_RATE
from testbed.paths import manifests
from testbed.toolchain import Toolchain

BUCKET, COUNT = "http_request_duration_seconds_bucket", "http_request_duration_seconds_count"


def _series(metric: str, pod: str, growth: int, **labels: str) -> dict[str, str]:
    """A counter that grows by `growth` a minute for ten minutes."""
    given = {"namespace": "shop", "pod": pod, **labels}
    selector = ",".join(f'{name}="{value}"' for name, value in given.items())
    return {"series": f"{metric}{{{selector}}}", "values": f"0+{growth}x10"}


def canary_queries() -> dict[str, Any]:
    """A test for promtool: the queries see the canary's pods, and neither the primary's nor another service's."""
    canary, primary, other = "checkout-6c5d7-x2x9q", "checkout-primary-7f9c8-aaaaa", "checkout-api-11111-bbbbb"
    series = [
        # Of the canary's 100 requests a minute 98 are answered within 100 ms, all within 200 ms, 2 are errors.
        _series(BUCKET, canary, 98, le="0.1", path="root"),
        _series(BUCKET, canary, 100, le="0.2", path="root"),
        _series(BUCKET, canary, 100, le="+Inf", path="root"),
        _series(COUNT, canary, 98, status="200", path="root"),
        _series(COUNT, canary, 2, status="503", path="root"),
        *(_series(BUCKET, pod, 900, le="+Inf", path="root") for pod in (primary, other)),
        *(_series(COUNT, pod, 900, status="500", path="root") for pod in (primary, other)),
        # Scrapes and probes are quick and succeed, whatever becomes of requests.
        *(_series(BUCKET, canary, 600, le=le, path="metrics") for le in ("0.1", "0.2", "+Inf")),
        *(_series(COUNT, canary, 600, status="200", path=path) for path in ("metrics", "readyz", "healthz")),
        # A release that nobody has asked anything yet, and one that only fails.
        _series(COUNT, "idle-6c5d7-x2x9q", 600, status="200", path="metrics"),
        _series(COUNT, "broken-6c5d7-x2x9q", 60, status="500", path="root"),
    ]

    def filled_in(query: str, target: str) -> str:
        for name, value in {"{{ namespace }}": "shop", "{{ target }}": target, "{{ interval }}": "2m"}.items():
            query = query.replace(name, value)
        return query

    expected: list[tuple[str, str, int | None]] = [
        (LATENCY, "checkout", 150),
        (SUCCESS_RATE, "checkout", 98),
        (LATENCY, "idle", None),
        (SUCCESS_RATE, "idle", None),
        (SUCCESS_RATE, "broken", 0),
    ]
    checks = [
        {
            "expr": f"round({filled_in(QUERIES[name], target)}, 0.01)",
            "eval_time": "8m",
            "exp_samples": [] if value is None else [{"labels": "{}", "value": value}],
        }
        for name, target, value in expected
    ]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": checks}
    return {"evaluation_interval": "1m", "tests": [test]}


def run_all(commands: Sequence[Sequence[object]]) -> int:
    """Run every command, also after one that failed; returns 0 when all ended with 0 (a signal's code is negative)."""
    codes = [subprocess.run([str(part) for part in command], check=False).returncode for command in commands]
    return int(any(codes))


def main() -> int:
    """Run all of them; returns 0 when all pass."""
    tools = Toolchain().ensure(["gator", "promtool"])
    with tempfile.TemporaryDirectory() as folder:
        queries = Path(folder) / "canary-queries.yaml"
        queries.write_text(yaml.safe_dump(canary_queries()))
        rules = [path for folder in RULES for path in sorted(manifests(folder, "alerts").glob("*.yaml"))]
        rule_tests = [path for folder in RULES for path in sorted(manifests(folder, "tests").glob("*.yaml"))]
        commands: list[list[object]] = [
            [tools["gator"], "verify", f"{manifests('gatekeeper', 'tests')}/..."],
            [tools["promtool"], "check", "rules", *rules],
            [tools["promtool"], "test", "rules", *rule_tests, queries],
        ]
        return run_all(commands)


if __name__ == "__main__":
    sys.exit(main())
