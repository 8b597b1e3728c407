"""A guard that cannot be taken away, or not in time, is back before it says so: against parts that do not follow."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from testbed import guards, operator_guards
from testbed.aws import guards as aws_guards
from testbed.aws.terragrunt import Terragrunt
from testbed.errors import UsageError, WaitTimeout
from testbed.guards import Constraint, FailClosed, Restarted
from testbed.operator_guards import Leading

AT_ONCE = 0.05
ROOT = 'remote_state = "s3"\n  use_lockfile = true\n'


class Processes:
    """Gatekeeper whose processes only ever see the constraint as it was first."""

    def __init__(self) -> None:
        self.actions = ["deny"]

    def set_enforcement(self, kind: str, name: str, action: str) -> None:
        self.actions.append(action)

    def constraint(self, kind: str, name: str) -> dict[str, Any]:
        seen = [{"id": pod, "observedGeneration": 1} for pod in ("controller", "audit")]
        generation = 1 if self.actions[-1] == "deny" else 2
        spec = {"enforcementAction": self.actions[-1]}
        return {"metadata": {"generation": generation}, "spec": spec, "status": {"byPod": seen}}


def test_a_constraint_that_nobody_sees_change_is_on_deny_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "EFFECTIVE_WITHIN", AT_ONCE)
    gatekeeper = Processes()
    platform: Any = SimpleNamespace(gatekeeper=lambda: gatekeeper)
    with pytest.raises(WaitTimeout), Constraint("Tags", "tags").removed(platform):
        pytest.fail("it was taken for removed")
    assert gatekeeper.actions == ["deny", "dryrun", "deny"]


def test_a_constraint_that_only_records_is_no_guard() -> None:
    gatekeeper = Processes()
    gatekeeper.actions = ["warn"]
    platform: Any = SimpleNamespace(gatekeeper=lambda: gatekeeper)
    with pytest.raises(LookupError, match="is on warn"), Constraint("Tags", "tags").removed(platform):
        pytest.fail("it was taken for removed")
    assert gatekeeper.actions == ["warn"]


def test_an_operator_that_goes_on_to_lead_has_its_lease_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_guards, "EFFECTIVE_WITHIN", AT_ONCE)
    leases: list[dict[str, Any]] = []
    kube = SimpleNamespace(apply=leases.append)
    operator = SimpleNamespace(name="tenant-workspace", leaders=lambda: 1)
    platform: Any = SimpleNamespace(addon=lambda _: operator, cluster=SimpleNamespace(client=lambda: kube))
    with pytest.raises(WaitTimeout), Leading("tenant-workspace").removed(platform):
        pytest.fail("it was taken for removed")
    assert [lease["spec"]["holderIdentity"] for lease in leases] == ["testbed-control", ""]


def test_a_webhook_fails_closed_again_after_an_error() -> None:
    hooks = [{"name": name, "failurePolicy": "Fail"} for name in ("admit", "label")]
    there = {"ValidatingWebhookConfiguration": {"metadata": {"uid": "1"}, "webhooks": hooks}}
    stored: list[list[str]] = []

    def apply_all(manifests: list[dict[str, Any]]) -> None:
        stored.extend([hook["failurePolicy"] for hook in manifest["webhooks"]] for manifest in manifests)
        if len(stored) == 1:
            raise OSError("the answer was lost")

    kube = SimpleNamespace(apply_all=apply_all, get=lambda kind, *_, **__: there.get(kind))
    platform: Any = SimpleNamespace(cluster=SimpleNamespace(client=lambda: kube))
    with pytest.raises(OSError, match="answer was lost"), FailClosed("policies", "admit").removed(platform):
        pytest.fail("it was taken for removed")
    assert stored == [["Ignore", "Fail"], ["Fail", "Fail"]]


class Machine:
    """A platform without Gatekeeper that writes down what is asked of its supervisor."""

    def __init__(self, *, broken: bool = False) -> None:
        self.asked: list[object] = []
        self.supervisor = self
        self.cluster = SimpleNamespace(name="main", component=lambda role: f"main-{role}", wait_api_server=self.waited)
        self.addons: dict[str, list[object]] = {"main": []}
        self.broken = broken

    def waited(self) -> None:
        self.asked.append("wait")

    def component(self, name: str) -> None:
        if name != "main-kube-apiserver":
            raise LookupError(f"no component named {name}")

    def set_restart(self, _: str, restart: bool) -> None:
        self.asked.append(restart)
        if self.broken and not restart:
            raise OSError("the answer was lost")

    def revive(self, name: str) -> None:
        self.asked.append(name)


def test_restarts_are_on_again_also_without_gatekeeper() -> None:
    platform: Any = Machine()
    with Restarted("kube-apiserver").removed(platform):
        assert platform.asked == [False]
    assert platform.asked == [False, True, "main-kube-apiserver", "wait"]


def test_restarts_are_on_again_after_an_error() -> None:
    platform: Any = Machine(broken=True)
    with pytest.raises(OSError, match="answer was lost"), Restarted("kube-apiserver").removed(platform):
        pytest.fail("it was taken for removed")
    assert platform.asked == [False, True, "main-kube-apiserver", "wait"]


def test_a_process_that_is_not_there_is_refused_and_nothing_changed() -> None:
    platform: Any = Machine()
    with pytest.raises(LookupError, match="kube-apisever"), Restarted("kube-apisever").removed(platform):
        pytest.fail("it was taken for removed")
    assert platform.asked == []


class Attachments:
    """A service control policy on two units, of which the second cannot be detached."""

    def __init__(self) -> None:
        self.targets = ["ou-1", "ou-2"]

    def list_policies(self, Filter: str) -> dict[str, Any]:
        return {"Policies": [{"Name": "no-static-keys", "Id": "p-1"}]}

    def list_targets_for_policy(self, PolicyId: str) -> dict[str, Any]:
        return {"Targets": [{"TargetId": target} for target in self.targets]}

    def detach_policy(self, PolicyId: str, TargetId: str) -> None:
        if TargetId == "ou-2":
            raise OSError("the connection broke")
        self.targets.remove(TargetId)

    def attach_policy(self, PolicyId: str, TargetId: str) -> None:
        if TargetId in self.targets:
            raise LookupError("DuplicatePolicyAttachmentException")
        self.targets.append(TargetId)


def test_a_policy_that_is_detached_from_half_its_units_is_attached_to_all() -> None:
    organizations = Attachments()
    cloud: Any = SimpleNamespace(bootstrap=lambda _: SimpleNamespace(client=lambda _: organizations))
    guard = aws_guards.ServiceControlPolicy("no-static-keys")
    with pytest.raises(OSError, match="connection broke"), guard.removed(cloud):
        pytest.fail("it was taken for removed")
    assert sorted(organizations.targets) == ["ou-1", "ou-2"]


@pytest.fixture
def tree(tmp_path: Path) -> Terragrunt:
    """A working copy, with no tool to run on it."""
    infra = object.__new__(Terragrunt)
    infra.tree, infra.without = tmp_path, set()
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "root.hcl").write_text(ROOT)
    return infra


def test_an_argument_that_the_tree_does_not_set_is_refused_and_nothing_changed(tree: Terragrunt) -> None:
    with pytest.raises(UsageError, match="sets use_lock") as refused, aws_guards.Line("use_lock").removed(tree):
        pytest.fail("it was taken for removed")
    assert refused.value.fix
    assert (tree.without, (tree.tree / "live" / "root.hcl").read_text()) == (set(), ROOT)


def test_an_argument_is_gone_and_comes_back(tree: Terragrunt) -> None:
    with aws_guards.Line("use_lockfile").removed(tree):
        assert "use_lockfile" not in (tree.tree / "live" / "root.hcl").read_text()
        assert tree.without == {"use_lockfile"}
    assert (tree.without, (tree.tree / "live" / "root.hcl").read_text()) == (set(), ROOT)
