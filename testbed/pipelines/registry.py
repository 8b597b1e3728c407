"""An OCI registry on loopback: the distribution project's own, with a password."""

from __future__ import annotations

import secrets
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bcrypt
import yaml

from testbed.cluster.pki import write_private
from testbed.errors import TestbedError
from testbed.pages import NOT_SERVED, page
from testbed.ports import LOOPBACK, free_ports, retry_on_taken_port
from testbed.supervisor import ProcessSpec, Supervisor, clean_environment, log_tail
from testbed.toolchain import Toolchain
from testbed.wait import wait_until

COMPONENT = "image-registry"
USER = "AWS"
"""The only user of ECR's registries."""
BASE = "platform/static:1"
"""What services' images are built on."""
READY_TIMEOUT = 30.0


class Registry:
    """One registry and its client.

    Args:
        supervisor: Owns the process.
        toolchain: Has registry and client.
        folder: Images, configuration, and the client's home.
        password: What `USER` logs in with.
    """

    def __init__(self, supervisor: Supervisor, toolchain: Toolchain, folder: Path, password: str) -> None:
        self._supervisor = supervisor
        self._folder = folder
        self._password = password
        binaries = toolchain.ensure([COMPONENT, "crane"])
        self._binary, self.crane = binaries[COMPONENT], binaries["crane"]

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return self._supervisor.component(COMPONENT).tags["address"]

    @retry_on_taken_port
    def start(self) -> None:
        """Start it and log the client in."""
        (port,) = free_ports(1)
        self._folder.mkdir(parents=True, exist_ok=True)
        hashed = bcrypt.hashpw(self._password.encode(), bcrypt.gensalt(rounds=4)).decode()
        configuration = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self._folder / "images")}},
            "http": {"addr": f"{LOOPBACK}:{port}", "secret": secrets.token_hex(16)},
            "auth": {"htpasswd": {"realm": "ecr", "path": str(self._folder / "htpasswd")}},
        }
        write_private(self._folder / "htpasswd", f"{USER}:{hashed}\n".encode())
        path = write_private(self._folder / "registry.yaml", yaml.safe_dump(configuration).encode())
        self._supervisor.stop([COMPONENT], grace=0)
        self._supervisor.start(
            ProcessSpec(
                name=COMPONENT,
                argv=[str(self._binary), "serve", str(path)],
                env={"OTEL_TRACES_EXPORTER": "none"},
                tags={"address": f"{LOOPBACK}:{port}"},
            )
        )
        self._wait(port, self._supervisor.require_started)
        self.run("auth", "login", self.address, "--username", USER, "--password-stdin", stdin=self._password)

    def _wait(self, port: int, require: Callable[..., None]) -> None:
        def probe() -> tuple[bool, object]:
            require(COMPONENT)
            status, _ = page(LOOPBACK, port, "/v2/")
            return status == 401, status  # it knows nobody without a password

        wait_until(
            "the image registry answers",
            probe,
            timeout=READY_TIMEOUT,
            retry_on=NOT_SERVED,
            evidence=lambda: log_tail(self._supervisor.component(COMPONENT).log),
        )

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Run crane; returns its output.

        Raises:
            TestbedError: It failed.
        """
        answer = subprocess.run(
            [str(self.crane), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=clean_environment() | {"HOME": str(self._folder), "DOCKER_CONFIG": str(self._folder / "docker")},
        )
        if answer.returncode:
            raise TestbedError(
                f"crane {arguments[0]} failed", why=answer.stderr.strip()[-800:], fix="look at the registry's log"
            )
        return answer.stdout

    def push_base(self) -> None:
        """Push the base image that services' images are built on: nothing but a folder for temporary files."""
        layer = self._folder / "base.tar"
        with tarfile.open(layer, "w") as archive:
            entry = tarfile.TarInfo("tmp")
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            archive.addfile(entry)
        self.run("append", "--new_layer", str(layer), "--new_tag", f"{self.address}/{BASE}")

    def tags(self, repository: str) -> list[str]:
        """The tags in a repository; none where there is no such repository."""
        try:
            return self.run("ls", f"{self.address}/{repository}").split()
        except TestbedError as error:
            if "NAME_UNKNOWN" in error.why:
                return []
            raise

    def config(self, image: str) -> dict[str, Any]:
        """The configuration of an image, `REPOSITORY:TAG`."""
        found: dict[str, Any] = yaml.safe_load(self.run("config", f"{self.address}/{image}"))
        return found

    def stop(self) -> None:
        """Stop it."""
        self._supervisor.stop([COMPONENT], grace=0)
