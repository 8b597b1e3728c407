"""Every module applies, plans clean right after, and destroys: whole accounts, as `terragrunt run --all` does it."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.aws.cloud import Cloud
from testbed.aws.terragrunt import Terragrunt

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


def every(infra: Terragrunt, folder: Path, account: str, *command: str) -> int:
    """Run a command in every component of a folder; returns the exit code of all together."""
    credentials = infra.cloud.admin(account)
    result = infra.run(folder, "run", "--all", "--parallelism", "2", "--", *command, credentials=credentials)
    assert result.code in (0, 2), result.output[-6000:]
    return result.code


@pytest.mark.parametrize(
    ("account", "modules"),
    [
        pytest.param("staging", 14, id="staging"),
        pytest.param("shared-services", 8, id="shared-services"),
    ],
)
def test_an_account_applies_plans_clean_and_destroys(
    aws: Cloud, infra_cloud: Terragrunt, account: str, modules: int
) -> None:
    folder = infra_cloud.tree / "live" / account / "eu-west-1"
    if account == "shared-services":  # the one module that no account's tree has: it comes before there is a tree
        (folder / "state-backend").mkdir()
        (folder / "state-backend" / "terragrunt.hcl").write_text(STATE_BACKEND)
    assert len(list(folder.glob("*/terragrunt.hcl"))) == modules
    try:
        assert every(infra_cloud, folder, account, "apply", "-auto-approve") == 0
        assert every(infra_cloud, folder, account, "plan", "-detailed-exitcode") == 0
        assert aws.localstack.resident_bytes() < LIMIT_MB * 1e6
    finally:
        assert every(infra_cloud, folder, account, "destroy", "-auto-approve") == 0
    buckets = aws.session(account).client("s3").list_buckets()["Buckets"]
    states = [bucket["Name"] for bucket in buckets if bucket["Name"].startswith("infra-cloud-tfstate-2")]
    assert len(states) == 1
    assert aws.session(account).client("eks").list_clusters()["clusters"] == []
