"""The command of the gateway's controller: `python -m testbed.gateway --help`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from testbed.errors import TestbedError
from testbed.gateway.controller import NAME, Controller
from testbed.gateway.proxy import Proxy
from testbed.operators.api import Api
from testbed.operators.runtime import login
from testbed.workloads.addresses import loopback_of

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


def _translated(address: str) -> str:
    """Where a pod listens on this machine; an address that is no pod's stays as it is."""
    try:
        return loopback_of(address)
    except TestbedError:
        return address


async def _run(kubeconfig: Path, folder: Path, admin: str) -> None:
    api = Api(login(kubeconfig), NAME, lambda: True)
    proxy = Proxy(folder, admin)
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    work = asyncio.create_task(Controller(api, proxy, _translated).run())
    end = asyncio.create_task(told.wait())
    try:
        await asyncio.wait([work, end], return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
    finally:
        work.cancel()
        end.cancel()
        await asyncio.gather(work, end, return_exceptions=True)
        await proxy.close()
        await api.close()


@app.command()
def gateway(
    kubeconfig: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Whose rights the controller has.")],
    folder: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Where Envoy watches its configuration.")],
    admin: Annotated[str, typer.Option(help="URL of Envoy's admin API.")],
) -> None:
    """Turn GatewayClasses, Gateways and HTTPRoutes into the configuration of an Envoy on this machine."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(_run(kubeconfig, folder, admin))


def main() -> None:
    """Entry point: an error becomes its lines and its exit code."""
    try:
        app()
    except TestbedError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
