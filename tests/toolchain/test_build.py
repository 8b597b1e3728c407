"""Builds: what comes out, what two processes share, what a kill leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING
from uuid import uuid4

import psutil
import pytest

from testbed.errors import TestbedError
from testbed.toolchain import Tool
from testbed.toolchain.build import Silent, Source
from testbed.wait import wait_until

if TYPE_CHECKING:
    from conftest import Workshop

MAIN = 'package main\n\nimport _ "testbed.invalid/dep"\n\nfunc main() {}\n'
BUILD = """
import sys
from pathlib import Path
from testbed.toolchain import Toolchain
from testbed.toolchain.progress import build_with_progress
build_with_progress(Toolchain(cache=Path(sys.argv[1]), lock=Path(sys.argv[2])), ["tiny"])
"""


class Recorder(Silent):
    """Keeps what a listener hears."""

    def __init__(self) -> None:
        self.sources: list[Source] = []
        self.steps: list[tuple[str, int, int]] = []

    def progress(self, tool: Tool, phase: str, done: int, total: int) -> None:
        self.steps.append((phase, done, total))

    def ready(self, tool: Tool, source: Source, seconds: float, size: int) -> None:
        self.sources.append(source)


def output_of(binary: Path) -> str:
    return subprocess.run([binary], capture_output=True, text=True, check=True).stderr


def start_build(shop: Workshop) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", BUILD, str(shop.cache), str(shop.lock)]
    return subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)


def read_until(stream: IO[str] | None, words: str) -> None:
    assert stream is not None
    seen = []
    for line in stream:
        seen.append(line)
        if words in line:
            return
    pytest.fail(f"{words!r} never came; it said: {''.join(seen)}")


def processes_of(shop: Workshop, *ends: str) -> list[list[str]]:
    """Command lines of running processes of this test's builds that have a word with each of these ends."""
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if any(str(shop.root) in word for word in line) and all(
            any(word.endswith(end) for word in line) for end in ends
        ):
            found.append(line)
    return found


def wait_for_process(shop: Workshop, *ends: str) -> None:
    wait_until(f"{' '.join(ends)} runs", lambda: (bool(seen := processes_of(shop, *ends)), seen), timeout=60)


def wait_for_no_process(shop: Workshop) -> None:
    wait_until("nothing of the build runs", lambda: (not (seen := processes_of(shop)), seen), timeout=5)


def test_a_build_gives_a_stamped_binary_and_the_assets_of_the_module(workshop: Workshop) -> None:
    binary = workshop.toolchain().ensure(["tiny"])["tiny"]
    assert output_of(binary) == "v1.2.3 42\n"
    assets = workshop.toolchain().assets("tiny")
    assert (assets / "deploy" / "manifest.yaml").read_text() == "version: v1.2.3\n"
    (status,) = workshop.toolchain().status()
    assert (status.source, status.path, status.size) == ("cached", binary, binary.stat().st_size)
    assert [path.name for path in binary.parents[1].iterdir()].count("scratch") == 0


def test_the_second_time_it_comes_from_the_cache(workshop: Workshop) -> None:
    heard = Recorder()
    for _ in range(2):
        workshop.toolchain().ensure(["tiny"], listener=heard)
    assert heard.sources == ["built", "cached"]


def test_progress_counts_the_packages_that_are_compiled(workshop: Workshop) -> None:
    heard = Recorder()
    workshop.write_tool(source=f"{MAIN}\n// {uuid4()}: not in the build cache yet\n")
    workshop.toolchain().ensure(["tiny"], listener=heard)
    compiled = [(done, total) for phase, done, total in heard.steps if phase in {"compiling packages", "linking"}]
    assert compiled[-1][0] == compiled[-1][1] >= 1  # the tool itself at least
    assert compiled == sorted(compiled)


def test_an_entry_without_its_facts_is_not_used(workshop: Workshop) -> None:
    binary = workshop.toolchain().ensure(["tiny"])["tiny"]
    (binary.parents[1] / "entry.json").unlink()
    assert workshop.toolchain().status()[0].source == "missing"


def test_a_changed_lock_means_another_entry(workshop: Workshop) -> None:
    first = workshop.toolchain().ensure(["tiny"])["tiny"]
    workshop.write_tool("v1.2.4")
    second = workshop.toolchain().ensure(["tiny"])["tiny"]
    assert (output_of(first), output_of(second)) == ("v1.2.3 42\n", "v1.2.4 42\n")


def test_what_other_versions_left_is_cleaned_and_the_rest_stays(workshop: Workshop) -> None:
    first = workshop.toolchain().ensure(["tiny"])["tiny"]
    workshop.write_tool("v1.2.4")
    second = workshop.toolchain().ensure(["tiny"])["tiny"]
    toolchain = workshop.toolchain()
    assert toolchain.stale_bytes() > first.stat().st_size
    assert toolchain.clean_stale() > second.stat().st_size // 2
    assert (first.exists(), second.exists(), toolchain.stale_bytes()) == (False, True, 0)
    toolchain.clean(["tiny"])
    assert workshop.entries() == []


