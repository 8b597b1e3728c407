"""pytest fixtures of the AWS side: one cloud for the session, shared by all workers; sessions per account."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from testbed.aws.accounts import REGION, find_account
from testbed.aws.environment import own_process_scrubbed
from testbed.errors import UsageError
from testbed.sharing import leave, run_folder
from testbed.showing import make_ready
from testbed.toolchain import Toolchain

if TYPE_CHECKING:  # not imported where no test uses AWS
    import boto3
    from localstack_client.session import Session as LocalStackSession

    from testbed.aws.cloud import Cloud
    from testbed.aws.terragrunt import Terragrunt

INFRA_CLOUD = Path("fixtures/infra-cloud")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the AWS side."""
    group = parser.getgroup("testbed")
    group.addoption("--testbed-aws", choices=["process", "container"], default="process", help="how LocalStack runs")
    group.addoption(
        "--testbed-infra-cloud", type=Path, default=None, help="your infrastructure repository (modules/ and live/)"
    )


@pytest.fixture(scope="session")
def aws(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """Seven accounts: one emulation for the session, shared by all workers of pytest-xdist; the last one stops it.

    Skips what needs it, or fails it with `--testbed-strict`, where it should run in a container and no engine answers.
    """
    from testbed.aws.cloud import Cloud
    from testbed.aws.container import LocalStackContainer

    backend = request.config.getoption("--testbed-aws")
    if backend == "container":
        try:
            LocalStackContainer.require_engine()
        except UsageError as error:
            if request.config.getoption("--testbed-strict"):
                raise
            pytest.skip(f"{error.what} ({error.why})")
    folder, lock = run_folder("aws")
    with FileLock(lock):
        cloud = Cloud.attach(folder)
        if cloud is None:
            cloud = Cloud.up(folder, Toolchain(), backend)
        else:
            cloud.supervisor.lease()
    with own_process_scrubbed(cloud.endpoint, cloud.folder / "home"):
        yield cloud
    leave(cloud, lock)


@pytest.fixture
def aws_session(aws: Cloud) -> Callable[[str], boto3.Session]:
    """A boto3 session of an account's administrator: `aws_session("staging").client("ec2")`."""
    return aws.session


@pytest.fixture
def localstack_session(aws: Cloud) -> Callable[[str], LocalStackSession]:
    """The same with `localstack-client`: `localstack_session("staging").client("ec2")`."""

    from localstack_client.session import Session as LocalStackSession

    def session(account: str) -> LocalStackSession:
        credentials = aws.admin(find_account(account).name)
        found = LocalStackSession(
            aws_access_key_id=credentials.access_key_id,
            aws_secret_access_key=credentials.secret_access_key,
            aws_session_token=credentials.session_token,
            region_name=REGION,
        )
        found.common_protected_kwargs["aws_session_token"] = credentials.session_token  # it drops the token otherwise
        return found

    return session


@contextlib.contextmanager
def infra_cloud_in(aws: Cloud, config: pytest.Config) -> Iterator[Terragrunt]:
    """Terragrunt over a private copy of the repository, with the engine and the provider, that were asked for."""
    from testbed.aws.terragrunt import Terragrunt
    from testbed.config import load

    repository = config.getoption("--testbed-infra-cloud") or config.rootpath / INFRA_CLOUD
    toolchain = Toolchain()
    distribution = load(config.getoption("--testbed-config")).infra_cloud
    make_ready(config, toolchain, [*distribution.tools(), "conftest"])
    with tempfile.TemporaryDirectory(dir=aws.folder, prefix="work-", ignore_cleanup_errors=True) as work:
        yield Terragrunt(aws, toolchain, Path(work), repository, distribution)


@pytest.fixture
def infra_cloud(aws: Cloud, request: pytest.FixtureRequest) -> Iterator[Terragrunt]:
    """Terragrunt over a private copy of the infrastructure repository."""
    with infra_cloud_in(aws, request.config) as found:
        yield found
