"""pytest fixtures of pipelines."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from testbed.aws.accounts import SHARED_SERVICES
from testbed.aws.fixtures import infra_cloud_in
from testbed.showing import make_ready
from testbed.toolchain import Toolchain

if TYPE_CHECKING:  # not imported where no test uses pipelines
    from testbed.addons.git_server import GitServer
    from testbed.aws.cloud import Cloud
    from testbed.gitops.infra_apps import InfraApps
    from testbed.pipelines.ci import Pipelines

PIPELINES = Path("fixtures/pipelines")
TOOLS = ("act", "crane", "image-registry", "conftest")
OIDC = "github-oidc"


@contextlib.contextmanager
def _made(aws: Cloud, request: pytest.FixtureRequest, platform_git: GitServer | None) -> Iterator[Pipelines]:
    from testbed.pipelines.ci import Pipelines

    toolchain = Toolchain()
    make_ready(request.config, toolchain, TOOLS)
    with tempfile.TemporaryDirectory(dir=aws.folder, prefix="ci-") as work:
        found = Pipelines(aws, toolchain, Path(work), request.config.rootpath / PIPELINES, platform_git)
        try:
            yield found
        finally:
            found.close()


@pytest.fixture
def pipelines(aws: Cloud, request: pytest.FixtureRequest) -> Iterator[Pipelines]:
    """CI for the repository in `fixtures/pipelines/service`, with a registry of its own."""
    with _made(aws, request, None) as found:
        yield found


@pytest.fixture
def platform_pipelines(aws: Cloud, infra_apps: InfraApps, request: pytest.FixtureRequest) -> Iterator[Pipelines]:
    """The same, and it bumps tags in the platform's infra-apps, which Argo CD deploys."""
    with _made(aws, request, infra_apps.gitops.git) as found:
        yield found


@pytest.fixture(scope="module")
def images_role(aws: Cloud, request: pytest.FixtureRequest) -> Iterator[str]:
    """The role for images, made by the module `github-oidc`; its ARN. One file of scenarios at a time has it."""
    with FileLock(aws.folder / f"{OIDC}.lock"), infra_cloud_in(aws, request.config) as infra:
        admin = aws.admin(SHARED_SERVICES)
        infra.apply(SHARED_SERVICES, OIDC, admin)
        yield str(infra.outputs(SHARED_SERVICES, OIDC, admin)["role_arns"]["images"])
        infra.destroy(SHARED_SERVICES, OIDC, admin)
