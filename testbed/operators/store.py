"""What the operator knows of the cluster: filled by kopf's watches, by lists, and by the answers to its own writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from testbed.operators.api import Body, Resource

Key = tuple[str, str]
"""Namespace (empty for cluster-scoped objects) and name."""


def key_of(body: Body) -> Key:
    """The key of an object."""
    metadata = body["metadata"]
    return str(metadata.get("namespace") or ""), str(metadata["name"])


def _version(body: Body) -> int:
    # Kubernetes promises since v1.35 that resource versions are numbers that grow within a resource.
    return int(body["metadata"].get("resourceVersion") or 0)


class Store:
    """The newest known version of every object that was put in, by kind. Without managed fields, for the memory."""

    def __init__(self) -> None:
        self._kinds: dict[str, dict[Key, Body]] = {}

    def get(self, resource: Resource, name: str, namespace: str = "") -> Body | None:
        """One object, or None."""
        return self._kinds.get(resource.kind, {}).get((namespace, name))

    def all(self, resource: Resource) -> Iterator[Body]:
        """Every object of a kind."""
        return iter(list(self._kinds.get(resource.kind, {}).values()))

    def put(self, resource: Resource, body: Body) -> bool:
        """Remember an object; False if a newer version of it was known."""
        known = self._kinds.setdefault(resource.kind, {})
        old = known.get(key_of(body))
        if (
            old is not None
            and old["metadata"].get("uid") == body["metadata"].get("uid")
            and _version(old) > _version(body)
        ):
            return False
        body["metadata"].pop("managedFields", None)
        known[key_of(body)] = body
        return True

    def remove(self, resource: Resource, body: Body) -> bool:
        """Forget an object that is gone; False if a later one of its name is known."""
        known = self._kinds.get(resource.kind, {})
        old = known.get(key_of(body))
        if old is None or old["metadata"].get("uid") != body["metadata"].get("uid"):
            return False
        del known[key_of(body)]
        return True

    def replace(self, resource: Resource, bodies: Iterable[Body]) -> None:
        """Take a list's answer: what is not in it is gone."""
        old = self._kinds.get(resource.kind, {})
        self._kinds[resource.kind] = {}
        for body in bodies:
            newer = old.get(key_of(body))
            self.put(resource, body)
            if newer is not None:
                self.put(resource, newer)
