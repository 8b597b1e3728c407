"""What was there before the constraint is not refused by it; audit must find it."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.cluster import load_manifests
from testbed.errors import WaitTimeout
from testbed.guards import EFFECTIVE_WITHIN, Constraint, Running
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder
from testbed.wait import wait_until

STORAGE_CLASS = Path(__file__).parents[1] / "fixtures/admission/noncompliant/01-storageclass-not-encrypted.yaml"
CONSTRAINT = Constraint("EncryptedVolumes", "encrypted-volumes")


@pytest.mark.needs("gatekeeper")
@pytest.mark.scenario(guard=Running("gatekeeper-audit"))
def test_existing_violation_is_found(platform: Platform, guard: str, sla: SlaRecorder) -> None:
    """Given an unencrypted StorageClass from before the policy, when the policy comes, then audit names the class."""
    kube = platform.cluster.client()
    (manifest,) = load_manifests(STORAGE_CLASS)
    name = manifest["metadata"]["name"]
    policy = platform.gatekeeper().constraint(CONSTRAINT.kind, CONSTRAINT.name)
    before = {"apiVersion": policy["apiVersion"], "kind": policy["kind"], "metadata": {"name": CONSTRAINT.name}}
    before["spec"] = policy["spec"]
    kube.delete(CONSTRAINT.kind, CONSTRAINT.name, api_version=policy["apiVersion"])

    def created() -> tuple[bool, object]:
        kube.create(manifest)
        return True, "created"

    try:
        wait_until(
            "the StorageClass is created without the policy", created, timeout=EFFECTIVE_WITHIN, retry_on=(Exception,)
        )
        kube.apply(before)

        def found() -> tuple[bool, object]:
            names = [entry["name"] for entry in platform.gatekeeper().violations(CONSTRAINT.kind, CONSTRAINT.name)]
            return name in names, f"violations of {names}"

        try:
            with sla.within("audit-finds-existing") as limit:
                wait_until(f"audit finds {name}", found, timeout=limit)
        except WaitTimeout as nobody:
            raise Incident(f"nobody found StorageClass {name}: {nobody.why}") from None
    finally:
        kube.delete("StorageClass", name)
        kube.apply(before)
