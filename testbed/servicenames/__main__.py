"""`python -m testbed.servicenames --kubeconfig FILE --listen HOST:PORT`: the forward proxy."""

from __future__ import annotations

import argparse
import asyncio
import logging
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from testbed.errors import TestbedError
from testbed.operators.api import UNREACHABLE, Api, ApiError, Resource
from testbed.operators.runtime import address, login
from testbed.servicenames.names import endpoint, split

SERVICE = Resource("v1", "Service", "services")
ENDPOINT_SLICE = Resource("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
TIMEOUT = aiohttp.ClientTimeout(total=60)
HOP_BY_HOP = {"connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer"}
log = logging.getLogger("testbed.servicenames")


class Forwarder:
    """Answers one request by asking a pod."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._session = aiohttp.ClientSession(timeout=TIMEOUT, auto_decompress=False)

    async def _find(self, host: str, port: int) -> tuple[str, int]:
        name, namespace = split(host)
        service = await self._api.get(SERVICE, name, namespace)
        if service is None:
            raise TestbedError(f"there is no Service {name} in {namespace}", fix="correct the name")
        selector = {"labelSelector": f"kubernetes.io/service-name={name}"}
        slices = await self._api.request("GET", ENDPOINT_SLICE.path(namespace), params=selector)
        return endpoint(service, slices.get("items") or [], port)

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        """Forward it; 502 where there is no pod to ask, with the reason."""
        target = request.raw_path
        parts = urlsplit(target if "://" in target else f"http://{request.host}{target}")
        try:
            host, port = await self._find(parts.hostname or "", parts.port or 80)
            path = parts.path or "/"
            url = f"http://{host}:{port}{path}" + (f"?{parts.query}" if parts.query else "")
            headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
            async with self._session.request(
                request.method, url, headers=headers, data=await request.read(), allow_redirects=False
            ) as answer:
                kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
                kept.pop("Content-Length", None)
                return web.Response(status=answer.status, headers=kept, body=await answer.read())
        except (TestbedError, ApiError, *UNREACHABLE) as error:
            said = error.what if isinstance(error, TestbedError) else str(error)
            log.warning("%s %s: %s", request.method, target, said)
            return web.Response(status=502, text=f"{said}\n")


async def serve(kubeconfig: Path, listen: str) -> None:
    """For ever."""
    api = Api(login(kubeconfig), "service-names", lambda: False)
    runner = web.ServerRunner(web.Server(Forwarder(api), access_log=None))
    await runner.setup()
    await web.TCPSite(runner, *address(listen)).start()
    await asyncio.Event().wait()


def main() -> None:
    """For ever."""
    parser = argparse.ArgumentParser(prog="python -m testbed.servicenames")
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(serve(options.kubeconfig, options.listen))


if __name__ == "__main__":
    main()
