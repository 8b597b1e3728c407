"""One operator process: kopf, the reconciler, the lease, and a port for metrics and probes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp.web
import kopf
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from testbed.errors import UsageError
from testbed.operators import metrics
from testbed.operators.api import UNREACHABLE, Api, ApiError, Resource
from testbed.operators.engine import Controller
from testbed.operators.leader import Leader
from testbed.operators.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How a process runs; see `--help`."""

    kubeconfig: Path | None
    identity: str
    namespace: str
    lease_seconds: int
    resync_seconds: float
    workers: int
    metrics_listen: str
    webhook_listen: str
    webhook_certificate: Path | None
    webhook_key: Path | None
    config: Path | None


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def address(listen: str) -> tuple[str, int]:
    """Host and port of HOST:PORT.

    Raises:
        UsageError: It is not of that form.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"{listen!r} is no address to listen on", fix="give HOST:PORT, such as 127.0.0.1:9443")
    return host, int(port)


def login(kubeconfig: Path | None) -> Callable[[], kopf.ConnectionInfo]:
    """How to get credentials: the kubeconfig if there is one, else the pod's service account."""
    if kubeconfig is not None:
        os.environ["KUBECONFIG"] = str(kubeconfig)

    def find() -> kopf.ConnectionInfo:
        settings = kopf.OperatorSettings()
        arguments: dict[str, Any] = {"logger": log, "settings": settings}
        found = None if kubeconfig is not None else _in_cluster(kopf.login_with_service_account(**arguments))
        found = found or kopf.login_with_kubeconfig(**arguments)
        if found is None:
            raise UsageError("no cluster to log in to", fix="give --kubeconfig, or run in a pod with a service account")
        return found

    return find


def _in_cluster(found: kopf.ConnectionInfo | None) -> kopf.ConnectionInfo | None:
    """The pod's credentials with the API server by its address: no operator waits for the cluster's DNS."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if found is None or not host:
        return found
    return dataclasses.replace(found, server=f"https://{f'[{host}]' if ':' in host else host}:{port}")


class Operator:
    """Runs a controller until it is told to stop.

    Args:
        options: How.
        build: Makes the controller from the API and the store.
        register: Registers its webhooks, given registry, API and store.
    """

    def __init__(
        self,
        options: Options,
        name: str,
        build: Callable[[Api, Store], Controller],
        register: Callable[[kopf.OperatorRegistry, Api, Store], None],
    ) -> None:
        self._options = options
        self._leader = Leader(name, options.namespace, options.identity, options.lease_seconds)
        self._login = login(options.kubeconfig)
        self._build = build
        self._register = register
        self._store = Store()

    async def run(self) -> None:
        """Until SIGTERM or SIGINT; then the lease is given up, so that another replica goes on at once."""
        api = Api(self._login, f"platform-{self._leader.name}", self._leader.leading)
        controller = self._build(api, self._store)
        registry = self._registry(controller)
        if self._options.webhook_certificate is not None:
            self._register(registry, api, self._store)
        http = await self._serve(controller)
        before = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=registry,
            settings=self._settings(controller),
            clusterwide=True,
            standalone=True,
            # kopf would else ask for the name of a user, whom a container has not. (A NewType that it does not export.)
            identity=self._options.identity,  # type: ignore[arg-type]
        )
        watching = asyncio.create_task(kopf.run_tasks(tasks, ignored=before))
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):  # in the place of kopf's: the lease must go first
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        first = asyncio.create_task(self._first_sync(controller))
        work = [
            asyncio.create_task(self._leader.run(api, controller.started, controller.stopped)),
            asyncio.create_task(controller.run()),
        ]
        end = asyncio.create_task(told.wait())
        try:
            done, _ = await asyncio.wait([*work, watching, end], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await _cancel(first, end, *work)
            with contextlib.suppress(ApiError, *UNREACHABLE):
                await self._leader.release(api)
            await _cancel(watching)
            await http.cleanup()
            await api.close()

    async def _first_sync(self, controller: Controller) -> None:
        """Replicas that do not lead know the teams, too: their webhooks answer."""
        while not controller.synced:
            try:
                await controller.sync()
            except (ApiError, *UNREACHABLE) as error:
                log.warning("the first list failed: %s", error)
                await asyncio.sleep(0.5)

    def _registry(self, controller: Controller) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        def credentials(**_: Any) -> kopf.ConnectionInfo:
            return self._login()

        for resource, _ in controller.watched:
            self._watch(registry, controller, resource)
        return registry

    @staticmethod
    def _watch(registry: kopf.OperatorRegistry, controller: Controller, resource: Resource) -> None:
        head = {"apiVersion": resource.api_version, "kind": resource.kind}

        @kopf.on.event(
            resource.group, resource.version, resource.plural, id=f"see-{resource.plural}", registry=registry
        )
        async def see(event: kopf.RawEvent, **_: Any) -> None:
            controller.heard(resource, event["type"], head | dict(event["object"]))

    def _settings(self, controller: Controller) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False  # the reconciler posts its own events; kopf would post its log
        settings.scanning.disabled = False
        settings.queueing.idle_timeout = 1.0  # a worker a changed object is memory while it idles
        settings.networking.error_backoffs = (0.2, 0.5, 1, 1, 2, 2, 3, 5, 8, 13, 21)
        settings.process.ultimate_exiting_timeout = 20
        for resource, selector in controller.watched:
            if selector:
                settings.watching.label_selectors[resource.group, resource.version, resource.plural] = selector
        if self._options.webhook_certificate is not None:
            host, port = address(self._options.webhook_listen)
            settings.admission.server = kopf.WebhookServer(
                addr=host,
                port=port,
                host=host,
                certfile=self._options.webhook_certificate,
                pkeyfile=self._options.webhook_key,
            )
        return settings

    async def _serve(self, controller: Controller) -> aiohttp.web.AppRunner:
        async def show(_: aiohttp.web.Request) -> aiohttp.web.Response:
            return aiohttp.web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

        async def alive(_: aiohttp.web.Request) -> aiohttp.web.Response:
            return aiohttp.web.Response(text="ok\n")

        async def ready(_: aiohttp.web.Request) -> aiohttp.web.Response:
            problem = "the first list is not complete" if not controller.synced else await self._webhook_problem()
            return aiohttp.web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)

        app = aiohttp.web.Application()
        app.add_routes(
            [
                aiohttp.web.get(path, what)
                for path, what in (("/metrics", show), ("/healthz", alive), ("/readyz", ready))
            ]
        )
        runner = aiohttp.web.AppRunner(app, handle_signals=False, access_log=None)
        await runner.setup()
        await aiohttp.web.TCPSite(runner, *address(self._options.metrics_listen)).start()
        metrics.LEADING.labels(controller.name).set(0)
        return runner

    async def _webhook_problem(self) -> str:
        """Why the webhooks cannot be called; empty when they can, or when none are served."""
        if self._options.webhook_certificate is None:
            return ""
        try:
            _, writer = await asyncio.open_connection(*address(self._options.webhook_listen))
        except OSError as error:
            return f"the webhooks do not listen yet: {error}"
        writer.close()
        return ""
