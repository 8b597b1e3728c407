"""Somebody who did not log in asks Argo CD to deploy: it answers nobody that it does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.cluster import Refused
from testbed.gitops import workload
from testbed.gitops.applications import GitOps
from testbed.gitops.cli import ArgoCli
from testbed.gitops.guards import LoginNeeded
from testbed.incident import Incident
from testbed.platform import Platform

pytestmark = pytest.mark.needs("argo-cd", "gatekeeper")


@pytest.mark.scenario(guard=LoginNeeded())
def test_a_stranger_cannot_delete_an_application(
    platform: Platform, gitops: GitOps, guard: str, namespace: str, tmp_path: Path
) -> None:
    """Given a deployed service, when a stranger deletes it with `argocd`, then it stays; an administrator may."""
    repository = gitops.repository("shop", workload.files("shop"))
    shop = gitops.application("shop", repository, namespace=namespace)
    gitops.wait_synced(shop, repository.head, timeout=30)
    admin, stranger = (ArgoCli(gitops.argo, tmp_path / who) for who in ("admin", "stranger"))
    with pytest.raises(Refused, match="Invalid username or password"):
        admin.login("admin", "letmein")
    assert "logged in successfully" in admin.login("admin", gitops.argo.admin_password())
    assert f"argocd/{shop}" in admin.run("app", "list", "--output", "name").splitlines()
    try:
        stranger.run("app", "delete", shop, "--yes")
    except Refused as refusal:
        assert "Unauthenticated" in refusal.reason
    else:
        raise Incident(f"a stranger deleted {shop}")
    admin.run("app", "sync", shop)
    assert gitops.status(shop).synced(repository.head)
