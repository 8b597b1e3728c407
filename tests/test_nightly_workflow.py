"""The nightly workflow runs what tox.ini has, and nothing in it is without a limit or a pinned version."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    found: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/nightly.yml").read_text())
    return {"on" if key is True else key: value for key, value in found.items()}  # YAML 1.1 reads `on` as true


@pytest.fixture(scope="module")
def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def environments() -> tuple[set[str], set[str]]:
    """tox's own list, and every environment that a line of its commands is for."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "tox.ini")
    listed = {name.strip() for name in config["tox"]["env_list"].split(",")}
    return listed, set(re.findall(r"^\s*([a-z]+): ", config["testenv"]["commands"], re.M))


def test_it_runs_every_environment_of_tox_and_the_nightly_one(steps: list[dict[str, Any]]) -> None:
    listed, known = environments()
    run = [
        name
        for step in steps
        for names in re.findall(r"\btox run -e (\S+)", step.get("run", ""))
        for name in names.split(",")
    ]
    assert sorted(run) == sorted({*listed, "nightly"})
    assert set(run) <= known


def test_it_is_started_by_the_clock_and_by_hand_and_may_only_read(workflow: dict[str, Any]) -> None:
    assert workflow["on"].keys() == {"schedule", "workflow_dispatch"}
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    assert all(0 < job["timeout-minutes"] <= 360 for job in workflow["jobs"].values())


def test_actions_are_pinned_to_a_major_version(steps: list[dict[str, Any]]) -> None:
    used = [step["uses"] for step in steps if "uses" in step]
    assert [name for name in used if not re.fullmatch(r"actions/[a-z/-]+@v\d+", name)] == []


def test_every_job_keeps_its_report_whatever_happened(workflow: dict[str, Any]) -> None:
    for job in workflow["jobs"].values():
        (upload,) = [step for step in job["steps"] if step.get("uses", "").startswith("actions/upload-artifact@")]
        assert upload["if"] == "always()"
        assert (upload["with"]["path"], upload["with"]["include-hidden-files"]) == (".testbed", True)
        written = [word for step in job["steps"] for word in re.findall(r"--junit-xml=(\S+)", step.get("run", ""))]
        assert written
        assert {Path(path).parent for path in written} == {Path(".testbed")}


def test_caches_are_keyed_by_what_is_built(steps: list[dict[str, Any]]) -> None:
    keys = [step["with"]["key"] for step in steps if step.get("uses", "").startswith("actions/cache/restore@")]
    assert len(keys) == 3
    assert all("hashFiles('testbed/toolchain/**')" in key for key in keys)