def test_two_processes_build_a_tool_once(workshop: Workshop, held_go: Path) -> None:
    with start_build(workshop) as first:
        wait_for_process(workshop, "held-bin/go", "build")
        with start_build(workshop) as second:
            read_until(second.stderr, "waiting for another process that builds tiny")
            held_go.unlink()
            read_until(first.stderr, "tiny v1.2.3 built in")
            read_until(second.stderr, "tiny v1.2.3 cached in")
    assert (first.returncode, second.returncode) == (0, 0)
    assert len(workshop.entries()) == 1


def test_a_tool_is_not_removed_while_it_is_built(workshop: Workshop, held_go: Path) -> None:
    with start_build(workshop) as building:
        wait_for_process(workshop, "held-bin/go", "build")
        with pytest.raises(TestbedError, match="another process is building"):
            workshop.toolchain().clean(["tiny"])
        held_go.unlink()
        assert building.wait(timeout=60) == 0
    assert workshop.toolchain().status()[0].source == "cached"


def test_kill_9_in_a_build_leaves_no_process_and_no_broken_tool(workshop: Workshop, held_go: Path) -> None:
    with start_build(workshop) as building:
        wait_for_process(workshop, "held-bin/go", "build")
        building.kill()
    wait_for_no_process(workshop)
    assert workshop.toolchain().status()[0].source == "missing"
    assert [name.endswith(".part") for name in workshop.entries()] == [True]
    held_go.unlink()
    assert output_of(workshop.toolchain().ensure(["tiny"])["tiny"]) == "v1.2.3 42\n"
    assert [name.endswith(".part") for name in workshop.entries()] == [False]


def test_ctrl_c_in_a_build_leaves_nothing(workshop: Workshop, held_go: Path) -> None:
    with start_build(workshop) as building:
        wait_for_process(workshop, "held-bin/go", "build")
        building.send_signal(signal.SIGINT)
    assert building.returncode != 0
    wait_for_no_process(workshop)
    assert workshop.entries() == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_compiler_outlives_a_killed_build(workshop: Workshop, how: signal.Signals) -> None:
    # One function of this size keeps the real compiler busy for ten seconds or more, unless the build cache knows it.
    lines = "\n".join(f"\tx = x*{n % 89 + 3} + y[x%{n % 97 + 2}]" for n in range(12_000))
    workshop.write_tool(
        source=f'package main // {uuid4()}\n\nimport _ "testbed.invalid/dep"\n\n'
        f"func slow(x int, y []int) int {{\n{lines}\n"
        "\treturn x\n}\n\nfunc main() { println(slow(1, make([]int, 99))) }\n"
    )
    with start_build(workshop) as building:
        wait_for_process(workshop, "/compile")
        building.send_signal(how)
    wait_for_no_process(workshop)


def test_a_tool_of_the_locked_version_on_path_is_used(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.write_tool(assets="", extra='version_args = ["--version"]\n')
    folder = tmp_path / "tools"
    folder.mkdir()
    script = folder / "tiny"
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for version, source in (("v1.2.30", "missing"), ("v1.2.3-rc.1", "missing"), ("v1.2.3", "path")):
        script.write_text(f"#!/bin/sh\necho tiny version {version}\n")
        script.chmod(0o755)
        assert workshop.toolchain().status()[0].source == source
    assert workshop.toolchain().ensure(["tiny"])["tiny"] == script
    assert shutil.which("tiny") == str(script)


def assets_alone(workshop: Workshop) -> None:
    """Make of `tiny` an entry without a program."""
    toml = workshop.lock / "tools.toml"
    toml.write_text(toml.read_text().replace('package = "testbed.invalid/tiny"\n', ""))


def test_assets_alone_need_no_program(workshop: Workshop) -> None:
    workshop.write_tool(source="this does not compile")
    assets_alone(workshop)
    toolchain = workshop.toolchain()
    stands_for_it = toolchain.ensure(["tiny"])["tiny"]
    assert stands_for_it.read_text() == "testbed.invalid/dep v1.2.3\n"
    assert (toolchain.assets("tiny") / "deploy" / "manifest.yaml").read_text() == "version: v1.2.3\n"


def test_assets_of_a_changed_module_are_refused(workshop: Workshop) -> None:
    assets_alone(workshop)
    sums = workshop.module / "go.sum"
    good = sums.read_text()
    sums.write_text(good.replace("v1.2.3 h1:", "v1.2.3 h1:A", 1))
    with pytest.raises(TestbedError, match="a module is not the one that the lock recorded"):
        workshop.toolchain().assets("tiny")
    sums.write_text(good)
    assert workshop.toolchain().assets("tiny").is_dir()


def test_build_tags_reach_the_compiler_and_the_key(workshop: Workshop) -> None:
    (workshop.module / "tagged.go").write_text(
        '//go:build tagged\n\npackage main\n\nfunc init() { version = "tagged" }\n'
    )
    plain = workshop.toolchain().ensure(["tiny"])["tiny"]
    toml = workshop.lock / "tools.toml"
    toml.write_text(toml.read_text() + 'tags = ["tagged"]\n')
    tagged = workshop.toolchain().ensure(["tiny"])["tiny"]
    assert plain != tagged
    answer = subprocess.run([tagged], capture_output=True, text=True, check=True)
    assert answer.stderr.startswith("tagged")
