"""Keeping a store true: list, then watch, for each kind (what client-go calls a reflector)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from testbed.operators.api import UNREACHABLE, Api, ApiError, Resource
from testbed.operators.store import Store

SHORTEST, LONGEST = 0.2, 2.0
"""Seconds before the next try while the API server is away."""
log = logging.getLogger(__name__)


async def reflect(api: Api, store: Store, resource: Resource, changed: Callable[[Resource], None]) -> None:
    """Keep all objects of a kind in the store, for ever; `changed` is called after each change.

    A list says what is gone, which a watch that was cut off cannot.
    """
    delay = SHORTEST
    while True:
        try:
            bodies, version = await api.list(resource)
            store.replace(resource, bodies, version)
            changed(resource)
            delay = SHORTEST
            async for kind, body in api.watch(resource, version):
                if kind == "DELETED":
                    store.remove(resource, body)
                else:
                    store.put(resource, body)
                changed(resource)
        except (ApiError, *UNREACHABLE) as error:
            # 410 Gone is the API server's way to ask for a new list.
            if not (isinstance(error, ApiError) and error.status == 410):
                log.warning("the watch of %s ended: %s", resource.plural, error)
                await asyncio.sleep(delay)
                delay = min(2 * delay, LONGEST)
