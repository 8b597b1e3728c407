"""Argo CD runs on the first cluster alone; the others get what is not for the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed import needs
from testbed.cluster import ClusterSpec
from testbed.config import PlatformSpec
from testbed.platform import Platform
from testbed.supervisor import Supervisor
from testbed.toolchain import Toolchain

pytest_plugins = ["pytester"]


def addons(spec: PlatformSpec, folder: Path) -> dict[str, set[str]]:
    platform = Platform(spec, Supervisor(folder), Toolchain())
    return {name: {addon.name for addon in found} for name, found in platform.addons.items()}


def test_the_hubs_addons_are_on_the_first_cluster_alone(tmp_path: Path) -> None:
    spec = PlatformSpec(clusters=[ClusterSpec(name="hub"), ClusterSpec(name="dev")], addons=["argo-cd", "gatekeeper"])
    found = addons(spec, tmp_path)
    assert found["hub"] == {"argo-cd", "git-server", "argo-cd-crds", "gatekeeper"}
    assert found["dev"] == {"argo-cd-crds", "gatekeeper"}


def test_a_cluster_may_have_addons_of_its_own(tmp_path: Path) -> None:
    bare = ClusterSpec(name="dev", addons=[])
    spec = PlatformSpec(clusters=[ClusterSpec(name="hub"), bare], addons=["gatekeeper"])
    assert addons(spec, tmp_path) == {"hub": {"gatekeeper"}, "dev": set()}
    assert "gatekeeper" in spec.tools()


def test_a_cluster_beside_the_first_gets_what_its_tests_need(pytester: pytest.Pytester) -> None:
    items = pytester.getitems(
        """
        import pytest

        @pytest.mark.needs("argo-cd", "prometheus")
        def test_one():
            pass

        @pytest.mark.needs("argo-cd", "gatekeeper", clusters=("staging",))
        def test_two():
            pass
        """
    )
    dev, staging = needs.clusters_of(items, PlatformSpec())
    assert (dev.name, dev.addons) == ("dev", None)
    assert (staging.name, staging.addons) == ("staging", ["gatekeeper"])


def test_an_addon_may_be_needed_on_one_cluster_only(pytester: pytest.Pytester) -> None:
    items = pytester.getitems(
        """
        import pytest

        pytestmark = pytest.mark.needs("argo-cd", "gatekeeper", clusters=("staging", "production"))

        @pytest.mark.needs("flagger", only=("production",))
        def test_one():
            pass
        """
    )
    assert needs.names(items[0]) == {"argo-cd", "gatekeeper", "flagger"}
    assert needs.addons_of(items, ()) == ["argo-cd", "gatekeeper"]
    dev, production, staging = needs.clusters_of(items, PlatformSpec())
    assert (dev.addons, staging.addons) == (None, ["gatekeeper"])
    assert (production.name, production.addons) == ("production", ["flagger", "gatekeeper"])
