"""Every module in every account that uses it: the whole live tree is applied, plans clean right after, is destroyed.

Much of the time is the provider's: it looks at an OpenSearch domain ten minutes after it asked for it, and after it
deleted it (upstream's internal/service/opensearch/wait.go).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed.aws.accounts import ACCOUNTS, SHARED_SERVICES
from testbed.aws.cloud import Cloud
from testbed.aws.terragrunt import Terragrunt
from testbed.toolchain import Toolchain

REPOSITORY = Path(__file__).parents[2] / "fixtures" / "infra-cloud"
STATE_BACKEND = """
include "root" {
  path   = find_in_parent_folders("root.hcl")
  expose = true
}

terraform {
  source = "${dirname(find_in_parent_folders("root.hcl"))}/../modules//state-backend"
}

inputs = {
  bucket = "infra-cloud-tfstate-new-${include.root.locals.account.id}"
}
"""
LIMIT_MB = 700
"""Of resident memory, for LocalStack with everything applied."""
STAGING, PRODUCTION = "staging", "production"
"""Those with OpenSearch, so the longest."""
ACCOUNTS_AT_ONCE, PARALLELISM = 3, "2"
TIMEOUT = 3600.0

pytestmark = pytest.mark.nightly


@pytest.fixture
def own_cloud(tmp_path: Path) -> Iterator[Cloud]:
    """Accounts that hold nothing else, so that what is left over is ours."""
    cloud = Cloud.up(tmp_path / "cloud", Toolchain())
    yield cloud
    cloud.down()


def every(infra: Terragrunt, *command: str, accounts: Iterable[str] = ACCOUNTS) -> set[int]:
    """Run a command in every component of accounts, as each account's administrator, accounts side by side.

    Returns the exit codes; 2 is a plan with changes.
    """

    def account(name: str) -> int:
        arguments = ("run", "--all", "--parallelism", PARALLELISM, "--", *command)
        folder = infra.tree / "live" / name
        result = infra.finish(infra.start(folder, arguments, infra.cloud.admin(name)), TIMEOUT)
        assert result.code in (0, 2), f"{name}:\n{result.output[-12_000:]}"
        return result.code

    with ThreadPoolExecutor(max_workers=ACCOUNTS_AT_ONCE) as pool:
        return set(pool.map(account, sorted(accounts, key=lambda name: name not in (STAGING, PRODUCTION))))


def holdings(cloud: Cloud) -> dict[str, list[str]]:
    """What each account has of the costly kinds of resources; an account without any is left out."""
    found = {}
    for name, account in ACCOUNTS.items():
        session = cloud.bootstrap(account)
        buckets = session.client("s3").list_buckets()["Buckets"]
        found[name] = [
            *sorted(cloud.vpcs(name)),
            *session.client("eks").list_clusters()["clusters"],
            *(entry["DomainName"] for entry in session.client("opensearch").list_domain_names()["DomainNames"]),
            *(entry["DBClusterIdentifier"] for entry in session.client("rds").describe_db_clusters()["DBClusters"]),
            *(entry["ClusterName"] for entry in session.client("kafka").list_clusters_v2()["ClusterInfoList"]),
            *(entry["repositoryName"] for entry in session.client("ecr").describe_repositories()["repositories"]),
            *(entry["Name"] for entry in buckets if "tfstate-new" in entry["Name"]),
        ]
    return {name: resources for name, resources in found.items() if resources}


def test_every_module_applies_plans_clean_and_destroys_in_every_account(own_cloud: Cloud, tmp_path: Path) -> None:
    infra = Terragrunt(own_cloud, Toolchain(), tmp_path / "work", REPOSITORY)
    # The one module that no account's tree has: it comes before there is a tree.
    backend = infra.tree / "live" / SHARED_SERVICES / "eu-west-1" / "state-backend"
    backend.mkdir()
    (backend / "terragrunt.hcl").write_text(STATE_BACKEND)
    used = {path.parent.name for path in (infra.tree / "live").glob("*/*/*/terragrunt.hcl")}
    assert used == {path.name for path in (REPOSITORY / "modules").iterdir()}

    assert every(infra, "apply") == {0}
    assert set(holdings(own_cloud)) == set(ACCOUNTS)
    megabytes = own_cloud.localstack.resident_bytes() / 1e6
    assert every(infra, "plan", "-detailed-exitcode") == {0}
    assert megabytes < LIMIT_MB
    # Production is protected: its databases and load balancers go when somebody said so in the code.
    settings = infra.tree / "live" / PRODUCTION / "account.hcl"
    protected = re.compile(r"^(\s*deletion_protection\s*=) true$", re.MULTILINE)
    text, count = protected.subn(r"\1 false", settings.read_text())
    assert count == 1
    settings.write_text(text)
    for component in ("aurora", "alb"):
        infra.apply(PRODUCTION, component, own_cloud.admin(PRODUCTION))
    assert every(infra, "destroy") == {0}
    assert holdings(own_cloud) == {}
    shutil.rmtree(infra.work)
