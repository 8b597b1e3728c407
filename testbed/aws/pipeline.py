"""The checks of an infrastructure pull request: Conftest on the dependency graph and on plans."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from testbed.aws.environment import Credentials
from testbed.aws.terragrunt import Result, Terragrunt
from testbed.errors import TestbedError
from testbed.toolchain import Toolchain

CONFTEST = "conftest"
TREE_CHECK, PLAN_CHECK = "tree-check", "plan-check"


class PolicyRefused(TestbedError):
    """A policy does not accept a plan or the tree; `messages` are the violations."""

    def __init__(self, what: str, messages: list[str]) -> None:
        super().__init__(what, why="\n".join(messages), fix="correct the resources that the policies name")
        self.messages = messages


class Pipeline:
    """Runs the steps in their order: tree check, plan, plan check, apply of that plan.

    Args:
        infra: The live tree. Steps in `infra.skipped` are left out.
        toolchain: Has Conftest.
    """

    def __init__(self, infra: Terragrunt, toolchain: Toolchain) -> None:
        self.infra = infra
        self._conftest = toolchain.ensure([CONFTEST])[CONFTEST]

    def _test(self, policy: str, document: Any, what: str) -> None:
        target = self.infra.work / f"{policy}.json"
        target.write_text(json.dumps(document))
        self._run(policy, ["test", "--output", "json", str(target)], what)

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
                f"conftest could not check {what}", why=answer.stderr[-1500:], fix="correct the policy"
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

    def check_plan(self, plan: dict[str, Any], what: str) -> None:
        """Check a plan.

        Raises:
            PolicyRefused: It has an unencrypted, an untagged or a public resource.
        """
        if PLAN_CHECK not in self.infra.skipped:
            self._test("plan", plan, what)

    def apply(self, account: str, component: str, credentials: Credentials) -> Result:
        """Plan a component, check the plan, and apply exactly that plan.

        Raises:
            PolicyRefused: Before anything was changed.
            RunFailed: Plan or apply failed.
        """
        folder = self.infra.component(account, component)
        self.infra.must(folder, "plan", "-out=plan.out", credentials=credentials)
        self.check_plan(self.infra.plan_json(account, component, credentials), f"the plan of {account}/{component}")
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
        if answer.returncode or "0 tests" in answer.stdout:
            raise TestbedError(
                f"the tests of policy/{policy.name} failed", why=answer.stdout + answer.stderr, fix="fix it"
            )
        outputs.append(answer.stdout.strip())
    return "\n".join(outputs)
