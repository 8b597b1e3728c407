"""pytest fixtures of promotion."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from testbed import needs
from testbed.gitops.fixtures import INFRA_APPS
from testbed.report.verdicts import record

if TYPE_CHECKING:  # not imported where no test promotes
    from testbed.gitops.applications import GitOps
    from testbed.promotion.stage import Stage

MakeStage = Callable[..., "Stage"]


@pytest.fixture
def make_stage(request: pytest.FixtureRequest, gitops: GitOps) -> Iterator[MakeStage]:
    """Makes the environments with services: `make_stage("checkout", time_scale=60)`, see `Stage`; gone afterwards.

    Its scenario needs "promotion", "prometheus" and "workloads", and the clusters staging and production beside dev.
    """
    from testbed.promotion.stage import Stage

    source = request.config.getoption("--testbed-infra-apps") or request.config.rootpath / INFRA_APPS
    made: list[Stage] = []

    def make(*services: str, **options: Any) -> Stage:
        stage = Stage(gitops, source, services, **options)
        made.append(stage)
        told = [*gitops.platform.fidelity(needs.names(request.node)), stage.fidelity()]
        record(request.node, "fidelity", json.dumps([f"{one.part}: {one.simulated}" for one in told if one.simulated]))
        return stage

    yield make
    for stage in made:
        stage.close()
