"""The infrastructure repository and the tools that run it: bad input, policies, and an emulation that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from testbed.aws.cloud import Cloud
from testbed.aws.distribution import PROVIDERS, Distribution
from testbed.aws.localstack import COMPONENT
from testbed.aws.pipeline import verify_policies
from testbed.aws.terragrunt import RunFailed, Terragrunt
from testbed.errors import TestbedError, UsageError
from testbed.supervisor import ComponentDied
from testbed.toolchain import Toolchain
from testbed.wait import wait_until

REPOSITORY = Path(__file__).parents[1] / "fixtures" / "infra-cloud"
MODULES = {
    "acm", "alb", "aurora", "ecr", "eks", "elasticache", "github-oidc", "iam-baseline", "irsa", "karpenter", "kms",
    "msk", "opensearch", "route53-zone", "secrets", "state-backend", "transit-gateway", "vpc",
}  # fmt: skip


def test_eighteen_modules_with_their_interface() -> None:
    assert {path.name for path in (REPOSITORY / "modules").iterdir()} == MODULES
    for module in (REPOSITORY / "modules").iterdir():
        for name in ("main.tf", "variables.tf", "outputs.tf", "versions.tf", "README.md"):
            assert (module / name).read_text().strip(), f"{module.name}/{name}"


def test_it_is_written_for_real_aws() -> None:
    for path in (path for path in REPOSITORY.rglob("*") if path.is_file()):
        text = path.read_text().lower()
        for word in ("localstack", "moto", "127.0.0.1", "localhost", "endpoints"):
            assert word not in text.replace("remote", ""), f"{word} in {path}"


def test_policies_pass_their_own_tests() -> None:
    assert "0 failures" in verify_policies(REPOSITORY, Toolchain())


def test_a_folder_that_is_no_repository_is_refused(aws: Cloud, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no infrastructure repository") as refused:
        Terragrunt(aws, Toolchain(), tmp_path / "work", tmp_path)
    assert refused.value.fix


def test_an_unknown_component_is_refused(infra_cloud: Terragrunt) -> None:
    with pytest.raises(UsageError, match="no component 'vcp'") as refused:
        infra_cloud.component("staging", "vcp")
    assert "vpc" in refused.value.why


def test_a_provider_that_cannot_be_built_is_a_clear_error(
    aws: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    ready = Toolchain().cache / "tools"
    (cache / "tools").mkdir(parents=True)
    for tool in ("tofu", "terragrunt"):
        (cache / "tools" / tool).symlink_to(ready / tool)
    monkeypatch.setenv("GOPROXY", "off")
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    with pytest.raises(TestbedError, match=PROVIDERS["built"]) as refused:
        Terragrunt(aws, Toolchain(cache=cache), tmp_path / "work", REPOSITORY)
    assert refused.value.fix


def fake_terraform(folder: Path, version: str) -> Path:
    """OpenTofu under Terraform's name; only what it says of its version is not its own."""
    tofu = Toolchain().ensure(["tofu"])["tofu"]
    program = folder / "terraform"
    program.write_text(
        f'#!/bin/sh\nif [ "$*" = "version -json" ]; then echo \'{{"terraform_version": "{version}"}}\'; exit; fi\n'
        f'exec {tofu} "$@"\n'
    )
    program.chmod(0o755)
    return program


def test_a_terraform_on_path_is_used(
    aws: Cloud, toolchain: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = fake_terraform(tmp_path, "1.13.3")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    infra = Terragrunt(aws, toolchain, tmp_path / "work", REPOSITORY, Distribution(engine="terraform"))
    assert infra.environment(None)["TG_TF_PATH"] == str(program)
    infra.apply("sandbox", "iam-baseline", aws.admin("sandbox"))
    infra.destroy("sandbox", "iam-baseline", aws.admin("sandbox"))


def test_an_old_or_missing_terraform_is_refused(
    toolchain: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no terraform on PATH") as refused:
        Distribution(engine="terraform").program(toolchain)
    assert "tofu" in refused.value.fix
    fake_terraform(tmp_path, "1.9.8")
    with pytest.raises(UsageError, match=r"is Terraform 1\.9\.8"):
        Distribution(engine="terraform").program(toolchain)


def test_direct_asks_the_registry_and_says_when_it_does_not_answer(
    aws: Cloud, toolchain: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")  # nothing listens there
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "cache"))
    infra = Terragrunt(aws, toolchain, tmp_path / "work", REPOSITORY, Distribution(provider="direct"))
    with pytest.raises(RunFailed, match="sandbox/eu-west-1/vpc") as failed:
        infra.must(infra.component("sandbox", "vpc"), "plan", credentials=aws.admin("sandbox"))
    assert "registry.opentofu.org" in failed.value.output


def test_a_malformed_live_tree_is_a_clear_error(aws: Cloud, infra_cloud: Terragrunt) -> None:
    folder = infra_cloud.component("sandbox", "vpc")
    (folder / "terragrunt.hcl").write_text('include "root" {\n')
    with pytest.raises(RunFailed, match="sandbox/eu-west-1/vpc") as failed:
        infra_cloud.must(folder, "plan", credentials=aws.admin("sandbox"))
    assert "terragrunt.hcl" in failed.value.why


@pytest.fixture
def own_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Accounts of the test's own, to be killed."""
    cloud = Cloud.up(tmp_path_factory.mktemp("own"), Toolchain())
    yield cloud
    cloud.down()


def test_killed_in_the_middle_of_an_apply(own_cloud: Cloud, tmp_path: Path) -> None:
    infra = Terragrunt(own_cloud, Toolchain(), tmp_path / "work", REPOSITORY)
    admin = own_cloud.admin("sandbox")
    folder = infra.component("sandbox", "vpc")
    running = infra.start(folder, ["apply", "-auto-approve"], admin)
    assert running.stdout is not None
    said = ""
    while "Creating..." not in said:
        line = running.stdout.readline()
        assert line, f"the apply ended before anything was made:\n{said}"
        said += line
    own_cloud.supervisor.signal(COMPONENT, signal.SIGKILL)
    with pytest.raises(ComponentDied, match="localstack died") as died:
        infra.finish(running)
    assert died.value.fix
    own_cloud.restart()
    assert infra.apply("sandbox", "vpc", own_cloud.admin("sandbox")).code == 0
    assert infra.changes("sandbox", "vpc", own_cloud.admin("sandbox")) == []


def test_a_killed_harness_leaves_no_tool_behind(own_cloud: Cloud, tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from testbed.aws.cloud import Cloud
from testbed.aws.terragrunt import Terragrunt
from testbed.toolchain import Toolchain
from testbed.wait import wait_until

cloud = Cloud.attach(Path({str(own_cloud.folder)!r}))
infra = Terragrunt(cloud, Toolchain(), Path({str(tmp_path)!r}) / "work", Path({str(REPOSITORY)!r}))
running = infra.start(infra.component("sandbox", "vpc"), ["plan"], cloud.admin("sandbox"))
print(running.pid, flush=True)
sys.stdin.read()
"""
    harness = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert harness.stdout is not None
    group = int(harness.stdout.readline())

    def members() -> list[int]:
        return [process.pid for process in psutil.process_iter() if _group(process.pid) == group]

    wait_until("terragrunt runs", lambda: (len(members()) > 1, members()), timeout=60)
    harness.kill()
    harness.wait()
    wait_until("all of the group has ended", lambda: (not members(), members()), timeout=10)


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0
