"""What the operator knows of the cluster: filled by kopf's watches, by lists, and by the answers to its own writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from testbed.operators.resource import Body, Resource

Key = tuple[str, str]
"""Namespace (empty for cluster-scoped objects) and name."""


def key_of(body: Body) -> Key:
    """The key of an object."""
    metadata = body["metadata"]
    return str(metadata.get("namespace") or ""), str(metadata["name"])


def _version(body: Body) -> int:
    # Kubernetes promises since v1.35 that resource versions are numbers that grow within a resource.
    return int(body["metadata"].get("resourceVersion") or 0)


REMEMBERED = 5000
"""Ends of objects that are remembered: more than can happen between a list's answer and its arrival here."""


class Store:
    """The newest known version of every object that was put in, by kind. Without managed fields, for the memory.

    Lists, watches and answers to writes arrive in any order; versions say which is newer.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, dict[Key, Body]] = {}
        self._ended: dict[str, int] = {}

    def get(self, resource: Resource, name: str, namespace: str = "") -> Body | None:
        """One object, or None."""
        return self._kinds.get(resource.kind, {}).get((namespace, name))

    def all(self, resource: Resource) -> Iterator[Body]:
        """Every object of a kind."""
        return iter(list(self._kinds.get(resource.kind, {}).values()))

    def put(self, resource: Resource, body: Body) -> bool:
        """Remember an object; False if it is known in a newer version, or known to be gone."""
        known = self._kinds.setdefault(resource.kind, {})
        old, uid = known.get(key_of(body)), body["metadata"].get("uid", "")
        # An end has a newer version than the last state; the same version is that of an object that lost our label.
        if _version(body) < self._ended.get(uid, 0):
            return False
        if old is not None and old["metadata"].get("uid") == uid and _version(old) > _version(body):
            return False
        body["metadata"].pop("managedFields", None)
        known[key_of(body)] = body
        return True

    def remove(self, resource: Resource, body: Body) -> bool:
        """Forget an object that is gone, or has lost the label that it is watched by; False if it was not known."""
        known = self._kinds.get(resource.kind, {})
        old, uid = known.get(key_of(body)), body["metadata"].get("uid", "")
        self._ended[uid] = max(_version(body), self._ended.pop(uid, 0))
        while len(self._ended) > REMEMBERED:
            del self._ended[next(iter(self._ended))]
        if old is None or old["metadata"].get("uid") != uid or _version(old) > _version(body):
            return False
        del known[key_of(body)]
        return True

    def replace(self, resource: Resource, bodies: Iterable[Body], version: int) -> None:
        """Take a list's answer of a version: what is not in it is gone, unless it is newer than the list."""
        old = self._kinds.get(resource.kind, {})
        self._kinds[resource.kind] = {key: body for key, body in old.items() if _version(body) > version}
        for body in bodies:
            self.put(resource, body)
