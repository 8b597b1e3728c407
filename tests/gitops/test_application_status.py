"""What is read from an Application's status."""

from __future__ import annotations

import pytest

from testbed.cluster import Manifest
from testbed.gitops.application_status import Status

COMMIT = "a" * 40


def status(**fields: object) -> Status:
    manifest: Manifest = {"status": fields}
    return Status("shop", manifest)


def test_an_application_without_a_status_is_nothing_yet() -> None:
    found = Status("shop", {})
    assert [found.synced(), found.healthy, found.out_of_sync, found.failed] == [False] * 4
    assert (found.different, found.said, found.syncs) == ([], "", 0)


def test_synced_means_compared_and_deployed_at_that_commit() -> None:
    sync = {"status": "Synced", "revision": COMMIT}
    found = status(sync=sync, operationState={"phase": "Succeeded"})
    assert found.synced()
    assert found.synced(COMMIT)
    assert not found.synced("b" * 40)
    assert not status(sync=sync).synced()  # equal by chance, nothing was deployed
    assert status(sync=sync).in_sync
    assert not status(sync=sync, operationState={"phase": "Running"}).in_sync
    assert not status(sync=sync, operationState={"phase": "Running"}).synced()


@pytest.mark.parametrize(
    ("operation", "failed"),
    [
        ({"phase": "Failed"}, True),
        ({"phase": "Error"}, True),
        ({"phase": "Running", "retryCount": 1}, True),
        ({"phase": "Running"}, False),
        ({"phase": "Succeeded"}, False),
    ],
)
def test_a_sync_that_is_tried_again_has_failed(operation: dict[str, object], failed: bool) -> None:
    assert status(operationState=operation).failed == failed


def test_a_sync_that_is_tried_again_has_not_given_up() -> None:
    assert status(operationState={"phase": "Failed", "retryCount": 3}).given_up
    assert not status(operationState={"phase": "Running", "retryCount": 1}).given_up


@pytest.mark.parametrize(
    ("sync", "phase", "operation", "alone"),
    [
        ("OutOfSync", "Succeeded", None, True),
        ("OutOfSync", "Running", None, False),  # it is being deployed
        ("OutOfSync", "Succeeded", {"sync": {}}, False),  # it will be
        ("Synced", "Succeeded", None, False),
        ("Unknown", "Succeeded", None, False),  # it could not be compared
    ],
)
def test_a_difference_that_nobody_deploys_is_left_alone(
    sync: str, phase: str, operation: dict[str, object] | None, alone: bool
) -> None:
    fields = {"sync": {"status": sync, "revision": COMMIT}, "operationState": {"phase": phase}}
    found = Status("shop", {"status": fields, **({"operation": operation} if operation else {})})
    assert found.left_alone(COMMIT) == alone
    assert not found.left_alone("b" * 40)


def test_an_application_without_a_word_of_argo_cd_is_untouched() -> None:
    assert Status("shop", {"spec": {}}).untouched
    assert not Status("shop", {}).untouched
    assert not status(conditions=[{"type": "ComparisonError", "message": "repository not found"}]).untouched
    assert not status(sync={"status": "Unknown"}).untouched


def test_an_application_that_was_never_made_does_not_exist() -> None:
    assert not Status("shop", {}).exists
    assert status().exists


def test_what_differs_and_what_it_says() -> None:
    resources = [
        {"kind": "Deployment", "name": "shop", "status": "OutOfSync"},
        {"kind": "Service", "name": "shop", "status": "Synced"},
    ]
    operation = {"phase": "Failed", "message": "no", "syncResult": {"resources": [{"message": "not permitted"}]}}
    found = status(
        resources=resources,
        operationState=operation,
        conditions=[{"type": "ComparisonError", "message": "repository not found"}],
    )
    assert found.different == ["Deployment shop"]
    assert found.said.splitlines() == ["ComparisonError: repository not found", "no", "not permitted"]
    assert "repository not found" in str(found)
