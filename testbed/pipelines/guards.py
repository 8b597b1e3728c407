"""Guards of pipelines, and how each is taken away for the negative control. Their subject is `Cloud` or `Pipelines`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from testbed.aws.accounts import ACCOUNTS, SHARED_SERVICES
from testbed.aws.cloud import Cloud

if TYPE_CHECKING:
    from testbed.pipelines.ci import Pipelines


class TrustedSubjects:
    """The condition on `sub` in a role's trust policy: which repository and branch, or service account, may take it.

    Removed, everybody may who has a token of the issuer (every repository on GitHub, every pod of the cluster): the
    policy still asks for that and for the audience.

    Args:
        role: Its name.
        account: Where it is.
    """

    def __init__(self, role: str, account: str = SHARED_SERVICES) -> None:
        self.role = role
        self.account = account

    @contextmanager
    def removed(self, cloud: Cloud) -> Iterator[None]:
        """Take the condition out, and put the policy back."""
        iam = cloud.bootstrap(ACCOUNTS[self.account]).client("iam")
        present = iam.get_role(RoleName=self.role)["Role"]["AssumeRolePolicyDocument"]
        loose = json.loads(json.dumps(present))
        taken = [
            conditions.pop(key)
            for statement in loose["Statement"]
            for conditions in statement.get("Condition", {}).values()
            for key in list(conditions)
            if key.endswith(":sub")
        ]
        if not taken:
            raise LookupError(f"the trust policy of {self.role} has no condition on sub")
        for statement in loose["Statement"]:
            if "Condition" in statement:
                statement["Condition"] = {name: found for name, found in statement["Condition"].items() if found}
        try:
            iam.update_assume_role_policy(RoleName=self.role, PolicyDocument=json.dumps(loose))
            yield
        finally:
            iam.update_assume_role_policy(RoleName=self.role, PolicyDocument=json.dumps(present))


class WorkflowCheck:
    """The policy check of workflow files before they run; removed, they run unseen."""

    @contextmanager
    def removed(self, pipelines: Pipelines) -> Iterator[None]:
        """Leave it out for a while."""
        pipelines.checked = False
        try:
            yield
        finally:
            pipelines.checked = True
