"""The command of the gateway's controller: `python -m testbed.gateway --help`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from testbed.errors import TestbedError
from testbed.gateway.controller import Controller
from testbed.gateway.proxy import Proxy
from testbed.workloads.addresses import loopback_of
from testbed.workloads.kube import Kube


def _translated(address: str) -> str:
    """Where a pod listens on this machine; an address that is no pod's stays as it is."""
    try:
        return loopback_of(address)
    except TestbedError:
        return address


async def _run(kubeconfig: Path, folder: Path, admin: str) -> None:
    kube = Kube(kubeconfig)
    proxy = Proxy(folder, admin)
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    work = asyncio.create_task(Controller(kube, proxy, _translated).run())
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
        await kube.close()


def main() -> None:
    """Entry point: an error becomes its lines and its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.gateway",
        description="Turns GatewayClasses, Gateways and HTTPRoutes into the configuration of an Envoy on this machine.",
    )
    parser.add_argument("--kubeconfig", type=Path, required=True, help="whose rights the controller has; JSON")
    parser.add_argument("--folder", type=Path, required=True, help="where Envoy watches its configuration")
    parser.add_argument("--admin", required=True, help="URL of Envoy's admin API")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(_run(options.kubeconfig, options.folder, options.admin))
    except TestbedError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
