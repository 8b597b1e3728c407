"""Protected paths, with a git server and real pushes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from testbed.errors import TestbedError
from testbed.gitops.protected_paths import ProtectedPath, protect
from testbed.gitops.repository import BRANCH, Repository, make_bare

PROTECTED = "services/shop/production/values.yaml"
FREE = "services/shop/dev/values.yaml"
RULE = ProtectedPath("services/*/production/**", ("promoter", "on-call"))


class Clone(Repository):
    """A working copy for an account, which a push names as a git server does (test_git_server.py has a real one)."""

    account = ""

    def git(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        return super().git(*arguments, env={"REMOTE_USER": self.account, **(env or {})})


@pytest.fixture
def clone(tmp_path: Path) -> Callable[[str], Clone]:
    """Makes a working copy for an account."""
    bare = tmp_path / "infra-apps.git"
    make_bare(bare)

    def made(account: str) -> Clone:
        found = Clone(str(bare), tmp_path / f"clone-{account}", account, "")
        found.account = account
        found.clone()
        return found

    made("promoter").commit("Begin", {PROTECTED: "tag: 1\n", FREE: "tag: 1\n", "README.md": "x\n"})
    protect(bare, BRANCH, [RULE])
    return made


def test_only_the_named_accounts_change_it(clone: Callable[[str], Clone]) -> None:
    dana = clone("developers")
    dana.commit("Release", {FREE: "tag: 2\n"})
    before = dana.head
    with pytest.raises(TestbedError) as refused:
        dana.commit("Quickly", {FREE: "tag: 3\n", PROTECTED: "tag: 3\n"})
    assert f"{PROTECTED} is protected: developers may not change it, only promoter, on-call" in refused.value.why
    dana.pull()
    assert dana.head == before, "a part of a refused push arrived"
    for number, account in enumerate(RULE.accounts):
        clone(account).commit("Promote", {PROTECTED: f"tag: {number + 4}\n"})
    dana.pull()
    assert dana.read(PROTECTED) == "tag: 5\n"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"services/other/production/values.yaml": "tag: 1\n"}, id="new"),
        pytest.param({PROTECTED: None}, id="removed"),
        pytest.param({PROTECTED: None, "services/shop/prod/values.yaml": "tag: 1\n"}, id="renamed"),
    ],
)
def test_every_kind_of_change_is_one(clone: Callable[[str], Clone], change: dict[str, str | None]) -> None:
    with pytest.raises(TestbedError, match="git push failed") as refused:
        clone("developers").commit("Quickly", change)
    assert "is protected" in refused.value.why


def test_forced_push_does_not_take_it_back(clone: Callable[[str], Clone], monkeypatch: pytest.MonkeyPatch) -> None:
    dana = clone("developers")
    clone("promoter").commit("Promote", {PROTECTED: "tag: 2\n"})
    for refspec in ("+HEAD:refs/heads/main", ":refs/heads/main"):
        with pytest.raises(TestbedError) as refused:
            dana.git("push", "origin", refspec)
        assert "is protected" in refused.value.why
    dana.git("push", "--quiet", "origin", "HEAD:refs/heads/mine")  # other branches deploy nothing
    dana.account = ""
    with pytest.raises(TestbedError) as refused:
        dana.git("push", "origin", "+HEAD:refs/heads/main")
    assert "nobody may not change it" in refused.value.why


def test_without_rules_everything_is_free(clone: Callable[[str], Clone], tmp_path: Path) -> None:
    protect(tmp_path / "infra-apps.git", BRANCH, [])
    clone("developers").commit("Quickly", {PROTECTED: "tag: 2\n"})
    assert not (tmp_path / "infra-apps.git" / "hooks" / "pre-receive").exists()
