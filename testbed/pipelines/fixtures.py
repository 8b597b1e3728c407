"""pytest fixtures of pipelines."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testbed.showing import make_ready
from testbed.toolchain import Toolchain

if TYPE_CHECKING:  # not imported where no test uses pipelines
    from testbed.aws.cloud import Cloud
    from testbed.pipelines.ci import Pipelines

PIPELINES = Path("fixtures/pipelines")
TOOLS = ("act", "crane", "image-registry", "conftest")


@pytest.fixture
def pipelines(aws: Cloud, request: pytest.FixtureRequest) -> Iterator[Pipelines]:
    """CI for the repository in `fixtures/pipelines/service`, with a registry of its own."""
    from testbed.pipelines.ci import Pipelines

    toolchain = Toolchain()
    make_ready(request.config, toolchain, TOOLS)
    with tempfile.TemporaryDirectory(dir=aws.folder, prefix="ci-") as work:
        found = Pipelines(aws, toolchain, Path(work), request.config.rootpath / PIPELINES)
        try:
            yield found
        finally:
            found.close()
