"""`testbed aws`: seven accounts to play with."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from testbed.aws.accounts import ACCOUNTS, find_account
from testbed.errors import UsageError
from testbed.paths import platforms_folder

if TYPE_CHECKING:
    from testbed.aws.cloud import Cloud

app = typer.Typer(no_args_is_help=True, help="Seven AWS accounts behind one loopback endpoint.")
FOLDER = "aws-kept"


def _attached() -> Cloud:
    from testbed.aws.cloud import Cloud

    cloud = Cloud.attach(platforms_folder() / FOLDER)
    if cloud is None:
        raise UsageError("the AWS accounts are not running", fix="start them with `testbed aws up`")
    return cloud


@app.command()
def up(backend: Annotated[str, typer.Option(help="process or container")] = "process") -> None:
    """Start the accounts and leave them running until `testbed aws down`."""
    if backend not in ("process", "container"):
        raise UsageError(f"unknown backend {backend!r}", fix="use process or container")
    from testbed.aws.cloud import Cloud
    from testbed.toolchain import Toolchain

    cloud = Cloud.up(platforms_folder() / FOLDER, Toolchain(), "container" if backend == "container" else "process")
    cloud.supervisor.keep()
    for what, seconds in cloud.timings.items():
        Console(stderr=True).print(f"{what} after {seconds} s", highlight=False)
    sys.stdout.write("testbed aws env ACCOUNT prints what a shell needs\n")


@app.command()
def env(
    account: Annotated[str, typer.Argument(help="An account by name.")],
    role: Annotated[str, typer.Option(help="The role to take.")] = "admin",
) -> None:
    """Print exports for a shell: the endpoint and an account's temporary credentials. Use with `eval`."""
    wanted = find_account(account)
    cloud = _attached()
    environment = cloud.environment(cloud.assume(wanted.name, role, "shell"))
    sys.stdout.write("unset AWS_PROFILE AWS_SESSION_TOKEN AWS_ROLE_ARN AWS_WEB_IDENTITY_TOKEN_FILE\n")
    for name, value in environment.items():
        if name.startswith("AWS_") or name == "HTTP_PROXY":
            sys.stdout.write(f"export {name}={shlex.quote(value)}\n")


@app.command()
def accounts() -> None:
    """Show the accounts."""
    table = Table("account", "id", "unit")
    for account in ACCOUNTS.values():
        table.add_row(account.name, account.id, account.unit or "(root)")
    Console().print(table)


@app.command()
def trail(
    account: Annotated[str | None, typer.Argument(help="An account by name; all seven without one.")] = None,
) -> None:
    """Print the calls so far: who, with which kind of credential, what."""
    cloud = _attached()
    for event in cloud.trail.events(*([account] if account else [])):
        sys.stdout.write(f"{event.time:%H:%M:%S} {event.account} {event.credential}: {event}\n")


@app.command()
def down() -> None:
    """Stop the accounts. Fine if they are not running."""
    from testbed.supervisor import Supervisor

    Supervisor(platforms_folder() / FOLDER).destroy()
