"""Which scenarios share a platform."""

from __future__ import annotations

import pytest

from testbed.addons.gatekeeper import Gatekeeper
from testbed.lanes import lane_of

FILE = """
import pytest

@pytest.mark.needs("gatekeeper")
def test_gatekeeper(platform): ...

@pytest.mark.needs("prometheus")
def test_prometheus(platform, guard): ...

def test_accounts(aws): ...

def test_nothing(): ...
"""


def test_an_add_on_may_have_a_lane_of_its_own(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gatekeeper, "lane", "busy")
    items, _ = pytester.inline_genitems(pytester.makepyfile(FILE), "-p", "no:cacheprovider")
    assert [(item.name, lane_of(item)) for item in items] == [
        ("test_gatekeeper", "busy"),
        ("test_prometheus", "core"),
        ("test_accounts", "aws"),
        ("test_nothing", None),
    ]
    groups = [[mark.args[0] for mark in item.iter_markers("xdist_group")] for item in items]
    assert groups == [["busy"], ["core"], ["aws"], []]
