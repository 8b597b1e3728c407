"""The command `testbed`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from testbed.cluster import ClusterSpec, NodeGroup
from testbed.errors import TestbedError, UsageError
from testbed.platform import Platform, PlatformSpec, platforms_folder
from testbed.supervisor import Supervisor
from testbed.toolchain import Toolchain
from testbed.toolchain.cli import app as tools_app
from testbed.toolchain.cli import build_with_progress

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A GitOps-on-EKS platform on one machine, and the incidents that it must survive.",
)
app.add_typer(tools_app, name="tools")
Name = Annotated[str, typer.Option("--name", help="Which kept platform.")]


def _folder(name: str) -> Path:
    if not name.replace("-", "").isalnum():
        raise UsageError(f"{name!r} is no name for a platform", fix="use letters, digits and hyphens")
    return platforms_folder() / f"kept-{name}"


def _attached(name: str) -> Platform:
    platform = Platform.attach(_folder(name), Toolchain())
    if platform is None:
        raise UsageError(f"no platform {name!r} is running", fix="start it with `testbed up`")
    return platform


@app.command()
def run(
    scenarios: Annotated[list[Path] | None, typer.Argument(help="Scenario files; all without one.")] = None,
) -> None:
    """Run scenarios, each with its negative control: tools, platform, verdicts, and nothing left behind."""
    wanted = scenarios or [Path("scenarios")]
    for path in wanted:
        if not Path(str(path).split("::")[0]).exists():
            known = ", ".join(sorted(file.name for file in Path("scenarios").glob("test_*.py")))
            raise UsageError(f"there is no scenario {path}", fix=f"use a path such as scenarios/... of: {known}")
    build_with_progress(Toolchain(), PlatformSpec().tools())
    raise typer.Exit(int(pytest.main([*map(str, wanted), "-q"])))


@app.command()
def up(
    name: Name = "default",
    clusters: Annotated[str, typer.Option(help="Names of clusters, with commas.")] = "dev",
    addons: Annotated[str, typer.Option(help="Add-ons, with commas; empty for none.")] = "gatekeeper",
    nodes: Annotated[int, typer.Option(help="Nodes of each cluster.")] = 3,
) -> None:
    """Start a platform and leave it running until `testbed down`."""
    try:
        groups = [NodeGroup(count=nodes)]
        spec = PlatformSpec(
            clusters=[ClusterSpec(name=cluster, node_groups=groups) for cluster in clusters.split(",")],
            addons=[addon for addon in addons.split(",") if addon],
        )
    except ValidationError as error:
        raise UsageError("the platform cannot be as asked for", why=str(error), fix="see `testbed up --help`") from None
    tools = spec.tools()
    toolchain = Toolchain()
    build_with_progress(toolchain, tools)
    platform = Platform.up(spec, _folder(name), toolchain, Console(stderr=True).print)
    platform.supervisor.keep()
    for cluster in platform.clusters.values():
        sys.stdout.write(f"export KUBECONFIG={cluster.kubeconfig}\n")


@app.command()
def status(name: Name = "default") -> None:
    """Show every component of a platform: state, restarts, memory."""
    platform = _attached(name)
    memory = platform.supervisor.resident_bytes()
    table = Table("component", "state", "pid", "restarts", "MB")
    for component in platform.supervisor.components().values():
        size = f"{memory.get(component.name, 0) / 1e6:.0f}"
        table.add_row(component.name, component.state, str(component.pid), str(component.restarts), size)
    Console().print(table)
    for part in platform.fidelity():
        Console().print(f"{part.part}: real: {part.real}; simulated: {part.simulated}")


@app.command()
def kubeconfig(
    cluster: Annotated[str, typer.Argument(help="A cluster by name.")] = "dev", name: Name = "default"
) -> None:
    """Print the path of a cluster's kubeconfig."""
    platform = _attached(name)
    if cluster not in platform.clusters:
        raise UsageError(f"there is no cluster {cluster!r}", fix=f"use one of: {', '.join(platform.clusters)}")
    sys.stdout.write(f"{platform.clusters[cluster].kubeconfig}\n")


@app.command()
def down(name: Name = "default") -> None:
    """Stop a platform. Fine if there is none."""
    Supervisor(_folder(name)).destroy()


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Where the last run wrote.")] = Path(".testbed")) -> None:
    """Print the verdicts of the last run."""
    path = folder / "report.json"
    if not path.is_file():
        raise UsageError(f"there is no report at {path}", fix="run `testbed run` first")
    for scenario, entry in json.loads(path.read_text()).items():
        sys.stdout.write(f"{scenario}: {entry['guard']}; control: {entry['control']}\n")


@app.command()
def doctor(
    network: Annotated[
        bool | None, typer.Option(help="Ask the Go module proxy; by default only when a tool has to be built.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For a program.")] = False,
) -> None:
    """Say what this machine has, what is missing and how to get it. Exit code 0: the scenarios can run here."""
    from testbed.doctor.examination import examine, ready, render, render_json

    checks = examine(network=network)
    if as_json:
        sys.stdout.write(f"{render_json(checks)}\n")
    else:
        console = Console()
        if not console.is_terminal:
            console.width = 160
        render(checks, console)
    raise typer.Exit(0 if ready(checks) else 1)


def main() -> None:
    """Entry point: a TestbedError becomes its three lines and its exit code."""
    try:
        app()
    except TestbedError as error:
        Console(stderr=True).print(f"testbed: {error}", style="red", highlight=False, markup=False)
        sys.exit(error.exit_code)
