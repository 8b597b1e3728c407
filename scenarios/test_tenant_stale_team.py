"""The team of a workspace vanishes: it is not silent, and it heals by itself when the team is back."""

from __future__ import annotations

import uuid

import pytest

from testbed.addons.operators import TenantWorkspace
from testbed.addons.prometheus import Prometheus
from testbed.errors import WaitTimeout
from testbed.incident import Incident
from testbed.operator_guards import AlertRule
from testbed.platform import Platform
from testbed.sla import SlaRecorder
from testbed.tenancy import Tenancy
from testbed.wait import wait_until

ALERT = "TenantWorkspaceNotReady"
STALE = {
    "TeamStale": "last confirmed by the identity provider",
    "TeamGroupMissing": "group dissolved-developers was deleted",
}


@pytest.mark.needs("gatekeeper", "tenant-workspace", "prometheus", "operator-processes")
@pytest.mark.scenario(guard=AlertRule(ALERT))
def test_a_stale_team_is_noticed(platform: Platform, guard: str, sla: SlaRecorder) -> None:
    """Given a tenant, when its team leaves the directory, then condition, metric and alert say so until it is back."""
    tenancy = Tenancy(platform.cluster.client())
    operator, prometheus = platform.addon(TenantWorkspace), platform.addon(Prometheus)
    name = f"stale-{uuid.uuid4().hex[:8]}"
    tenancy.team("dissolved")
    tenancy.submit(name, "dissolved")
    try:
        tenancy.wait_ready(name, timeout=30)
        for reason, faulty in (
            ("TeamStale", {"hours_ago": 100.0}),
            ("TeamGroupMissing", {"groups_found": False}),
        ):
            tenancy.sync("dissolved", **faulty)
            found = tenancy.wait_condition(name, "False", reason, timeout=sla.limit("stale-team-condition"))
            assert STALE[reason] in found["message"]
            tenancy.sync("dissolved")
            tenancy.wait_ready(name, timeout=sla.limit("stale-team-healed"))
        failed = operator.metric("platform_operator_reconcile_errors_total", reason="TeamNotFound")
        tenancy.remove_team("dissolved")
        with sla.within("stale-team-alert") as limit:
            with sla.within("stale-team-condition") as soon:
                found = tenancy.wait_condition(name, "False", "TeamNotFound", timeout=soon)
            assert "no Team 'dissolved' is in the directory" in found["message"]
            assert operator.metric("platform_operator_reconcile_errors_total", reason="TeamNotFound") > failed
            assert ("TeamNotFound", found["message"]) in tenancy.events(name)

            def alerted() -> tuple[bool, object]:
                firing = prometheus.firing(ALERT, name=name)
                return bool(firing), prometheus.query_api("alerts")["alerts"]

            try:
                wait_until(f"{ALERT} fires for {name}", alerted, timeout=limit)
            except WaitTimeout as silence:
                raise Incident(f"nobody was told that {name} cannot be reconciled: {silence.why}") from None
        # What keeps others out is healed all the same.
        tenancy.kube.delete("NetworkPolicy", "tenant-guard-rail", namespace=name, api_version="networking.k8s.io/v1")
        wait_until(
            "the NetworkPolicy is back",
            lambda: ("NetworkPolicy" not in " ".join(tenancy.missing(name)), tenancy.missing(name)),
            timeout=sla.limit("network-policy-back"),
        )
        with sla.within("stale-team-healed") as limit:
            tenancy.team("dissolved")
            tenancy.wait_ready(name, timeout=limit)
            wait_until(
                f"{ALERT} ends", lambda: (not prometheus.firing(ALERT, name=name), "it still fires"), timeout=limit
            )
    finally:
        tenancy.discard([name])
        tenancy.remove_team("dissolved")
