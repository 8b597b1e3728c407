"""Which tools the scenarios need, by groups of scenarios: those that share a lane, and pipelines."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from testbed.addons import ADDONS, addon_classes
from testbed.aws.pipeline import CONFTEST
from testbed.config import BACKENDS, PlatformSpec
from testbed.lanes import AWS
from testbed.load.generator import TOOL as LOAD
from testbed.pipelines.fixtures import TOOLS as OF_PIPELINES

PLATFORM = "platform"
"""The configured platform, which comes first: what it needs is needed by all."""
PIPELINES = "pipelines"

Demands = Mapping[str, Collection[str]]
"""Tools by group."""


def demands(spec: PlatformSpec) -> dict[str, set[str]]:
    """What each group of scenarios needs on this configuration; groups that the backend cannot have are left out.

    Raises:
        UsageError: The configuration is wrong.
    """
    backend = BACKENDS[spec.backend]
    found: dict[str, set[str]] = {PLATFORM: set(spec.tools())}
    for addon in ADDONS.values():
        with_required = addon_classes([addon.name])
        if all(one.capabilities <= backend.capabilities for one in with_required):
            tools = {tool for one in with_required for tool in one.tools}
            found.setdefault(addon.lane, set(backend.tools)).update(tools)
    for tools in found.values():
        if "flagger" in tools and "podinfo" in tools:  # releases under load
            tools.add(LOAD)
    found[AWS] = {*spec.infra_cloud.tools(), CONFTEST}
    found[PIPELINES] = {*found[AWS], *OF_PIPELINES}
    return found


def needing(wanted: Demands, tools: Collection[str]) -> list[str]:
    """The groups that need any of these tools; none where all do, for the platform itself does."""
    groups = [group for group, needed in wanted.items() if set(needed) & set(tools)]
    return [] if PLATFORM in groups else groups


Blocked = list[str] | None
"""Groups of scenarios that something would block, all of them by an empty list; None where it blocks none."""


def blocked_without(wanted: Demands, tools: Collection[str]) -> Blocked:
    """Whom it blocks when these tools are not to be had."""
    return needing(wanted, tools) if needed(wanted) & set(tools) else None


def on_three_clusters(wanted: Demands) -> list[str]:
    """The groups that run on three clusters with Argo CD."""
    return [group for group, tools in wanted.items() if "argocd" in tools and group != PLATFORM]


def needed(wanted: Demands) -> set[str]:
    """Every tool that a scenario needs."""
    return {tool for tools in wanted.values() for tool in tools}
