"""Platform components that are installed on a cluster, one module each."""

from __future__ import annotations

from difflib import get_close_matches

from testbed.addons.alertmanager import Alertmanager
from testbed.addons.argo_cd import ArgoCd
from testbed.addons.base import AddOn
from testbed.addons.crds import ArgoCdCrds, FlaggerCrds, GatewayApiCrds
from testbed.addons.flagger import Flagger
from testbed.addons.gatekeeper import Gatekeeper
from testbed.addons.gateway import Gateway
from testbed.addons.git_server import GitServer
from testbed.addons.operators import CanaryPolicy, TenantWorkspace
from testbed.addons.prometheus import Prometheus
from testbed.addons.promotion import Promotion
from testbed.addons.workloads import Workloads
from testbed.errors import UsageError

_ALL: tuple[type[AddOn], ...] = (
    Gatekeeper,
    Prometheus,
    ArgoCdCrds,
    FlaggerCrds,
    GatewayApiCrds,
    Gateway,
    TenantWorkspace,
    CanaryPolicy,
    Alertmanager,
    Flagger,
    GitServer,
    ArgoCd,
    Workloads,
    Promotion,
)
ADDONS: dict[str, type[AddOn]] = {addon.name: addon for addon in _ALL}
"""Every add-on by name."""


def addon_classes(names: list[str]) -> list[type[AddOn]]:
    """The add-ons of these names with what they require, in an order that installs requirements first.

    Raises:
        UsageError: A name is unknown.
    """
    ordered: list[type[AddOn]] = []

    def visit(name: str) -> None:
        if name not in ADDONS:
            near = get_close_matches(name, ADDONS, n=1)
            raise UsageError(
                f"unknown add-on {name!r}",
                why=f"did you mean {near[0]!r}?" if near else "there is none of this name",
                fix=f"use one of: {', '.join(ADDONS)}",
            )
        for required in ADDONS[name].requires:
            visit(required)
        if ADDONS[name] not in ordered:
            ordered.append(ADDONS[name])

    for name in names:
        visit(name)
    return ordered


__all__ = ["ADDONS", "AddOn", "Gatekeeper", "addon_classes"]
