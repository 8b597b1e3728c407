"""The command line: what --help prints, what `up` makes of options and configuration, how `run` exits."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer
from rich.text import Text
from typer.testing import CliRunner

from testbed import cli
from testbed.aws.cli import app as aws_app
from testbed.cluster import ClusterSpec
from testbed.config import PlatformSpec
from testbed.errors import UsageError
from testbed.platform import Platform
from testbed.toolchain.cli import app as tools_app

Command = Callable[..., subprocess.CompletedProcess[str]]

CLUSTERS = """
[[clusters]]
name = "staging"
time_scale = 7
addons = []
node_groups = [{ name = "spot", count = 6, capacity_type = "SPOT" }, { name = "general" }]

[[clusters]]
name = "production"
api_port = 7443
"""


def texts(command: Any, path: str = "testbed") -> Iterator[tuple[str, str]]:
    """Every text of a command's --help and of its sub-commands'."""
    for kind in ("help", "epilog", "short_help"):
        yield f"{path} {kind}", getattr(command, kind, None) or ""
    for parameter in command.params:
        yield f"{path} {parameter.name}", getattr(parameter, "help", None) or ""
    for name, child in getattr(command, "commands", {}).items():
        yield from texts(child, f"{path} {name}")


def test_no_help_text_loses_its_brackets() -> None:
    """Rich takes `[name]` for markup and prints nothing for it, unless a backslash is before it."""
    found = [text for app in (cli.app, tools_app, aws_app) for text in texts(typer.main.get_command(app))]
    assert any(r"\[tool.testbed]" in text for _, text in found)
    for where, text in found:
        assert Text.from_markup(text).plain == text.replace(r"\[", "["), where


@pytest.mark.parametrize("command", ["run", "up"])
def test_help_prints_the_name_of_the_table(command: str) -> None:
    shown = CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "200"}).stdout
    assert "Configuration instead of [tool.testbed] in pyproject.toml." in shown


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PlatformSpec]:
    """What `testbed up ARGUMENTS` would start on the configuration above."""
    config = tmp_path / "platform.toml"
    config.write_text(CLUSTERS)
    specs: list[PlatformSpec] = []

    class EnoughError(Exception):
        """Nothing is to be started."""

    def instead_of_up(spec: PlatformSpec, *_: object) -> NoReturn:
        specs.append(spec)
        raise EnoughError

    monkeypatch.setattr(Platform, "up", instead_of_up)
    monkeypatch.setattr("testbed.toolchain.cli.build_with_progress", lambda *_: None)

    def up(*arguments: str) -> PlatformSpec:
        result = CliRunner().invoke(cli.app, ["up", "--config", str(config), *arguments])
        if isinstance(result.exception, UsageError):
            raise result.exception
        assert isinstance(result.exception, EnoughError), result.output
        return specs[-1]

    return up


def test_up_starts_configured_clusters_as_configured(started: Callable[..., PlatformSpec]) -> None:
    staging, production = started().clusters
    assert started("--clusters", "production,staging").clusters == [production, staging]
    assert started("--clusters", "staging,other").clusters == [staging, ClusterSpec(name="other")]


def test_up_changes_only_the_count_of_nodes(started: Callable[..., PlatformSpec]) -> None:
    staging, production = started().clusters
    fewer = staging.model_copy(update={"node_groups": [staging.node_groups[0].model_copy(update={"count": 2})]})
    assert started("--clusters", "staging", "--nodes", "2").clusters == [fewer]
    all_fewer = started("--nodes", "2").clusters
    assert all_fewer[0] == fewer
    assert (all_fewer[1].api_port, [group.count for group in all_fewer[1].node_groups]) == (production.api_port, [2])


def test_up_still_refuses_a_count_that_is_none(started: Callable[..., PlatformSpec]) -> None:
    with pytest.raises(UsageError, match=r"clusters.0.node_groups.0.count"):
        started("--clusters", "staging", "--nodes", "-1")


SKIPS = """
import pytest

@pytest.mark.needs("images")
def test_it(): ...

@pytest.mark.needs("images")
@pytest.mark.scenario(guard=None)
def test_scenario(guard): ...
"""


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("def test_it(): raise ValueError('broken')", 1, "ValueError: broken"),
        ("def test_it(): raise KeyboardInterrupt", 130, "KeyboardInterrupt"),
        ("import nothing.of.that.name", 2, "No module named 'nothing'"),
        ("import pytest\n@pytest.mark.needs('gatekeper')\ndef test_it(): ...", 2, "did you mean 'gatekeeper'"),
        ("answer = 42", 2, "no scenario was run"),
        (SKIPS, 0, "skipped scenarios: 1; with --testbed-strict they would fail"),
    ],
    ids=["failed", "Ctrl-C", "broken file", "usage error", "no test", "skipped"],
)
def test_exit_codes_of_run(
    testbed_command: Command, toolchain: object, tmp_path: Path, content: str, code: int, words: str
) -> None:
    (tmp_path / "test_outage.py").write_text(content)
    result = testbed_command("run", "test_outage.py", cwd=tmp_path)
    assert result.returncode == code, result.stdout + result.stderr
    assert words in result.stdout + result.stderr


def test_no_strict_holds_in_ci(
    testbed_command: Command, toolchain: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    (tmp_path / "test_outage.py").write_text(SKIPS)
    assert testbed_command("run", "test_outage.py", "--no-strict", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("variable", "options", "strict"),
    [
        ("", [], False),
        ("0", [], False),
        ("False", [], False),
        ("true", [], True),
        ("true", ["--testbed-no-strict"], False),
        ("", ["--testbed-strict"], True),
        ("", ["--testbed-strict", "--testbed-no-strict"], False),
    ],
)
def test_what_makes_a_skip_a_failure(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, variable: str, options: list[str], strict: bool
) -> None:
    monkeypatch.setenv("CI", variable)
    assert pytester.parseconfig("-p", "no:asyncio", *options).getoption("--testbed-strict") is strict
