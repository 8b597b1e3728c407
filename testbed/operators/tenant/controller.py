"""The TenantWorkspace operator."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterable
from typing import Any, ClassVar

from testbed.operators import teams
from testbed.operators.api import Api, Body, Resource
from testbed.operators.conditions import Problem
from testbed.operators.config import TenantConfig
from testbed.operators.engine import Controller
from testbed.operators.store import Key, Store
from testbed.operators.teams import TEAM, TeamSpec
from testbed.operators.tenant import children, validation
from testbed.operators.tenant.children import CHILDREN, NAMESPACE, PROJECT, ROLE_BINDING, SELECTOR, TENANT_LABEL
from testbed.operators.tenant.spec import FINALIZER, TENANT, TenantSpec, parse, spec_of


class TenantController(Controller):
    """Provisions workspaces, heals them, and takes them away whole."""

    name: ClassVar[str] = children.OPERATOR
    resource: ClassVar[Resource] = TENANT
    watched: ClassVar[tuple[tuple[Resource, str], ...]] = (
        (TENANT, ""),
        (TEAM, ""),
        *((child, SELECTOR) for child in CHILDREN),
    )
    exclusive: ClassVar[tuple[Resource, ...]] = (NAMESPACE, PROJECT)

    def __init__(self, api: Api, store: Store, config: TenantConfig, *, workers: int, resync: float) -> None:
        super().__init__(api, store, workers=workers, resync=resync)
        self.config = config

    def concerned(self, resource: Resource, body: Body) -> Iterable[Key]:
        """The tenant of a child; every tenant of a team."""
        metadata = body["metadata"]
        if resource == TENANT:
            return [("", metadata["name"])]
        if resource == TEAM:
            return [
                ("", tenant["metadata"]["name"])
                for tenant in self.store.all(TENANT)
                if spec_of(tenant).get("team") == metadata["name"]
            ]
        tenant = (metadata.get("labels") or {}).get(TENANT_LABEL)
        return [("", tenant)] if tenant else []

    async def reconcile(self, body: Body) -> dict[str, Any]:
        """Guard rails first, access last: nobody gets into a half-made tenant."""
        name = body["metadata"]["name"]
        if body["metadata"].get("deletionTimestamp"):
            return await self._tear_down(body)
        spec = parse(body.get("spec"))
        said = list(validation.quota_problems(spec_of(body).get("quota"), self.config))
        if said:
            raise Problem("QuotaExceedsLimit", "; ".join(said), retry=False)
        namespace = await self._own_namespace(body)
        try:
            team = self._team(spec)
        except Problem:  # also while the team is in doubt nobody loosens what is there
            if namespace is not None:
                await self._ensure_all(children.guard_rails(body, spec, self.config), body)
            raise
        await self._add_finalizer(body)  # only now: before there is nothing that a deletion would have to wait for
        await self.ensure(NAMESPACE, children.namespace(body, spec, team, self.config), body)
        rails = children.guard_rails(body, spec, self.config)
        await self._ensure_all([*rails, (PROJECT, await self._own_project(body, spec, team))], body)
        bindings = children.role_bindings(body, spec, team)
        await self._ensure_all([(ROLE_BINDING, binding) for binding in bindings], body)
        await self._remove_stray_bindings(name, bindings)
        return {"namespace": name, "costCenter": team.costCenter}

    def _team(self, spec: TenantSpec) -> TeamSpec:
        found = self.store.get(TEAM, spec.team)
        now = datetime.datetime.now(datetime.UTC)
        problem = teams.problem_of(spec.team, found, self.config.directoryMaxAge, now)
        if problem is not None or found is None:
            raise problem or Problem("TeamNotFound", f"spec.team: no Team {spec.team!r}")
        return teams.parse(spec.team, found)

    async def _ensure_all(self, wanted: list[tuple[Resource, Body]], owner: Body) -> None:
        await asyncio.gather(*(self.ensure(resource, manifest, owner) for resource, manifest in wanted))

    async def _add_finalizer(self, body: Body) -> None:
        metadata = body["metadata"]
        finalizers = metadata.get("finalizers") or []
        if FINALIZER in finalizers:
            return
        # With the resource version: a merge patch replaces the whole list, and somebody may have added to it.
        change = {"finalizers": [*finalizers, FINALIZER], "resourceVersion": metadata["resourceVersion"]}
        self.store.put(TENANT, await self.api.merge(TENANT, metadata["name"], {"metadata": change}))

    async def _own_namespace(self, body: Body) -> Body | None:
        """The tenant's namespace, None where there is none yet.

        Raises:
            Problem: The name is taken by somebody else's, or the old one is not gone yet.
        """
        name = body["metadata"]["name"]
        found = self.store.get(NAMESPACE, name)
        if found is None:
            # The store has only namespaces with our label; a foreign one is seen by asking.
            found = await self.api.get(NAMESPACE, name)
        if found is None:
            return None
        if not _owned(found, body):
            raise Problem(
                "NamespaceConflict",
                f"metadata.name: a Namespace {name!r} exists already and does not belong to this workspace; "
                "choose another name, or have the platform team remove the Namespace",
            )
        self.store.put(NAMESPACE, found)  # also when somebody took our label off it
        if found["metadata"].get("deletionTimestamp"):
            said = f"Namespace {name!r} is being deleted; it is made again when it is gone"
            raise Problem("NamespaceTerminating", said, waiting=True)
        return found

    async def _own_project(self, body: Body, spec: TenantSpec, team: TeamSpec) -> Body:
        name = body["metadata"]["name"]
        found = self.store.get(PROJECT, name, self.config.projectNamespace)
        if found is None:
            found = await self.api.get(PROJECT, name, self.config.projectNamespace)
        if found is not None and not _owned(found, body):
            raise Problem(
                "ProjectConflict",
                f"metadata.name: an AppProject {name!r} exists already and does not belong to this workspace; "
                "choose another name, or have the platform team remove the project",
            )
        if found is not None:
            self.store.put(PROJECT, found)
        return children.project(body, spec, team, self.config)

    async def _remove_stray_bindings(self, name: str, wanted: list[Body]) -> None:
        """A team that has no viewers' group any more keeps no binding for it."""
        names = {binding["metadata"]["name"] for binding in wanted}
        for found in self.store.all(ROLE_BINDING):
            metadata = found["metadata"]
            if (
                metadata["namespace"] == name
                and metadata["name"] not in names
                and not metadata.get("deletionTimestamp")
            ):
                await self.api.delete(ROLE_BINDING, found)

    async def _tear_down(self, body: Body) -> dict[str, Any]:
        """Namespace, then project, then the finalizer: each only when the one before is really gone."""
        name = body["metadata"]["name"]
        namespace = self.store.get(NAMESPACE, name)
        if namespace is None or not namespace["metadata"].get("deletionTimestamp"):
            namespace = await self.api.get(NAMESPACE, name)  # the store may be behind, and this must be certain
        if namespace is not None and _owned(namespace, body):
            if not namespace["metadata"].get("deletionTimestamp"):
                await self.api.delete(NAMESPACE, namespace)
            raise Problem("Deleting", _what_holds(namespace), waiting=True)
        project = await self.api.get(PROJECT, name, self.config.projectNamespace)
        if project is not None and _owned(project, body):
            if not project["metadata"].get("deletionTimestamp"):
                await self.api.delete(PROJECT, project)
            if project["metadata"].get("finalizers"):
                said = f"AppProject {name!r} is kept by {project['metadata']['finalizers']}"
                raise Problem("Deleting", said, waiting=True)
        metadata = body["metadata"]
        rest = [entry for entry in metadata.get("finalizers") or [] if entry != FINALIZER]
        if len(rest) != len(metadata.get("finalizers") or []):
            change = {"finalizers": rest, "resourceVersion": metadata["resourceVersion"]}
            stored = await self.api.merge(TENANT, name, {"metadata": change})
            if rest:
                self.store.put(TENANT, stored)
            else:
                self.store.remove(TENANT, body)
        return {}


def _owned(found: Body, tenant: Body) -> bool:
    references = found["metadata"].get("ownerReferences") or []
    return any(reference.get("uid") == tenant["metadata"]["uid"] for reference in references)


def _what_holds(namespace: Body) -> str:
    """Why a namespace is not gone, as its own status says it."""
    status = namespace.get("status") or {}
    said = [
        str(entry.get("message"))
        for entry in status.get("conditions") or []
        if entry.get("status") == "True"
        and entry.get("type") in {"NamespaceContentRemaining", "NamespaceFinalizersRemaining"}
    ]
    name = namespace["metadata"]["name"]
    return f"Namespace {name!r} is being deleted" + (f"; it waits: {'; '.join(said)}" if said else "")
