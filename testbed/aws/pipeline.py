"""The checks of an infrastructure pull request: Conftest on the dependency graph and on plans."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from testbed.aws.environment import Credentials
from testbed.aws.terragrunt import Result, Terragrunt
from testbed.errors import TestbedError
from testbed.toolchain import Toolchain

CONFTEST = "conftest"
TREE_CHECK, PLAN_CHECK = "tree-check", "plan-check"
APPROVALS = "approved.yaml"
"""Beside a component's `terragrunt.hcl`: the deletions that were approved, by address and id (see `destroy.rego`)."""


class PolicyRefused(TestbedError):
    """A policy does not accept a plan or the tree; `messages` are the violations."""

    def __init__(self, what: str, messages: list[str]) -> None:
        super().__init__(what, why="\n".join(messages), fix="do what the policies say, then plan again")
        self.messages = messages


class Pipeline:
    """Runs the steps in their order, for an apply as for a destroy: tree check, plan, plan check, apply of that plan.

    Args:
        infra: The live tree. Steps in `infra.skipped` are left out.
        toolchain: Has Conftest.
    """

    def __init__(self, infra: Terragrunt, toolchain: Toolchain) -> None:
        self.infra = infra
        self._conftest = toolchain.ensure([CONFTEST])[CONFTEST]

    def _test(self, policy: str, document: Any, what: str, data: Path | None = None) -> None:
        target = self.infra.work / f"{policy}.json"
        target.write_text(json.dumps(document))
        options = ["--data", str(data)] if data is not None else []
        self._run(policy, ["test", "--output", "json", *options, str(target)], what)

    def _run(self, policy: str, arguments: list[str], what: str) -> None:
        folder = self.infra.tree / "policy" / policy
        answer = subprocess.run(
            [self._conftest, *arguments, "--policy", str(folder)],
            capture_output=True,
            text=True,
            env=self.infra.environment(None),
            check=False,
            timeout=120,
        )
        try:
            results = json.loads(answer.stdout)
        except json.JSONDecodeError:
            raise TestbedError(
                f"conftest could not check {what}",
                why=answer.stderr[-1500:],
                fix=f"correct the policy or the {APPROVALS} that the message names",
            ) from None
        messages = sorted({failure["msg"] for result in results for failure in result.get("failures") or []})
        if messages:
            raise PolicyRefused(f"policy refuses {what}", messages)
        if answer.returncode:
            raise TestbedError(f"conftest failed on {what}", why=answer.stderr[-1500:], fix="correct the policy")

    def check_tree(self) -> None:
        """Check that every dependency is declared which no output expresses.

        Raises:
            PolicyRefused: One is missing.
        """
        if TREE_CHECK in self.infra.skipped:
            return
        found = self.infra.must(
            self.infra.tree / "live", "find", "--dependencies", "--json", "--log-level", "error", credentials=None
        ).output
        self._test("tree", json.loads(found[found.index("[") :]), "the dependencies of the live tree")

    def check_plan(self, plan: dict[str, Any], what: str, approvals: Path | None = None) -> None:
        """Check a plan.

        Args:
            plan: As `show -json` gives it.
            what: What it is a plan of, for the message.
            approvals: The file of approved deletions, if there is one.

        Raises:
            PolicyRefused: It has an unencrypted, an untagged or a public resource, or deletes data or a network that
                nobody approved.
            TestbedError: A policy or `approvals` cannot be read.
        """
        if PLAN_CHECK not in self.infra.skipped:
            self._test("plan", plan, what, approvals)

    def apply(self, account: str, component: str, credentials: Credentials) -> Result:
        """Check the tree, plan a component, check the plan, and apply exactly that plan.

        Raises:
            PolicyRefused: Before anything was changed.
            RunFailed: Plan or apply failed.
        """
        return self._reviewed(account, component, credentials)

    def destroy(self, account: str, component: str, credentials: Credentials) -> Result:
        """The same steps with a plan that destroys the component.

        Raises:
            PolicyRefused: Before anything was changed.
            RunFailed: Plan or apply failed.
        """
        return self._reviewed(account, component, credentials, "-destroy")

    def _reviewed(self, account: str, component: str, credentials: Credentials, *options: str) -> Result:
        self.check_tree()
        folder = self.infra.component(account, component)
        self.infra.must(folder, "plan", *options, "-out=plan.out", credentials=credentials)
        plan = self.infra.plan_json(account, component, credentials)
        approvals = folder / APPROVALS
        what = f"the plan of {account}/{component}"
        self.check_plan(plan, what, approvals if approvals.exists() else None)
        return self.infra.must(folder, "apply", "plan.out", credentials=credentials)


def verify_policies(repository: Path, toolchain: Toolchain) -> str:
    """Run the policies' own tests; returns Conftest's output.

    Raises:
        TestbedError: A test failed.
    """
    binary = toolchain.ensure([CONFTEST])[CONFTEST]
    outputs = []
    for policy in sorted(path for path in (repository / "policy").iterdir() if path.is_dir()):
        answer = subprocess.run(
            [binary, "verify", "--no-color", "--policy", str(policy)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if answer.returncode or not re.search(r"\b[1-9]\d* tests?\b", answer.stdout):
            raise TestbedError(
                f"the tests of policy/{policy.name} failed", why=answer.stdout + answer.stderr, fix="fix it"
            )
        outputs.append(answer.stdout.strip())
    return "\n".join(outputs)
