"""Guards of the AWS side, and how each is taken away for the negative control.

Their subject is the fixture `infra_cloud` (`Terragrunt`) or `aws` (`Cloud`): `scenario(guard=..., on="infra_cloud")`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.aws.accounts import ACCOUNTS, MANAGEMENT
from testbed.aws.cloud import Cloud
from testbed.aws.landing_zone import SCP
from testbed.aws.terragrunt import Terragrunt


class PinnedAccounts:
    """The live tree's root: role, allowed account and state bucket of the account that the folder names.

    Args:
        before: The root as it was before there was a guard: the shell's credentials decide.
    """

    def __init__(self, before: Path) -> None:
        self.before = before

    @contextmanager
    def removed(self, infra: Terragrunt) -> Iterator[None]:
        """Use the root of before, and then the present one again."""
        with infra.root(self.before):
            yield


class Line:
    """One argument of the configuration, such as `allowed_account_ids`; removed, its lines are gone.

    Args:
        argument: Its name.
        where: Files of the tree, as a glob.
    """

    def __init__(self, argument: str, where: str = "live/root.hcl") -> None:
        self.argument = argument
        self.where = where

    @contextmanager
    def removed(self, infra: Terragrunt) -> Iterator[None]:
        """Take the lines out of the working copy, and put them back."""
        present = infra.setting(self.argument, self.where)
        known = self.argument in infra.without
        try:
            infra.without.add(self.argument)
            infra.strip(present)
            yield
        finally:
            if not known:
                infra.without.discard(self.argument)
            for path, text in present.items():
                path.write_text(text)


class Step:
    """A step of the pipeline, such as `conftest`; removed, it is skipped."""

    def __init__(self, name: str) -> None:
        self.name = name

    @contextmanager
    def removed(self, infra: Terragrunt) -> Iterator[None]:
        """Skip it for a while."""
        infra.skipped.add(self.name)
        try:
            yield
        finally:
            infra.skipped.discard(self.name)


class ServiceControlPolicy:
    """A service control policy on every unit; removed, it is detached."""

    def __init__(self, name: str) -> None:
        self.name = name

    @contextmanager
    def removed(self, cloud: Cloud) -> Iterator[None]:
        """Detach it from every unit that has it, and attach it again."""
        organizations = cloud.bootstrap(ACCOUNTS[MANAGEMENT]).client("organizations")
        policies = organizations.list_policies(Filter=SCP)["Policies"]
        ids = {entry["Name"]: entry["Id"] for entry in policies}
        if self.name not in ids:
            raise LookupError(f"there is no policy {self.name}, only {', '.join(sorted(ids))}")
        policy = ids[self.name]

        def attached() -> list[str]:
            return [entry["TargetId"] for entry in organizations.list_targets_for_policy(PolicyId=policy)["Targets"]]

        targets = attached()
        if not targets:
            raise LookupError(f"{self.name} is attached nowhere")
        try:
            for target in targets:
                organizations.detach_policy(PolicyId=policy, TargetId=target)
            yield
        finally:
            there = attached()
            for target in targets:
                if target not in there:
                    organizations.attach_policy(PolicyId=policy, TargetId=target)


class OwnComponent:
    """A component that stands for itself, with a state of its own; removed, another one takes it in.

    Args:
        account: Where it is.
        host: The component that takes it in.
        merged: A folder with the host's module and `terragrunt.hcl` as they would be then.
    """

    def __init__(self, account: str, host: str, merged: Path) -> None:
        self.account = account
        self.host = host
        self.merged = merged

    @contextmanager
    def removed(self, infra: Terragrunt) -> Iterator[None]:
        """Use the merged component in the working copy, and the present one again."""
        component = infra.component(self.account, self.host) / "terragrunt.hcl"
        present = component.read_text()
        other = (self.merged / "terragrunt.hcl").read_text()
        module = infra.tree / "modules" / "merged"
        try:
            shutil.copytree(self.merged, module, dirs_exist_ok=True)
            component.write_text(other)
            yield
        finally:
            component.write_text(present)
            shutil.rmtree(module, ignore_errors=True)
