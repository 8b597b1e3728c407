"""pytest fixtures of GitOps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testbed.platform import Platform

if TYPE_CHECKING:  # not imported where no test uses GitOps
    from testbed.gitops.applications import GitOps
    from testbed.gitops.infra_apps import InfraApps

INFRA_APPS = Path("fixtures/infra-apps")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of GitOps."""
    parser.getgroup("testbed").addoption(
        "--testbed-infra-apps", type=Path, default=None, help="your repository of applications (root/ and bootstrap/)"
    )


@pytest.fixture
def gitops(platform: Platform) -> Iterator[GitOps]:
    """Git server and Argo CD of the platform; what a scenario makes with it is gone afterwards.

    Take it before `guard`: only with its controllers back can Argo CD take Applications away.
    """
    from testbed.gitops.applications import GitOps

    found = GitOps(platform)
    yield found
    found.close()


@pytest.fixture
def infra_apps(request: pytest.FixtureRequest, gitops: GitOps) -> Iterator[InfraApps]:
    """The repository of applications on the git server, not deployed yet; gone afterwards with all it deployed."""
    from testbed.gitops.infra_apps import InfraApps

    source = request.config.getoption("--testbed-infra-apps") or request.config.rootpath / INFRA_APPS
    found = InfraApps(gitops, source)
    yield found
    found.close()
