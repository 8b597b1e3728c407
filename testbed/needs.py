"""What scenarios need of the platform: add-ons, capabilities of the backend, further clusters."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import pytest

from testbed.addons import ADDONS, addon_classes
from testbed.cluster import CAPABILITIES, ClusterSpec
from testbed.config import PlatformSpec

DOCUMENTATION = (
    "needs(*names, clusters=(), only=()): what a scenario needs. Names are add-ons "
    f"({', '.join(ADDONS)}) or capabilities of the backend ({', '.join(CAPABILITIES)}); "
    "`clusters` are names of clusters beside the first, with the add-ons that are not for the hub alone; with `only` "
    "the add-ons of this marker are on these of them and nowhere else"
)


def names(item: pytest.Item) -> set[str]:
    """The add-ons and capabilities that a test needs.

    Raises:
        pytest.UsageError: A name is neither.
    """
    wanted = {str(name) for marker in item.iter_markers("needs") for name in marker.args}
    known = [*ADDONS, *CAPABILITIES]
    for name in wanted:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise pytest.UsageError(f"{item.nodeid}: needs {name!r}, which is no add-on and no capability; {hint}")
    return wanted


def addons_of(items: Iterable[pytest.Item], configured: Iterable[str], cluster: str | None = None) -> list[str]:
    """The add-ons that these tests need on a cluster, in the order of the configuration and then by name.

    `cluster` is the name of one beside the first; without it, it is the first.
    """
    wanted = {
        str(name)
        for item in items
        for marker in item.iter_markers("needs")
        for name in marker.args
        if name in ADDONS and (not (only := marker.kwargs.get("only", ())) or cluster in only)
    }
    first = [name for name in configured if name in wanted]
    return first + sorted(wanted - set(first))


def clusters_of(items: Iterable[pytest.Item], spec: PlatformSpec) -> list[ClusterSpec]:
    """The first configured cluster and those that tests ask for by name; as configured where they are configured."""
    configured = {cluster.name: cluster for cluster in spec.clusters}
    items = list(items)
    first = spec.clusters[0]
    extra = [
        configured.get(name)
        or first.model_copy(update={"name": name, "api_port": None, "addons": _addons_beside(items, name)})
        for name in sorted(_clusters_asked(items))
    ]
    return [first, *(cluster for cluster in extra if cluster.name != first.name)]


def _clusters_asked(items: Iterable[pytest.Item]) -> set[str]:
    return {
        str(name)
        for item in items
        for marker in item.iter_markers("needs")
        for name in (*marker.kwargs.get("clusters", ()), *marker.kwargs.get("only", ()))
    }


def _addons_beside(items: Iterable[pytest.Item], cluster: str) -> list[str]:
    """The add-ons that a cluster beside the first gets: what the tests that ask for it need there."""
    asking = [
        item
        for item in items
        if any(
            cluster in (*marker.kwargs.get("clusters", ()), *marker.kwargs.get("only", ()))
            for marker in item.iter_markers("needs")
        )
    ]
    return [
        name for name in addons_of(asking, (), cluster) if not ADDONS[name].hub_only and name not in _acted_on(asking)
    ]


def _acted_on(items: Iterable[pytest.Item]) -> set[str]:
    return {name for addon in addons_of(items, ()) for name in ADDONS[addon].acts_on}


def unmet(item: pytest.Item, spec: PlatformSpec) -> str:
    """Why this test cannot run on the platform; empty when it can."""
    lacking = spec.lacks(names(item))
    if not lacking:
        return ""
    explained = "; ".join(f"{name} ({CAPABILITIES[name]})" for name in sorted(lacking))
    return f"the backend {spec.backend!r} lacks what the scenario needs: {explained}"


def missing(item: pytest.Item, spec: PlatformSpec) -> str:
    """Why this test cannot run on a platform that is there already; empty when it can."""
    if reason := unmet(item, spec):
        return reason
    first, *others = spec.clusters
    wanted = {first.name: addons_of([item], ())}
    wanted |= {name: _addons_beside([item], name) for name in _clusters_asked([item]) - {first.name}}
    there = {
        one.name: {addon.name for addon in addon_classes(spec.addons_of(one)) if one is first or not addon.hub_only}
        for one in (first, *others)
    }
    if away := sorted(wanted.keys() - there.keys()):
        return f"the platform has no cluster {' and no '.join(away)}"
    lacking = [f"{name} on {cluster}" for cluster in wanted for name in wanted[cluster] if name not in there[cluster]]
    return f"the platform has no {', no '.join(lacking)}" if lacking else ""
