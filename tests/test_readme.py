"""What the README says of guards and scenarios is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTION = "## Write a scenario for yesterday's outage"
WRITE = (ROOT / "README.md").read_text().partition(f"{SECTION}\n")[2].partition("\n## ")[0]


def rows() -> list[list[str]]:
    """The rows of the table of guards, as the code in them: guards, then module, then scenario."""
    lines = [line for line in WRITE.splitlines() if line.startswith("| ")]
    return [re.findall("`([^`]+)`", line) for line in lines[2:]]


def test_the_table_of_guards_has_rows() -> None:
    assert len(rows()) >= 12


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_guards_and_scenarios_of_the_table_are_there(row: list[str]) -> None:
    *guards, module, scenario = row
    assert guards
    found = importlib.import_module(f"testbed.{module.removesuffix('.py').replace('/', '.')}")
    used = (ROOT / "scenarios" / scenario).read_text()
    for guard in guards:
        assert callable(getattr(found, guard).removed), guard
        assert f"{guard}(" in used, f"{scenario} has no {guard}"


def test_the_example_can_be_imported() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", WRITE, re.DOTALL)
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102 - our own README
    (test,) = (name for name in names if name.startswith("test_"))
    assert callable(names[test])
