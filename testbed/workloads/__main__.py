"""The command of the agent: `python -m testbed.workloads --help`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from testbed.errors import TestbedError, UsageError
from testbed.workloads.agent import Agent
from testbed.workloads.cgroups import Cgroups
from testbed.workloads.context import Settings
from testbed.workloads.images import IMAGES
from testbed.workloads.kube import Kube
from testbed.workloads.kubelet import Identity


def _tools(entries: list[str]) -> dict[str, Path]:
    found = {name: Path(path) for name, _, path in (entry.partition("=") for entry in entries)}
    for image in IMAGES:
        if not found.get(image.tool, Path()).is_file():
            raise UsageError(
                f"there is no binary for {image.tool}",
                why=f"pods of {', '.join(image.repositories)} run it",
                fix=f"give --tool {image.tool}=PATH",
            )
    return found


async def _run(options: argparse.Namespace) -> None:
    settings = Settings(
        back_off=options.back_off,
        longest_back_off=options.longest_back_off,
        tools=_tools(options.tool),
        cgroups=Cgroups.find(),
    )
    for folder in (options.folder, options.logs):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        identity = Identity(options.certificate, options.key, options.authority)
        await Agent(Kube(options.kubeconfig), settings, identity, options.folder, options.logs).run()
    finally:
        settings.cgroups.close()


def main() -> None:
    """Entry point: an error becomes its three lines and its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.workloads", description="Runs the pods of known images as processes of this machine."
    )
    parser.add_argument("--kubeconfig", type=Path, required=True, help="JSON, certificates inlined")
    parser.add_argument("--folder", type=Path, required=True, help="for its state and the pods' scratch files")
    parser.add_argument("--logs", type=Path, required=True, help="for the pods' logs")
    for name, what in (("certificate", "its certificate"), ("key", "its key"), ("authority", "its clients' authority")):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"of the kubelet's API: {what}")
    parser.add_argument("--tool", action="append", default=[], metavar="NAME=PATH", help="binary of an image's tool")
    parser.add_argument("--back-off", type=float, default=10, help="seconds before the second restart (default: 10)")
    parser.add_argument("--longest-back-off", type=float, default=300, help="seconds at most (default: 300)")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    try:
        asyncio.run(_run(parser.parse_args()))
    except TestbedError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
