"""The role of a pipeline is made from the infrastructure code, and with the engine, that the run was asked to use."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.aws.distribution import Distribution

CONFTEST = """
import types
import pytest

@pytest.fixture(scope="session")
def aws(tmp_path_factory):
    return types.SimpleNamespace(folder=tmp_path_factory.mktemp("aws"), admin=lambda account: account)
"""
TESTS = "def test_both(infra_cloud, images_role): ..."


def test_the_role_for_images_heeds_options_and_configuration(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[tuple[Path, Distribution]] = []

    class Recorded:
        """Stands for Terragrunt: how it was made is what is tested."""

        def __init__(self, cloud: object, toolchain: object, work: Path, repository: Path, how: Distribution) -> None:
            made.append((repository, how))

        def apply(self, *_: object) -> None: ...

        def destroy(self, *_: object) -> None: ...

        def outputs(self, *_: object) -> dict[str, dict[str, str]]:
            return {"role_arns": {"images": "arn"}}

    monkeypatch.setattr("testbed.aws.terragrunt.Terragrunt", Recorded)
    monkeypatch.setattr("testbed.aws.fixtures.make_ready", lambda *_: None)
    config = tmp_path / "platform.toml"
    config.write_text('infra_cloud = { engine = "terraform", provider = "direct" }')
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    options = [f"--testbed-config={config}", f"--testbed-infra-cloud={tmp_path / 'mine'}"]
    pytester.inline_run("-p", "no:cacheprovider", "-p", "no:asyncio", *options).assertoutcome(passed=1)
    assert made == [(tmp_path / "mine", Distribution(engine="terraform", provider="direct"))] * 2
