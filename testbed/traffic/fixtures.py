"""The fixture of traffic scenarios."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

import pytest

from testbed.platform import Platform
from testbed.traffic.split import Split


@pytest.fixture
def split(platform: Platform, cost_tags: dict[str, str]) -> Iterator[Split]:
    """Two releases of a service behind one route, in a namespace of their own that is deleted afterwards."""
    name = f"traffic-{uuid.uuid4().hex[:8]}"
    kube = platform.cluster.client()
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": cost_tags}})
    found = Split(platform, name)
    try:
        found.start()
        yield found
    finally:
        with contextlib.suppress(Exception):  # a control may have left the API server down
            kube.delete("Namespace", name)
