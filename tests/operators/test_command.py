"""The operators' command line: bad input is told, with exit code 2, before anything is started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--webhook-listen", "9443", "tenant-workspace"], "give HOST:PORT"),
        (["--metrics-listen", "127.0.0.1:99999", "tenant-workspace"], "no address to listen on"),
        (["--webhook-certificate", "{config}", "canary-policy"], "give both"),
        (["--config", "{config}", "tenant-workspace"], "maximumQuotas"),
        (["--config", "/nowhere.yaml", "tenant-workspace"], "does not exist"),
        (["--lease-seconds", "0", "tenant-workspace"], "lease-seconds"),
        (["tenant"], "No such command"),
    ],
)
def test_refused(tmp_path: Path, arguments: list[str], words: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("maximumQuotas: {cpu: 1}\n")
    result = subprocess.run(
        [sys.executable, "-m", "testbed.operators", *(part.format(config=config) for part in arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin", "TERM": "dumb", "COLUMNS": "200", "NO_COLOR": "1"},
    )
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
