"""The command `testbed`. Commands import what they use when they run: `down` must not wait for the rest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from testbed.errors import TestbedError, UsageError

if TYPE_CHECKING:
    from testbed.config import PlatformSpec
    from testbed.platform import Platform

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A GitOps-on-EKS platform on one machine, and the incidents that it must survive.",
    epilog="Start with: testbed run. Keep a platform to play with: testbed up, then kubectl, then testbed down.",
)
Name = Annotated[str, typer.Option("--name", help="Which kept platform.")]
Config = Annotated[
    Path | None, typer.Option("--config", help=r"Configuration instead of \[tool.testbed] in pyproject.toml.")
]
Backend = Annotated[str | None, typer.Option("--backend", help="embedded (default), kind or existing.")]
Kubeconfig = Annotated[Path | None, typer.Option("--kubeconfig", help="Backend existing: the kubeconfig.")]
NodeImage = Annotated[
    str | None, typer.Option("--node-image", help="Backend kind: the node image (default: that of kind's version).")
]
Allow = Annotated[
    list[str] | None,
    typer.Option("--allow-context", help="Backend existing: a context that may be used although not on loopback."),
]


@app.command()
def run(
    scenarios: Annotated[
        list[str] | None,
        typer.Argument(help="Names (`testbed scenarios` lists them), files, or pytest node ids; all without one."),
    ] = None,
    backend: Backend = None,
    config: Config = None,
    kubeconfig: Kubeconfig = None,
    allow_context: Allow = None,
    node_image: NodeImage = None,
    use: Annotated[str | None, typer.Option(help="Run on the platform that `testbed up --name` left running.")] = None,
    keep: Annotated[bool, typer.Option(help="Leave the platform running afterwards.")] = False,
    strict: Annotated[
        bool | None,
        typer.Option("--strict/--no-strict", help="Needs that are not met are failures, not skips (default: in CI)."),
    ] = None,
    folder: Annotated[Path, typer.Option("--report", help="Where the report and evidence go.")] = Path(".testbed"),
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit report, too.")] = None,
) -> None:
    """Run scenarios, each with its negative control: tools, platform, verdicts, and nothing left behind.

    Exit code 0: every guard held and every control saw its incident; 1: not so; 2: the input was wrong, or there was
    no scenario; 3: pytest itself failed; 130: Ctrl-C.

    A scenario whose needs the backend does not meet is skipped: the exit code stays 0, and a line says how many were.
    With --strict, the default where $CI is set, it fails.
    """
    from testbed.paths import kept_folder
    from testbed.scenario_run import run_pytest
    from testbed.scenarios import find
    from testbed.toolchain import Toolchain
    from testbed.toolchain.cli import build_with_progress

    paths = find(scenarios or [])
    spec = _spec(config, backend=backend, kubeconfig=kubeconfig, allow_context=allow_context, node_image=node_image)
    options = [f"--testbed-report={folder}"]
    options += [f"--testbed-config={config}"] if config else []
    options += [f"--testbed-backend={backend}"] if backend else []
    options += [f"--testbed-kubeconfig={kubeconfig}"] if kubeconfig else []
    options += [f"--testbed-allow-context={name}" for name in allow_context or []]
    options += [f"--testbed-node-image={node_image}"] if node_image else []
    options += [f"--junit-xml={junit}"] if junit else []
    options += ["--testbed-keep"] if keep else []
    options += [] if strict is None else ["--testbed-strict" if strict else "--testbed-no-strict"]
    if use:
        kept_folder(use)
        options.append(f"--testbed-use={use}")
    else:
        spec.require_machine()
        build_with_progress(Toolchain(), spec.tools())
    raise typer.Exit(run_pytest(paths, options))


@app.command()
def scenarios() -> None:
    """List the scenarios: what breaks, and which guard must hold."""
    from testbed.scenarios import catalogue

    for name, title in catalogue().items():
        sys.stdout.write(f"{name}\n    {title}\n")


@app.command()
def up(
    name: Name = "default",
    clusters: Annotated[
        str | None, typer.Option(help="Names of clusters, with commas; as configured where they are (default: dev).")
    ] = None,
    addons: Annotated[
        str | None, typer.Option(help="Add-ons, with commas; empty for none (default: gatekeeper).")
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option(
            help="Nodes of each cluster: one group, like the first that is configured, instead of all (default: 3)."
        ),
    ] = None,
    backend: Backend = None,
    config: Config = None,
    kubeconfig: Kubeconfig = None,
    allow_context: Allow = None,
    node_image: NodeImage = None,
    snapshot: Annotated[bool, typer.Option(help="Start from a snapshot where there is one.")] = True,
) -> None:
    """Start a platform and leave it running until `testbed down`. Prints an `export KUBECONFIG=` a cluster."""
    from testbed.paths import kept_folder
    from testbed.platform import Platform
    from testbed.toolchain import Toolchain
    from testbed.toolchain.cli import build_with_progress

    folder = kept_folder(name)
    given: dict[str, object] = {
        "backend": backend,
        "kubeconfig": kubeconfig,
        "allow_context": allow_context,
        "node_image": node_image,
        "addons": [one for one in addons.split(",") if one] if addons is not None else None,
        "snapshots": None if snapshot else False,
    }
    spec = _spec(config, **given)
    if clusters is not None or nodes is not None:
        spec = _spec(config, **given, clusters=_clusters(spec, clusters, nodes))
    spec.require_machine()
    toolchain = Toolchain()
    build_with_progress(toolchain, spec.tools())
    platform = Platform.up(spec, folder, toolchain, _say)
    platform.supervisor.keep()
    for cluster in platform.clusters.values():
        sys.stdout.write(f"export KUBECONFIG={cluster.kubeconfig}\n")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _clusters(spec: PlatformSpec, names: str | None, nodes: int | None) -> list[dict[str, Any]]:
    """The clusters of these names (all without), each as configured where it is, with so many nodes."""
    configured = {one.name: one.model_dump() for one in spec.clusters}
    chosen = [*configured] if names is None else names.split(",")
    found = [configured.get(name, {"name": name}) for name in chosen]
    if nodes is None:
        return found
    return [{**one, "node_groups": [{**next(iter(one.get("node_groups", [])), {}), "count": nodes}]} for one in found]


def _spec(config: Path | None, **given: object) -> PlatformSpec:
    from testbed.config import load

    kubeconfig, contexts = given.pop("kubeconfig", None), given.pop("allow_context", None)
    if kubeconfig or contexts:
        given["existing"] = {"kubeconfig": kubeconfig, "allow_contexts": contexts or []}
    return load(config, **given)


@app.command()
def status(name: Name = "default") -> None:
    """Show every component of a platform: state, restarts, memory; and what is real and what is simulated."""
    from rich.console import Console
    from rich.table import Table

    platform = _attached(name)
    memory = platform.supervisor.resident_bytes()
    table = Table("component", "state", "pid", "restarts", "MB")
    for component in platform.supervisor.components().values():
        size = f"{memory.get(component.name, 0) / 1e6:.0f}"
        table.add_row(component.name, component.state, str(component.pid), str(component.restarts), size)
    Console().print(table)
    Console().print(f"together {sum(memory.values()) / 1e6:.0f} MB resident, shared pages counted once")
    said = (f"{part.part}: real: {part.real}; simulated: {part.simulated or 'nothing'}" for part in platform.fidelity())
    for text in dict.fromkeys(said):  # clusters have the same add-ons
        Console().print(text)


def _attached(name: str) -> Platform:
    from testbed.paths import kept_folder
    from testbed.platform import Platform
    from testbed.toolchain import Toolchain

    platform = Platform.attach(kept_folder(name), Toolchain())
    if platform is None:
        raise UsageError(f"no platform {name!r} is running", fix="start it with `testbed up`")
    return platform


@app.command()
def kubeconfig(
    cluster: Annotated[str | None, typer.Argument(help="A cluster by name; the first without one.")] = None,
    name: Name = "default",
) -> None:
    """Print the path of a cluster's kubeconfig."""
    platform = _attached(name)
    chosen = cluster or platform.cluster.name
    if chosen not in platform.clusters:
        raise UsageError(f"there is no cluster {chosen!r}", fix=f"use one of: {', '.join(platform.clusters)}")
    sys.stdout.write(f"{platform.clusters[chosen].kubeconfig}\n")


