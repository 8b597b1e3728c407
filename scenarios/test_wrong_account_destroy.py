"""`destroy` with another account's credentials in the shell: the incident that started it all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path

import pytest

from testbed.aws.accounts import ACCOUNTS
from testbed.aws.cloud import Cloud
from testbed.aws.guards import Line, PinnedAccounts
from testbed.aws.terragrunt import Result, Terragrunt
from testbed.incident import Incident
from testbed.sla import SlaRecorder

BEFORE = Path(__file__).parents[1] / "fixtures" / "incidents" / "wrong-account"
MEANT, SHELL = "sandbox", "staging"


def destroy(infra: Terragrunt, meant: str, shell: str, component: str = "vpc") -> Result:
    """`terragrunt destroy` on a fresh checkout, in the folder of one account, with another account in the shell."""
    folder = infra.component(meant, component)
    engineer = infra.cloud.admin(shell, who="engineer")
    return infra.run(folder, "destroy", "-auto-approve", credentials=engineer, cache=f"{meant}-{shell}")


@pytest.mark.scenario(guard=PinnedAccounts(BEFORE / "root.hcl"), on="infra_cloud")
def test_destroy_meant_for_sandbox_is_refused_for_staging(
    aws: Cloud, infra_cloud: Terragrunt, guard: str, sla: SlaRecorder
) -> None:
    """Given staging's VPC, when an engineer destroys sandbox's with staging's credentials, then nothing is touched."""
    staging = aws.admin("staging", who="engineer")
    infra_cloud.apply("staging", "vpc", staging)
    before = aws.vpcs("staging")
    assert len(before) == 1
    mark = aws.trail.mark()
    with sla.within("wrong-account-refused"):
        result = destroy(infra_cloud, MEANT, SHELL)
    after = aws.vpcs("staging")
    if not after:
        with sla.within("vpc-recovery"):
            infra_cloud.apply("staging", "vpc", staging)
        assert len(aws.vpcs("staging")) == 1
        infra_cloud.destroy("staging", "vpc", staging)
        raise Incident(f"staging's VPC is gone:\n{result.output[-600:]}")
    assert result.code != 0
    assert "Cannot assume IAM Role" in result.output, result.output
    assert aws.trail.changes(after=mark) == []
    assert after == before
    infra_cloud.destroy("staging", "vpc", staging)


@pytest.mark.scenario(guard=Line("allowed_account_ids", "live/root.hcl"), on="allowed_accounts_only")
def test_allowed_account_ids_alone_refuse(
    aws: Cloud, allowed_accounts_only: Terragrunt, guard: str, sla: SlaRecorder
) -> None:
    """Given a root where only the provider knows its account, when the shell holds another, then it refuses."""
    infra = allowed_accounts_only
    staging = aws.admin("staging", who="engineer")
    infra.apply("staging", "vpc", staging)
    before = aws.vpcs("staging")
    mark = aws.trail.mark()
    with sla.within("wrong-account-refused"):
        result = destroy(infra, MEANT, SHELL)
    after = aws.vpcs("staging")
    if not after:
        raise Incident(f"staging's VPC is gone:\n{result.output[-600:]}")
    assert result.code != 0
    assert "AWS account ID not allowed" in result.output, result.output
    assert aws.trail.changes(after=mark) == []
    assert after == before
    infra.destroy("staging", "vpc", staging)


@pytest.fixture
def allowed_accounts_only(infra_cloud: Terragrunt) -> Terragrunt:
    """The live tree with a root in which `allowed_account_ids` is the only guard."""
    infra_cloud.use_root((BEFORE / "root-with-allowed-accounts.hcl").read_text())
    return infra_cloud


PAIRS = list(permutations(ACCOUNTS, 2))


@pytest.mark.scenario(guard=PinnedAccounts(BEFORE / "root.hcl"), on="infra_cloud")
def test_every_wrong_pairing_is_refused(aws: Cloud, infra_cloud: Terragrunt, guard: str, sla: SlaRecorder) -> None:
    """Given a VPC in every account, when any account's credentials meet any other's folder, then all VPCs stay."""
    admins = {account: aws.admin(account, who="engineer") for account in ACCOUNTS}
    others = {account: aws.vpcs(account) for account in ACCOUNTS}  # an earlier control's orphans, in nobody's state
    for account in ACCOUNTS:
        infra_cloud.add(BEFORE / "vpc-only", account, "vpc-only")
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(lambda account: infra_cloud.apply(account, "vpc-only", admins[account]), ACCOUNTS))
    before = {account: aws.vpcs(account) - others[account] for account in ACCOUNTS}
    assert {account: len(found) for account, found in before.items()} == dict.fromkeys(ACCOUNTS, 1)
    mark = aws.trail.mark()
    # A pairing works in the folder of the account that is meant: of two at a time no two share a folder.
    shells = PAIRS if guard == "guard-on" else [("sandbox", name) for name in ACCOUNTS if name != "sandbox"]
    by_folder = {meant: [shell for folder, shell in shells if folder == meant] for meant in ACCOUNTS}

    def in_folder(meant: str) -> dict[tuple[str, str], Result]:
        return {(meant, shell): destroy(infra_cloud, meant, shell, "vpc-only") for shell in by_folder[meant]}

    with sla.within("every-wrong-pairing"), ThreadPoolExecutor(max_workers=2) as pool:
        results = {pair: result for done in pool.map(in_folder, ACCOUNTS) for pair, result in done.items()}
    assert len(results) == len(shells)
    gone = [account for account in ACCOUNTS if before[account] - aws.vpcs(account)]
    if gone:
        assert len(gone) == len(shells), f"without the guard every shell's own VPC goes, but only those of {gone} did"
        infra_cloud.destroy("sandbox", "vpc-only", admins["sandbox"])
        raise Incident(f"the VPCs of {', '.join(gone)} are gone")
    for pair, result in results.items():
        assert result.code != 0, pair
        assert "Cannot assume IAM Role" in result.output, (pair, result.output)
    assert aws.trail.changes(after=mark) == []
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(lambda account: infra_cloud.destroy(account, "vpc-only", admins[account]), ACCOUNTS))
