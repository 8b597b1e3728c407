"""The checks of an infrastructure pull request, on plans made up here; and modules that no other test plans."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from testbed.aws.distribution import Distribution
from testbed.aws.environment import child_environment
from testbed.aws.pipeline import APPROVALS, PLAN_CHECK, Pipeline, PolicyRefused
from testbed.aws.terragrunt import Terragrunt
from testbed.errors import TestbedError
from testbed.toolchain import Toolchain

MODULES = Path(__file__).parents[1] / "fixtures" / "infra-cloud" / "modules"


def deletion(address: str, identity: str) -> dict[str, Any]:
    """A plan that deletes a VPC."""
    change = {"actions": ["delete"], "before": {"id": identity}, "after": None, "after_unknown": {}}
    return {"resource_changes": [{"address": address, "mode": "managed", "type": "aws_vpc", "change": change}]}


def test_a_deletion_passes_as_the_refusal_says(infra_cloud: Terragrunt, toolchain: Toolchain, tmp_path: Path) -> None:
    pipeline = Pipeline(infra_cloud, toolchain)
    address = 'module.main.aws_vpc.this["a"]'
    plan = deletion(address, "vpc-1")
    with pytest.raises(PolicyRefused) as refused:
        pipeline.check_plan(plan, "the plan")
    (message,) = refused.value.messages
    assert message.startswith(f"{address} would be deleted")
    approvals = tmp_path / APPROVALS
    approvals.write_text(f"approved:\n  {message.split(' as ')[1]}\n")  # what it says is YAML as it stands
    pipeline.check_plan(plan, "the plan", approvals)
    with pytest.raises(PolicyRefused, match="refuses the plan"):
        pipeline.check_plan(deletion(address, "vpc-2"), "the plan", approvals)
    infra_cloud.skipped.add(PLAN_CHECK)
    pipeline.check_plan(plan, "the plan")


def test_malformed_approvals_are_a_clear_error(infra_cloud: Terragrunt, toolchain: Toolchain, tmp_path: Path) -> None:
    approvals = tmp_path / APPROVALS
    approvals.write_text('approved:\n  "aws_vpc.this: vpc-1\n')
    with pytest.raises(TestbedError, match="could not check the plan") as refused:
        Pipeline(infra_cloud, toolchain).check_plan(deletion("aws_vpc.this", "vpc-1"), "the plan", approvals)
    assert not isinstance(refused.value, PolicyRefused)
    assert str(approvals) in refused.value.why
    assert APPROVALS in refused.value.fix


def test_every_module_is_valid(toolchain: Toolchain, tmp_path: Path) -> None:
    """All modules are called at once, with values that are not known: a single start of the provider checks them."""
    calls = ['variable "anything" {\n  type = any\n}\n']
    for module in sorted(MODULES.iterdir()):
        names = re.findall(r'^variable "(\w+)"', (module / "variables.tf").read_text(), re.MULTILINE)
        arguments = "".join(f"  {name} = var.anything\n" for name in names)
        calls.append(f'module "{module.name}" {{\n  source = "{module}"\n{arguments}}}\n')
    root = tmp_path / "root"
    root.mkdir()
    (root / "main.tf").write_text("\n".join(calls))
    distribution = Distribution()
    environment = child_environment("http://127.0.0.1:1", None, tmp_path / "home")  # nothing listens there
    environment |= {"TF_CLI_CONFIG_FILE": str(distribution.configuration(toolchain, tmp_path)), "TF_IN_AUTOMATION": "1"}
    for arguments in (["init", "-backend=false"], ["validate", "-no-color"]):
        answer = subprocess.run(
            [distribution.program(toolchain), *arguments],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_component_gives_its_module_the_inputs_it_has(infra_cloud: Terragrunt) -> None:
    live = infra_cloud.tree / "live"
    said = infra_cloud.must(live, "hcl", "validate", "--inputs", "--strict", credentials=None).output
    components = len(list(live.glob("*/*/*/terragrunt.hcl")))
    assert said.count("All required inputs are passed in") == components
    assert said.count("All variables passed in by terragrunt are in use") == components
