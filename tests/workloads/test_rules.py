"""The rules that need no cluster: image references, variables, quantities, phases."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace
from typing import Any

import pytest

from testbed.errors import UsageError
from testbed.workloads import images, status
from testbed.workloads.environment import ConfigError, Fetch, expand, quantity, resolve

Body = dict[str, Any]


@pytest.mark.parametrize(
    ("image", "repository", "tag"),
    [
        ("podinfo", "podinfo", "latest"),
        ("ghcr.io/stefanprodan/podinfo:6.9.2", "ghcr.io/stefanprodan/podinfo", "6.9.2"),
        ("localhost:5000/podinfo:1", "localhost:5000/podinfo", "1"),
        ("localhost:5000/podinfo", "localhost:5000/podinfo", "latest"),
        ("a/b@sha256:00ff", "a/b", "sha256:00ff"),
        ("a/b:1@sha256:00ff", "a/b", "1"),
    ],
)
def test_image_references(image: str, repository: str, tag: str) -> None:
    assert images.parse(image) == images.Reference(repository, tag)


def test_the_policy_and_the_agent_know_the_same_images() -> None:
    known = [f"{repository}{end}" for repository in images.repositories() for end in ("", ":1", "@sha256:00ff")]
    others = ["nginx:1", "ghcr.io/stefanprodan/podinfo-other:1", "evil.example/ghcr.io/stefanprodan/podinfo:1"]
    for image in known:
        assert re.search(images.pattern(), image)
        assert images.find(image).tool == "podinfo"
    for image in others:
        assert not re.search(images.pattern(), image)
        with pytest.raises(UsageError, match="use one of: ghcr"):
            images.find(image)
    with pytest.raises(UsageError, match="is no image"):
        images.parse("not an image")


def test_variables_are_filled_in() -> None:
    assert expand("$(A)-$(B)-$$(A)-$A", {"A": "1"}) == "1-$(B)-$(A)-$A"


@pytest.mark.parametrize(("text", "value"), [("128Mi", 128 * 2**20), ("250m", 0.25), ("1G", 1e9), ("2", 2), (1, 1)])
def test_quantities(text: str | int, value: float) -> None:
    assert quantity(text) == value


def test_wrong_quantities_are_told() -> None:
    with pytest.raises(ConfigError, match="is no quantity"):
        quantity("12 apples")


def resolved(container: Body, objects: dict[tuple[str, str], Body]) -> dict[str, str]:
    async def fetch(kind: str, name: str) -> Body | None:
        return objects.get((kind, name))

    pod = {"metadata": {"name": "p", "namespace": "n", "labels": {"app": "shop"}}, "spec": {"nodeName": "node"}}
    found: Fetch = fetch
    return asyncio.run(resolve(pod, container, found, {"status.podIP": "10.112.0.1"}))


def test_the_environment_of_a_container() -> None:
    objects = {
        ("configmaps", "c"): {"data": {"a": "1"}},
        ("secrets", "s"): {"data": {"b": "Mg=="}},
    }
    container = {
        "resources": {"limits": {"memory": "64Mi", "cpu": "250m"}},
        "envFrom": [{"configMapRef": {"name": "c"}, "prefix": "C_"}, {"secretRef": {"name": "none", "optional": True}}],
        "env": [
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "b"}}},
            {"name": "SUM", "value": "$(C_a)+$(B)"},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "MIB", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "CORES", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        ],
    }
    assert resolved(container, objects) == {
        "C_a": "1",
        "B": "2",
        "SUM": "1+2",
        "APP": "shop",
        "NODE": "node",
        "IP": "10.112.0.1",
        "MIB": "64",
        "CORES": "1",
    }


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "c", "key": "x"}}, 'configmap "c" not found'),
        ({"fieldRef": {"fieldPath": "spec.unknown"}}, "not supported"),
        ({"resourceFieldRef": {"resource": "limits.cpu"}}, "has no limits.cpu"),
        ({"fileKeyRef": {}}, "not supported"),
    ],
)
def test_what_is_missing_is_told(source: Body, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolved({"env": [{"name": "X", "valueFrom": source}]}, {})


def container(state: str, code: int = 0, *, before: bool = False) -> Any:
    return SimpleNamespace(state={state: {"exitCode": code}}, last_state={"terminated": {}} if before else {})


@pytest.mark.parametrize(
    ("containers", "policy", "phase"),
    [
        ([container("waiting")], "Always", "Pending"),
        ([container("running"), container("waiting")], "Always", "Pending"),
        ([container("running")], "Always", "Running"),
        ([container("waiting", before=True)], "Always", "Running"),
        ([container("terminated", 1)], "Always", "Running"),
        ([container("terminated", 1)], "OnFailure", "Running"),
        ([container("terminated", 0)], "OnFailure", "Succeeded"),
        ([container("terminated", 0)], "Never", "Succeeded"),
        ([container("terminated", 0), container("terminated", 2)], "Never", "Failed"),
    ],
)
def test_phases(containers: list[Any], policy: str, phase: str) -> None:
    assert status.phase(containers, True, policy, False) == phase
