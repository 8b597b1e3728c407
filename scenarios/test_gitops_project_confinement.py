"""A tenant tries to deploy what is not his: elsewhere, cluster-wide, from a foreign repository, an analysis of his."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import yaml
from filelock import FileLock

from testbed.cluster import Manifest
from testbed.gitops.applications import GitOps
from testbed.gitops.guards import ConfinedProject
from testbed.gitops.repository import Repository
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder
from testbed.tenancy import Tenancy

pytestmark = pytest.mark.needs("argo-cd", "tenant-workspace", "gatekeeper")
TENANT = f"confined-{uuid.uuid4().hex[:6]}"
OWN, FOREIGN = f"{TENANT}-app", f"{TENANT}-foreign"
CONFIG: Manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stolen"}, "data": {"who": TENANT}}
ROLE: Manifest = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": TENANT},
    "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]}],
}
# It says what a CanaryPolicy never would: all traffic at once, and nothing is measured.
CANARY: Manifest = {
    "apiVersion": "flagger.app/v1beta1",
    "kind": "Canary",
    "metadata": {"name": "unmeasured"},
    "spec": {
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "unmeasured"},
        "service": {"port": 80},
        "skipAnalysis": True,
        "analysis": {"interval": "1s", "threshold": 1, "maxWeight": 100, "stepWeight": 100},
    },
}


@pytest.fixture(scope="module")
def repositories(platform: Platform) -> Iterator[dict[str, Repository]]:
    """A workspace whose project allows one of two repositories. Made before any guard is taken away."""
    gitops, tenancy = GitOps(platform), Tenancy(platform.cluster.client())
    with FileLock(platform.supervisor.folder / "scenario.lock"):
        found = {name: gitops.git.create(name) for name in (OWN, FOREIGN)}
        tenancy.team("payments")
        tenancy.submit(TENANT, "payments", repositories=[found[OWN].url])
        tenancy.wait_ready(TENANT, timeout=30)
    yield found
    tenancy.discard([TENANT])
    for name in found:
        gitops.git.remove(name)


@pytest.mark.scenario(guard=ConfinedProject(TENANT))
@pytest.mark.parametrize(
    ("repository", "manifest", "inside", "words"),
    [
        (OWN, CONFIG, False, "do not match any of the allowed destinations in project"),
        (OWN, ROLE, True, "ClusterRole is not permitted in project"),
        (FOREIGN, CONFIG, True, "is not permitted in project"),
        pytest.param(OWN, CANARY, True, "Canary is not permitted in project", marks=pytest.mark.needs("flagger-crds")),
    ],
    ids=["other-namespace", "cluster-scoped", "foreign-repository", "own-analysis"],
)
def test_an_application_cannot_leave_its_project(
    platform: Platform,
    repositories: dict[str, Repository],
    gitops: GitOps,
    guard: str,
    namespace: str,
    sla: SlaRecorder,
    repository: str,
    manifest: Manifest,
    inside: bool,
    words: str,
) -> None:
    """Given a workspace, when its Application reaches beyond the project, then Argo CD refuses and says why."""
    kube = platform.cluster.client()
    source = repositories[repository]
    text = yaml.safe_dump(manifest)
    if not (source.folder / "app.yaml").exists() or source.read("app.yaml") != text:
        source.commit("Reach out", {"app.yaml": text})
    target = TENANT if inside else namespace

    def deployed() -> bool:
        name = manifest["metadata"]["name"]
        return kube.get(manifest["kind"], name, namespace=target, api_version=manifest["apiVersion"]) is not None

    application = gitops.application("escape", source, namespace=target, project=TENANT)
    with sla.within("escape-refused") as limit:
        gitops.wait_until(
            "Argo CD refuses, or deploys",
            lambda: (words in gitops.status(application).said or deployed(), str(gitops.status(application))),
            limit,
        )
    if deployed():
        raise Incident(f"a tenant's Application deployed {manifest['kind']} {manifest['metadata']['name']}")
    assert words in gitops.status(application).said
