"""The command of the operators: `python -m testbed.operators tenant-workspace --help`."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import kopf
import typer

from testbed.errors import TestbedError, UsageError
from testbed.operators import canary, config, tenant
from testbed.operators.canary import controller as canary_controller
from testbed.operators.canary import webhook as canary_webhook
from testbed.operators.runtime import Operator, Options, address
from testbed.operators.tenant import controller as tenant_controller
from testbed.operators.tenant import webhook as tenant_webhook

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help="The platform's operators."
)


def _main(operator: Operator, verbose: bool) -> None:
    kopf.configure(verbose=verbose, log_format=kopf.LogFormat.JSON, log_refkey="object")
    if not verbose:
        for name in ("kopf", "aiohttp.access"):  # a line for every object seen and every request answered
            logging.getLogger(name).setLevel(logging.WARNING)
        # A refusal is the webhook's work, not a failure; it is logged and counted as such.
        logging.getLogger("kopf.objects").addFilter(lambda record: "failed permanently" not in record.getMessage())
    asyncio.run(operator.run())


@app.callback()
def options(
    context: typer.Context,
    kubeconfig: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Without it, the pod's service account.")
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", exists=True, dir_okay=False, help="The platform's settings, YAML.")
    ] = None,
    identity: Annotated[str, typer.Option(help="Of this replica; a pod's name.")] = "",
    namespace: Annotated[str, typer.Option(help="Where the lease is.")] = "platform-operators",
    lease_seconds: Annotated[int, typer.Option(min=2, help="How long a dead leader is waited for.")] = 15,
    resync_seconds: Annotated[float, typer.Option(min=1, help="Between two comparisons of everything.")] = 60,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Reconciliations at a time.")] = 8,
    metrics_listen: Annotated[str, typer.Option(help="HOST:PORT of metrics and probes.")] = "127.0.0.1:8080",
    webhook_listen: Annotated[str, typer.Option(help="HOST:PORT of the webhooks.")] = "127.0.0.1:9443",
    webhook_certificate: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="PEM; without it no webhook is served.")
    ] = None,
    webhook_key: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="PEM.")] = None,
    verbose: Annotated[bool, typer.Option(help="Log what kopf does, too.")] = False,
) -> None:
    """Options of both operators; they come before the operator's name."""
    if (webhook_certificate is None) != (webhook_key is None):
        raise UsageError("a webhook needs certificate and key", fix="give both --webhook-certificate and --webhook-key")
    for listen in (metrics_listen, webhook_listen):
        address(listen)
    context.obj = (
        Options(
            kubeconfig=kubeconfig,
            identity=identity or os.environ.get("POD_NAME") or socket.gethostname(),
            namespace=namespace,
            lease_seconds=lease_seconds,
            resync_seconds=resync_seconds,
            workers=workers,
            metrics_listen=metrics_listen,
            webhook_listen=webhook_listen,
            webhook_certificate=webhook_certificate,
            webhook_key=webhook_key,
            config=config_file,
        ),
        verbose,
    )


@app.command()
def tenant_workspace(context: typer.Context) -> None:
    """Provision and keep TenantWorkspaces."""
    chosen, verbose = context.obj
    settings = config.load(config.TenantConfig, chosen.config)
    _main(
        Operator(
            chosen,
            tenant.NAME,
            lambda api, store: tenant_controller.TenantController(
                api, store, settings, workers=chosen.workers, resync=chosen.resync_seconds
            ),
            lambda registry, api, store: tenant_webhook.register(registry, api, store, settings),
        ),
        verbose,
    )


@app.command()
def canary_policy(context: typer.Context) -> None:
    """Turn CanaryPolicies into Flagger's Canaries."""
    chosen, verbose = context.obj
    settings = config.load(config.CanaryConfig, chosen.config)
    _main(
        Operator(
            chosen,
            canary.NAME,
            lambda api, store: canary_controller.CanaryController(
                api, store, settings, workers=chosen.workers, resync=chosen.resync_seconds
            ),
            lambda registry, api, store: canary_webhook.register(registry, settings),
        ),
        verbose,
    )


def main() -> None:
    """Entry point: an error becomes its three lines and its exit code."""
    try:
        app()
    except TestbedError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
