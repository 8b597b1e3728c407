"""Custom resources are deployed before their definitions: without sync waves a new cluster's first sync fails."""

from __future__ import annotations

import pytest

from testbed.gitops.guards import Setting
from testbed.gitops.infra_apps import InfraApps
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder

pytestmark = pytest.mark.needs("argo-cd", clusters=("staging", "production"))
WAVES = Setting(on=True, off=False)


@pytest.mark.scenario(guard=WAVES)
def test_definitions_come_before_what_needs_them(
    platform: Platform, infra_apps: InfraApps, guard: str, sla: SlaRecorder
) -> None:
    """Given clusters with nothing on them, when the root chart is deployed, then every wave succeeds at once."""
    gitops = infra_apps.gitops
    infra_apps.deploy(syncWaves=WAVES.value)
    expected = infra_apps.expected()
    failed: dict[str, str] = {}

    def done() -> tuple[bool, object]:
        found = gitops.statuses()
        failed.update({name: str(status) for name, status in found.items() if name in expected and status.failed})
        waiting = expected - {name for name, status in found.items() if status.synced() and status.healthy}
        return bool(failed) or not waiting, [str(found.get(name, name)) for name in sorted(waiting)[:3]]

    with sla.within("infra-apps-deployed") as limit:
        gitops.wait_until("every Application of infra-apps is deployed, or one fails", done, limit)
    if failed:
        raise Incident(f"first deployment failed: {failed}")
    assert expected == set(infra_apps.applications())
    for cluster in platform.clusters.values():
        info = cluster.client().get("ConfigMap", "platform-info", namespace="default", api_version="v1")
        assert info is not None
        assert info["data"]["environment"] == cluster.name
        shop = cluster.client().get("Deployment", "checkout", namespace="checkout", api_version="apps/v1")
        assert shop is not None
        assert shop["status"]["readyReplicas"] == {"dev": 1, "staging": 2, "production": 3}[cluster.name]
