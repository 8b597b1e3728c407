"""`down` on a cluster of somebody else's, for a platform that another version of testbed started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from testbed.addons import Gatekeeper
from testbed.config import PlatformSpec
from testbed.errors import TestbedError, UsageError
from testbed.platform import Platform
from testbed.supervisor import Supervisor
from testbed.teardown import HAND_OVER, runs_on_existing
from testbed.toolchain import Toolchain


@pytest.fixture
def uninstalled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The add-ons that were taken away."""
    found: list[str] = []
    monkeypatch.setattr(Gatekeeper, "uninstall", lambda self: found.append(self.name))
    return found


def left_by_another_version(folder: Path, **changes: Any) -> Path:
    spec = PlatformSpec(backend="existing").model_dump(mode="json") | changes
    folder.mkdir()
    content = {"version": "0.0.1", "spec": spec, "timings": {}, "warm": False}
    (folder / HAND_OVER).write_text(json.dumps(content))
    assert runs_on_existing(folder)
    return folder


def test_its_add_ons_leave_the_cluster(tmp_path: Path, uninstalled: list[str]) -> None:
    folder = left_by_another_version(tmp_path / "kept-default")
    with pytest.raises(UsageError, match="of another version"):
        Platform._handed_over(Supervisor(folder), Toolchain())
    Platform.take_away(folder, Toolchain())
    assert uninstalled == ["gatekeeper"]
    assert not folder.exists()


@pytest.mark.parametrize("changes", [{"moons": 3}, {"addons": ["gone-since"]}], ids=["field", "add-on"])
def test_what_this_version_does_not_know_is_told_and_the_rest_is_stopped(
    tmp_path: Path, uninstalled: list[str], changes: dict[str, Any]
) -> None:
    folder = left_by_another_version(tmp_path / "kept-default", **changes)
    with pytest.raises(TestbedError, match="its add-ons are still on the cluster"):
        Platform.take_away(folder, Toolchain())
    assert uninstalled == []
    assert not folder.exists()
