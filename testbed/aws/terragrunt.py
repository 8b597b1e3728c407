"""Running Terragrunt, OpenTofu or Terraform, and the real AWS provider over a copy of an infrastructure repository."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from testbed.aws.accounts import REGION
from testbed.aws.cloud import Cloud
from testbed.aws.distribution import Distribution
from testbed.aws.environment import Credentials
from testbed.cluster import Fidelity
from testbed.errors import TestbedError, UsageError
from testbed.supervisor import Supervisor
from testbed.toolchain import Toolchain
from testbed.toolchain.watched import WATCHDOG

TIMEOUT = 1500.0
LOOK_EVERY = 2.0
REFRESH = "refresh"
"""The step of a plan in which the real resources are read."""


class RunFailed(TestbedError):
    """A command ended with an error; `output` is all it wrote."""

    def __init__(self, what: str, *, why: str = "", fix: str = "", output: str = "") -> None:
        super().__init__(what, why=why, fix=fix)
        self.output = output


class Result:
    """What a command did.

    `output` is stdout and stderr together, `seconds` how long it took.
    """

    def __init__(self, code: int, output: str, seconds: float) -> None:
        self.code = code
        self.output = output
        self.seconds = seconds


class Terragrunt:
    """Runs components of a live tree.

    Args:
        cloud: Where they are applied.
        toolchain: Has the binaries; they are made ready if they are not.
        work: A private folder for the copy, the provider mirror and downloaded modules.
        repository: The infrastructure repository: `modules/` and `live/`. It is copied, never written to.
        distribution: OpenTofu or Terraform, and where the provider comes from.

    Raises:
        UsageError: The repository is none, or there is no such Terraform on PATH.
    """

    def __init__(
        self,
        cloud: Cloud,
        toolchain: Toolchain,
        work: Path,
        repository: Path,
        distribution: Distribution | None = None,
    ) -> None:
        if not (repository / "live").is_dir() or not (repository / "modules").is_dir():
            raise UsageError(
                f"{repository} is no infrastructure repository",
                why="it has no folders live and modules",
                fix="name the folder that holds both",
            )
        self.cloud = cloud
        self._toolchain = toolchain
        self.distribution = distribution or Distribution()
        self._engine = self.distribution.program(toolchain)
        self._terragrunt = toolchain.ensure(["terragrunt"])["terragrunt"]
        self.work = work
        self.tree = work / "infra-cloud"
        work.mkdir(parents=True, exist_ok=True)
        shutil.copytree(repository, self.tree, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".terragrunt-cache"))
        self._config = self.distribution.configuration(toolchain, work)
        self._lifelines: dict[int, int] = {}
        self.without: set[str] = set()
        """Arguments that guards took out of the roots."""
        self.skipped: set[str] = set()
        """Steps of the pipeline that guards skip."""
        self.variables: dict[str, str] = {}
        """Further variables for every command, such as those that `get_env` reads."""

    @property
    def supervisor(self) -> Supervisor:
        """The cloud's: whoever has it, has the live tree."""
        return self.cloud.supervisor

    def fidelity(self) -> list[Fidelity]:
        """What is real and what is simulated: as the cloud says, and what the provider lacks."""
        return self.cloud.fidelity() + self.distribution.fidelity(self._toolchain)

    def use_root(self, text: str) -> None:
        """Replace the live tree's root, less the arguments that guards took away."""
        (self.tree / "live" / "root.hcl").write_text(_less(text, self.without))

    @contextmanager
    def root(self, path: Path) -> Iterator[None]:
        """Use another root for a while."""
        present = (self.tree / "live" / "root.hcl").read_text()
        other = path.read_text()
        try:
            self.use_root(other)
            yield
        finally:
            (self.tree / "live" / "root.hcl").write_text(present)

    def add(self, source: Path, account: str, name: str) -> None:
        """Add a component to the working copy: its `*.tf` as a module, its `terragrunt.hcl` in the account.

        A component of that name is replaced.
        """
        module = self.tree / "modules" / name
        component = self.tree / "live" / account / REGION / name
        for folder in (module, component):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        for path in source.glob("*.tf"):
            shutil.copy(path, module)
        shutil.copy(source / "terragrunt.hcl", component)

    def another(self) -> Terragrunt:
        """A second working copy of the tree as it is now: somebody else's machine."""
        copy = Terragrunt(self.cloud, self._toolchain, self.work / "another", self.tree, self.distribution)
        copy.without, copy.skipped = self.without, self.skipped
        return copy

    def setting(self, argument: str, where: str) -> dict[Path, str]:
        """The files of the working copy that set an argument, with their text. Nothing is changed.

        Args:
            argument: Its name, which begins the line.
            where: Files of the tree, as a glob.

        Raises:
            UsageError: There is none.
        """
        texts = {path: path.read_text() for path in self.tree.glob(where)}
        found = {path: text for path, text in texts.items() if _less(text, {argument}) != text}
        if not found:
            raise UsageError(
                f"no file {where} of the infrastructure repository sets {argument}",
                why="no line begins with it" if texts else "there is no such file",
                fix=f"write it as `{argument} = ...`, or name the files that have it in the scenario's guard",
            )
        return found

    def strip(self, files: dict[Path, str]) -> None:
        """Take the arguments in `without` out of files of the working copy; `files` is as `setting` gives it."""
        for path, text in files.items():
            path.write_text(_less(text, self.without))

    def environment(self, credentials: Credentials | None) -> dict[str, str]:
        """The environment of a run: the cloud's, and where the tools find each other."""
        return (
            self.cloud.environment(credentials)
            | self.distribution.variables()
            | {
                "TF_CLI_CONFIG_FILE": str(self._config),
                "TF_IN_AUTOMATION": "1",
                "TF_INPUT": "0",
                "CHECKPOINT_DISABLE": "1",
                "TG_TF_PATH": str(self._engine),
                "TG_NON_INTERACTIVE": "true",
                "TG_NO_COLOR": "true",
                "TG_NO_AUTO_PROVIDER_CACHE_DIR": "true",  # the mirror is linked to, not copied
                "TG_DEPENDENCY_FETCH_OUTPUT_FROM_STATE": "true",
            }
            | self.variables
        )

    def component(self, account: str, name: str) -> Path:
        """The folder of a component in the working copy.

        Raises:
            UsageError: There is none; the message names those that are.
        """
        found = {
            folder.parent.name: folder.parent for folder in (self.tree / "live" / account).glob("*/*/terragrunt.hcl")
        }
        if name not in found:
            raise UsageError(
                f"the account {account!r} has no component {name!r}",
                why=f"it has: {', '.join(sorted(found)) or 'none'}",
                fix="name one of them, or add it to the live tree",
            )
        return found[name]

    def start(
        self, folder: Path, arguments: Sequence[str], credentials: Credentials | None, cache: str = "cache"
    ) -> subprocess.Popen[str]:
        """Start a command and return at once. It and its children end with us, also after kill -9.

        Args:
            folder: A component's.
            arguments: Terragrunt's.
            credentials: What the shell holds.
            cache: Where modules are downloaded to and backends initialised; another name is a fresh checkout.
        """
        lifeline, ours = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", WATCHDOG, str(lifeline), self._terragrunt, *arguments],
            cwd=folder,
            env=self.environment(credentials) | {"TG_DOWNLOAD_DIR": str(self.work / cache)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=[lifeline],
            start_new_session=True,
        )
        os.close(lifeline)
        self._lifelines[process.pid] = ours
        return process

    def finish(self, process: subprocess.Popen[str], timeout: float = TIMEOUT) -> Result:
        """Wait for a command that was started.

        Raises:
            TestbedError: It did not end in time; it and its children were killed.
            ComponentDied: The emulation ended meanwhile; they were killed as well.
        """
        began = time.monotonic()
        try:
            while True:
                try:
                    output, _ = process.communicate(timeout=LOOK_EVERY)
                    break
                except subprocess.TimeoutExpired as unfinished:
                    self.cloud.require_running()  # the SDKs would go on for minutes against a dead endpoint
                    if time.monotonic() - began > timeout:
                        said = (unfinished.output or b"").decode(errors="replace")[-2000:]
                        raise TestbedError(
                            f"terragrunt did not end within {timeout:g} s", why=said, fix="look at the output"
                        ) from None
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        finally:
            os.close(self._lifelines.pop(process.pid))
        return Result(process.returncode, output, time.monotonic() - began)

    def run(self, folder: Path, *arguments: str, credentials: Credentials | None, cache: str = "cache") -> Result:
        """Run a Terragrunt command in a folder; any exit code is returned. `cache` is as for `start`."""
        return self.finish(self.start(folder, arguments, credentials, cache))

    def must(self, folder: Path, *arguments: str, credentials: Credentials | None) -> Result:
        """Run a Terragrunt command that has to succeed.

        Raises:
            RunFailed: It did not.
            ComponentDied: It did not because the emulation ended; states and resources are gone together.
        """
        result = self.run(folder, *arguments, credentials=credentials)
        if result.code:
            self.cloud.require_running()
            raise RunFailed(
                f"`terragrunt {' '.join(arguments)}` failed in {folder.relative_to(self.tree)}",
                why=result.output[-3000:],
                fix=self.distribution.remedy(result.output),
                output=result.output,
            )
        return result

    def apply(self, account: str, component: str, credentials: Credentials) -> Result:
        """Apply one component."""
        return self.must(self.component(account, component), "apply", "-auto-approve", credentials=credentials)

    def destroy(self, account: str, component: str, credentials: Credentials) -> Result:
        """Destroy one component."""
        return self.must(self.component(account, component), "destroy", "-auto-approve", credentials=credentials)

    def changes(self, account: str, component: str, credentials: Credentials) -> list[str]:
        """What a plan of a component would change: addresses with their actions; empty for a clean plan."""
        folder = self.component(account, component)
        options = ["-refresh=false"] if REFRESH in self.skipped else []
        self.must(folder, "plan", "-out=plan.out", *options, credentials=credentials)
        return changed(self.plan_json(account, component, credentials))

    def plan_json(self, account: str, component: str, credentials: Credentials) -> dict[str, Any]:
        """The saved plan of a component (`plan.out`) as JSON."""
        folder = self.component(account, component)
        shown = self.must(folder, "--log-level", "error", "show", "-json", "plan.out", credentials=credentials).output
        plan: dict[str, Any] = json.loads(shown[shown.index("{") :])
        return plan

    def outputs(self, account: str, component: str, credentials: Credentials) -> dict[str, Any]:
        """A component's outputs."""
        folder = self.component(account, component)
        shown = self.must(folder, "--log-level", "error", "output", "-json", credentials=credentials).output
        return {name: entry["value"] for name, entry in json.loads(shown[shown.index("{") :]).items()}


def _less(text: str, arguments: set[str]) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if line.split("=")[0].strip() not in arguments)


def changed(plan: dict[str, Any]) -> list[str]:
    """The resources that a plan changes, with their actions."""
    return [
        f"{entry['address']} {'+'.join(entry['change']['actions'])}"
        for entry in plan.get("resource_changes", [])
        if entry["change"]["actions"] not in (["no-op"], ["read"])
    ]
