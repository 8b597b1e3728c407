"""Queue, store, election and status, without a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from testbed.operators import conditions
from testbed.operators.api import ApiError, Body
from testbed.operators.drift import quantity
from testbed.operators.engine import problem_of
from testbed.operators.leader import LEASE, Leader
from testbed.operators.store import Store
from testbed.operators.tenant.children import NAMESPACE
from testbed.operators.workqueue import LONGEST_DELAY, WorkQueue

ONE = ("", "one")


def body(version: int, uid: str = "1", **metadata: Any) -> Body:
    return {"metadata": {"name": "one", "uid": uid, "resourceVersion": str(version), **metadata}}


@pytest.mark.asyncio
async def test_a_key_in_work_is_not_worked_on_twice() -> None:
    queue = WorkQueue()
    queue.add(ONE)
    queue.add(ONE)
    assert await queue.get() == ONE
    queue.add(ONE)
    assert len(queue) == 0
    queue.done(ONE)
    assert len(queue) == 1


@pytest.mark.asyncio
async def test_back_off_grows_to_a_limit_and_is_forgotten() -> None:
    queue = WorkQueue()
    delays = [queue.failed(ONE) for _ in range(12)]
    assert delays[0] < 1 < delays[3]
    assert max(delays) <= LONGEST_DELAY * 1.2
    queue.succeeded(ONE)
    assert queue.failed(ONE) < 1


@pytest.mark.asyncio
async def test_news_come_before_the_back_off() -> None:
    queue = WorkQueue()
    queue.add_later(ONE, 3600)
    queue.add(ONE)
    assert await asyncio.wait_for(queue.get(), 1) == ONE
    queue.done(ONE)
    assert len(queue) == 0


def test_an_old_version_does_not_replace_a_newer_one() -> None:
    store = Store()
    assert store.put(NAMESPACE, body(5))
    assert not store.put(NAMESPACE, body(4))
    assert store.put(NAMESPACE, body(1, uid="2"))  # made again


def test_the_end_of_an_old_object_does_not_end_its_successor() -> None:
    store = Store()
    store.put(NAMESPACE, body(9, uid="2"))
    assert not store.remove(NAMESPACE, body(8, uid="1"))
    assert store.get(NAMESPACE, "one") is not None


def test_a_list_drops_what_is_gone_and_keeps_what_is_newer() -> None:
    store = Store()
    store.put(NAMESPACE, body(5))
    store.replace(NAMESPACE, [], 4)
    assert store.get(NAMESPACE, "one") is not None  # made after the list was answered
    store.replace(NAMESPACE, [], 6)
    assert store.get(NAMESPACE, "one") is None


def test_a_list_brings_nothing_back_that_ended_meanwhile() -> None:
    store = Store()
    store.put(NAMESPACE, body(5))
    store.remove(NAMESPACE, body(7))
    store.replace(NAMESPACE, [body(5)], 6)
    assert store.get(NAMESPACE, "one") is None
    assert store.put(NAMESPACE, body(7))  # it had only lost the label by which it is watched


def test_a_late_end_does_not_drop_what_was_labelled_again() -> None:
    store = Store()
    store.put(NAMESPACE, body(8))
    assert not store.remove(NAMESPACE, body(7))
    assert store.get(NAMESPACE, "one") is not None


def test_the_time_of_a_condition_is_that_of_its_change() -> None:
    (first,) = conditions.merge([], [conditions.condition("Ready", True, "A", "a")], 1)
    old = [first | {"lastTransitionTime": "2020-01-01T00:00:00Z"}]
    (same,) = conditions.merge(old, [conditions.condition("Ready", True, "B", "b")], 2)
    assert (same["lastTransitionTime"], same["observedGeneration"]) == ("2020-01-01T00:00:00Z", 2)
    (other,) = conditions.merge(old, [conditions.condition("Ready", False, "B", "b")], 2)
    assert other["lastTransitionTime"] != "2020-01-01T00:00:00Z"


@pytest.mark.parametrize(("text", "number"), [("1500m", 1.5), ("4", 4), (4, 4), ("0.5Gi", 2**29), ("1k", 1000)])
def test_quantities(text: object, number: float) -> None:
    assert float(quantity(text)) == number


class FakeApi:
    """One lease, with the API server's optimistic locking left out."""

    def __init__(self) -> None:
        self.lease: Body | None = None

    async def get(self, *_: object) -> Body | None:
        return self.lease

    async def request(self, method: str, path: str, *, body: Body, election: bool) -> Body:
        assert election
        version = int((self.lease or {"metadata": {"resourceVersion": "0"}})["metadata"]["resourceVersion"]) + 1
        self.lease = body | {"metadata": body["metadata"] | {"resourceVersion": str(version)}}
        return self.lease


