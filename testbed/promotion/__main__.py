"""The command of the promoter: `python -m testbed.promotion --config FILE --state FOLDER --listen HOST:PORT`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from aiohttp import web

from testbed.cluster.client import KubeClient
from testbed.errors import TestbedError, UsageError
from testbed.promotion.approvals import Approvals
from testbed.promotion.config import load_settings
from testbed.promotion.controller import Controller
from testbed.promotion.gate import NoGate, PrometheusGate
from testbed.promotion.health import ArgoHealth
from testbed.promotion.ledger import Ledger
from testbed.promotion.repository import Repository
from testbed.promotion.server import Server
from testbed.promotion.slack import SlackNotifications

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, help="The promoter.")


@app.command()
def run(
    config: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Settings, YAML.")],
    state: Annotated[Path, typer.Option(file_okay=False, help="Folder of the clone and the ledger.")],
    listen: Annotated[str, typer.Option(help="HOST:PORT.")] = "127.0.0.1:8080",
) -> None:
    """Promote until SIGTERM."""
    settings = load_settings(config)
    if settings.kubeconfig is None:
        raise UsageError("no kubeconfig is configured", fix="name the one of Argo CD's cluster")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("slack_sdk").setLevel(logging.WARNING)
    state.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(state / "ledger.sqlite")
    controller = Controller(
        settings,
        Repository(settings, state / "infra-apps.git"),
        ArgoHealth(settings, KubeClient(settings.kubeconfig)),
        PrometheusGate(settings) if settings.protections.gate else NoGate(),
        SlackNotifications(settings.slack),
        ledger,
    )
    server = Server(controller, Approvals(settings, ledger, controller.current))
    host, _, port = listen.rpartition(":")
    web.run_app(server.application(), host=host, port=int(port), print=None, access_log=None)
    ledger.close()


def main() -> None:
    """Run; an error is told in words."""
    try:
        app()
    except TestbedError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