@app.command()
def down(name: Name = "default") -> None:
    """Stop a platform and remove its folder. Fine if there is none."""
    from testbed.paths import kept_folder
    from testbed.supervisor import Supervisor
    from testbed.teardown import runs_on_existing

    folder = kept_folder(name)
    if runs_on_existing(folder):
        from testbed.platform import Platform
        from testbed.toolchain import Toolchain

        Platform.take_away(folder, Toolchain())
    else:
        Supervisor(folder).destroy()


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Where the last run wrote.")] = Path(".testbed")) -> None:
    """Print the verdicts of the last run."""
    from testbed.report.table import read_report, render

    run, results = read_report(folder)
    sys.stdout.write(render(results, color=sys.stdout.isatty()))
    for lane, platform in run.get("platforms", {}).items():
        for part in platform["fidelity"]:
            simulated = part["simulated"] or "nothing"
            sys.stdout.write(f"{lane}: {part['part']}: real: {part['real']}; simulated: {simulated}\n")


@app.command()
def doctor(
    network: Annotated[
        bool | None, typer.Option(help="Ask the Go module proxy; by default only when a tool has to be built.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For a program.")] = False,
) -> None:
    """Say what this machine has, what is missing and how to get it.

    Exit code 0: every scenario can run here. 1: all or some cannot, and the last lines say which.
    """
    from testbed.doctor.examination import examine, ready, render, render_json

    checks = examine(network=network)
    if as_json:
        sys.stdout.write(f"{render_json(checks)}\n")
    else:
        render(checks)
    raise typer.Exit(0 if ready(checks) else 1)


@app.command()
def bench(
    only: Annotated[list[str] | None, typer.Argument(help="Cases; all without one.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each start is measured.")] = 3,
    requests: Annotated[int, typer.Option(min=1, help="Admission requests.")] = 1000,
    pods: Annotated[int, typer.Option(min=1, max=20000, help="Pods of the scheduling case.")] = 1000,
    rate: Annotated[int, typer.Option(min=1, help="Requests per second of the gateway case.")] = 5000,
    seconds: Annotated[int, typer.Option(min=1, help="How long each load of the gateway case lasts.")] = 30,
    output: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path(".testbed/bench.json"),
) -> None:
    """Measure starts (beside envtest and kwokctl), memory, admission, scheduling and the gateway on this machine.

    Cases: control-plane, cluster, platform, memory, admission, scheduling, gateway. A benchmark reports, never fails.
    """
    from testbed.bench.command import run as run_bench

    run_bench(only or [], output, rounds=rounds, requests=requests, pods=pods, rate=rate, seconds=seconds)


def _add_tools() -> None:
    from testbed.aws.cli import app as aws_app
    from testbed.toolchain.cli import app as tools_app

    app.add_typer(tools_app, name="tools")
    app.add_typer(aws_app, name="aws")


def main() -> None:
    """Entry point: a TestbedError becomes its three lines and its exit code."""
    if sys.argv[1:2] != ["down"]:
        _add_tools()
    try:
        app()
    except TestbedError as error:
        from rich.console import Console

        Console(stderr=True).print(f"testbed: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