@pytest.mark.asyncio
async def test_one_of_two_replicas_leads_and_gives_up_when_it_ends() -> None:
    api: Any = FakeApi()
    one, two = (Leader("op", "ns", name, 15) for name in ("one", "two"))
    await one._try(api)
    await two._try(api)
    assert (one.leading(), two.leading()) == (True, False)
    await one._try(api)
    assert api.lease["spec"]["leaseTransitions"] == 0
    await one.release(api)
    await two._try(api)
    assert (one.leading(), two.leading()) == (False, True)
    assert api.lease["spec"]["leaseTransitions"] == 1


@pytest.mark.asyncio
async def test_a_restarted_replica_has_its_own_lease_at_once() -> None:
    api: Any = FakeApi()
    await Leader("op", "ns", "one", 15)._try(api)
    again = Leader("op", "ns", "one", 15)
    await again._try(api)
    assert again.leading()


@pytest.mark.asyncio
async def test_a_lease_that_nobody_renews_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    api: Any = FakeApi()
    now = 1000.0
    monkeypatch.setattr("testbed.operators.leader.time.monotonic", lambda: now)
    await Leader("op", "ns", "dead", 15)._try(api)
    other = Leader("op", "ns", "other", 15)
    await other._try(api)
    now += 14
    await other._try(api)
    assert not other.leading()
    now += 2
    await other._try(api)
    assert other.leading()
    assert LEASE.path("ns", "op") == "/apis/coordination.k8s.io/v1/namespaces/ns/leases/op"


def shortened(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[Leader]:
    """Replicas whose lease lasts parts of a second."""
    found = [Leader("op", "ns", name, 15) for name in names]
    for leader in found:
        monkeypatch.setattr(leader, "_seconds", 0.3)
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_the_lease_is_renewed_while_leading_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    api: Any = FakeApi()
    (one,) = shortened(monkeypatch, "one")
    begun, ended = 0, False

    async def started() -> None:
        nonlocal begun, ended
        begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            ended = True

    running = asyncio.create_task(one.run(api, started, lambda: None))
    # Many renewals later than the lease lasts.
    await until(lambda: api.lease is not None and int(api.lease["metadata"]["resourceVersion"]) > 10)
    assert (begun, ended, api.lease["spec"]["leaseTransitions"]) == (1, False, 0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await until(lambda: ended)


@pytest.mark.asyncio
async def test_an_answer_that_never_comes_does_not_hold_the_standby_up(monkeypatch: pytest.MonkeyPatch) -> None:
    api: Any = FakeApi()
    dead, standby = shortened(monkeypatch, "dead", "standby")
    await dead._try(api)
    answer, hung = api.get, 0

    async def get(*arguments: object) -> Body | None:
        nonlocal hung
        if hung == 0:
            hung += 1
            await asyncio.Event().wait()
        found: Body | None = await answer(*arguments)
        return found

    monkeypatch.setattr(api, "get", get)
    leads = asyncio.Event()

    async def started() -> None:
        leads.set()

    running = asyncio.create_task(standby.run(api, started, lambda: None))
    await asyncio.wait_for(leads.wait(), 10)
    assert (hung, api.lease["spec"]["holderIdentity"]) == (1, "standby")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.asyncio
async def test_beginning_to_lead_is_tried_until_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    api: Any = FakeApi()
    (one,) = shortened(monkeypatch, "one")
    tries = 0

    async def started() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ApiError(503, "ServiceUnavailable", "not yet")

    running = asyncio.create_task(one.run(api, started, lambda: None))
    await until(lambda: tries == 3)
    assert one.leading()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.asyncio
async def test_the_lease_is_given_up_although_a_renewal_was_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    api: Any = FakeApi()
    (one,) = shortened(monkeypatch, "one")
    await one._try(api)
    answer, conflicts = api.request, 0

    async def request(method: str, path: str, **rest: Any) -> Body:
        nonlocal conflicts
        if conflicts == 0:
            conflicts += 1
            raise ApiError(409, "Conflict", "the object has been modified")
        found: Body = await answer(method, path, **rest)
        return found

    monkeypatch.setattr(api, "request", request)
    await one.release(api)
    assert (conflicts, api.lease["spec"]["holderIdentity"]) == (1, "")


def test_a_namespace_that_goes_is_no_lack_of_permission() -> None:
    words = (
        'canaries "checkout" is forbidden: unable to create new content in namespace a because it is being terminated'
    )
    going, forbidden = problem_of(ApiError(403, "Forbidden", words)), problem_of(ApiError(403, "Forbidden", "no"))
    assert (going.reason, going.waiting, going.retry) == ("NamespaceTerminating", True, True)
    assert (forbidden.reason, forbidden.waiting) == ("Forbidden", False)


def test_a_conflict_is_told_and_tried_again() -> None:
    found = problem_of(ApiError(409, "Conflict", "the object has been modified"))
    assert (found.reason, found.retry) == ("Conflict", True)
    assert "somebody changed it at the same time" in found.message
