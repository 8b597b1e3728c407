"""What changes while the operator works or is deaf: nothing of it is lost, nothing is claimed that was not done."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import pytest
from prometheus_client import REGISTRY

from testbed.operators.api import Body, Resource
from testbed.operators.conditions import Problem
from testbed.operators.engine import Controller
from testbed.operators.store import Key, Store, key_of

THING = Resource("testing.example.com/v1", "Thing", "things", namespaced=False)
CHILD = Resource("v1", "ConfigMap", "configmaps")
ONE = ("", "one")
Change = Callable[[Body], None]


def thing(generation: int, version: int, **metadata: Any) -> Body:
    whole = {"name": "one", "uid": "u-1", "generation": generation, "resourceVersion": str(version)} | metadata
    return {"apiVersion": THING.api_version, "kind": THING.kind, "metadata": whole}


class FakeApi:
    """An API server with one thing, which somebody else may change right before our write of its status."""

    def __init__(self, live: Body) -> None:
        self.live = live
        self.change: Change | None = None
        self.events: list[str] = []
        self.statuses: list[Body] = []

    def bump(self) -> None:
        metadata = self.live["metadata"]
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)

    async def merge(self, _: Resource, name: str, body: Body, **rest: Any) -> Body:
        assert (name, rest["subresource"]) == ("one", "status")
        if self.change is not None:
            self.change(self.live)
            self.bump()
            self.change = None
        self.live["status"] = body["status"]
        self.statuses.append(body["status"])
        self.bump()
        return copy.deepcopy(self.live)

    async def create(self, resource: Resource, body: Body) -> Body:
        assert resource.kind == "Event"
        self.events.append(body["reason"])
        return body

    async def apply(self, _: Resource, manifest: Body) -> Body:
        return manifest | {"metadata": manifest["metadata"] | {"uid": "c-1", "resourceVersion": "1"}}

    async def list(self, *_: object) -> tuple[list[Body], int]:
        return [], 1000


class Things(Controller):
    """Notes what it reconciled; `during` is what happens meanwhile, `children` what a generation asks for."""

    name: ClassVar[str] = "things"
    resource: ClassVar[Resource] = THING
    watched: ClassVar[tuple[tuple[Resource, str], ...]] = ((THING, ""),)

    def __init__(self, api: Any) -> None:
        super().__init__(api, Store(), workers=1, resync=60)
        self.done: list[int] = []
        self.during: Callable[[], None] | None = None
        self.problem: Problem | None = None
        self.children: dict[int, Body] = {}

    def concerned(self, resource: Resource, body: Body) -> Iterable[Key]:
        assert resource == THING
        return [key_of(body)]

    async def reconcile(self, body: Body) -> dict[str, Any]:
        self.done.append(int(body["metadata"]["generation"]))
        if self.during is not None:
            self.during()
            self.during = None
        if self.problem is not None:
            raise self.problem
        if (child := self.children.get(self.done[-1])) is not None:
            await self.ensure(CHILD, child, body)
        return {}

    async def work(self) -> None:
        """All that is queued, one after the other, as a worker does."""
        while len(self.queue):
            key = await self.queue.get()
            await self._process(key)
            self.queue.done(key)


@pytest.fixture
def things() -> Iterator[Things]:
    """A controller that leads and knows its one thing, which is queued."""
    controller = Things(FakeApi(thing(1, 1)))
    controller._leads.set()
    controller.heard(THING, "ADDED", thing(1, 1))
    yield controller
    controller.stopped()  # the metrics are the process's


def api_of(things: Things) -> FakeApi:
    found: Any = things.api
    assert isinstance(found, FakeApi)
    return found


def metadata_changes(**changed: Any) -> Change:
    return lambda body: body["metadata"].update(changed)


@pytest.mark.parametrize(
    "change",
    [metadata_changes(generation=2), metadata_changes(deletionTimestamp="2026-05-01T12:00:00Z")],
    ids=["spec", "deletion"],
)
@pytest.mark.asyncio
async def test_a_change_that_races_with_our_own_status_is_not_lost(things: Things, change: Change) -> None:
    api = api_of(things)
    api.change = change
    await things.work()
    # The watch tells of what the answer to our write has said already.
    things.heard(THING, "MODIFIED", copy.deepcopy(api.live))
    await things.work()
    assert things.done == [1, api.live["metadata"]["generation"]]
    assert api.live["status"]["observedGeneration"] == api.live["metadata"]["generation"]


@pytest.mark.asyncio
async def test_our_own_status_starts_no_further_pass(things: Things) -> None:
    api = api_of(things)
    await things.work()
    things.heard(THING, "MODIFIED", copy.deepcopy(api.live))
    await things.work()
    assert (things.done, len(api.statuses)) == ([1], 1)


@pytest.mark.asyncio
async def test_ready_is_said_of_the_generation_that_was_reconciled(things: Things) -> None:
    api = api_of(things)

    def changed_meanwhile() -> None:
        api.live["metadata"]["generation"] = 2
        api.bump()
        things.heard(THING, "MODIFIED", copy.deepcopy(api.live))

    things.during = changed_meanwhile
    # Only the second generation asks for a child: it is made as asked for, not healed.
    metadata = {"name": "child", "namespace": "default", "labels": {}}
    things.children[2] = {"apiVersion": "v1", "kind": CHILD.kind, "metadata": metadata, "data": {}}
    await things.work()
    assert things.done == [1, 2]
    assert [status["observedGeneration"] for status in api.statuses] == [1, 2]
    assert [status["conditions"][0]["observedGeneration"] for status in api.statuses] == [1, 2]
    assert "Healed" not in api.events


@pytest.mark.asyncio
async def test_nothing_is_said_of_a_successor_of_the_same_name(things: Things) -> None:
    api = api_of(things)

    def made_again() -> None:
        old, api.live = api.live, thing(1, 20, uid="u-2")
        things.heard(THING, "DELETED", old | {"metadata": old["metadata"] | {"resourceVersion": "19"}})
        things.heard(THING, "ADDED", copy.deepcopy(api.live))

    things.during = made_again
    key = await things.queue.get()
    await things._process(key)
    things.queue.done(key)
    assert api.statuses == []
    await things.work()
    assert (things.done, len(api.statuses)) == ([1, 1], 1)


def not_ready() -> float | None:
    labels = {"controller": "things", "namespace": "", "name": "one", "reason": "InvalidSpec"}
    return REGISTRY.get_sample_value("platform_operator_not_ready", labels)


@pytest.mark.asyncio
async def test_what_goes_while_the_watch_is_deaf_is_not_ready_no_more(things: Things) -> None:
    things.problem = Problem("InvalidSpec", "spec.team: is missing", retry=False)
    await things.work()
    assert not_ready() == 1
    await things.sync()  # the list, in which it is no more
    things.enqueue_all()
    await things.work()
    assert not_ready() is None
    assert things.done == [1]
