"""The command line `argocd`, as a person uses it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from testbed.addons.argo_cd import ArgoCd
from testbed.cluster import Refused
from testbed.gitops.components import SERVER
from testbed.supervisor import clean_environment


class ArgoCli:
    """One person's command line, with a configuration of their own.

    Args:
        argo: The Argo CD that it talks to.
        folder: Where its configuration lives; private to this person.
    """

    def __init__(self, argo: ArgoCd, folder: Path) -> None:
        self._binary = argo.cluster.toolchain.ensure(["argocd"])["argocd"]
        self._server = argo.address(SERVER)
        self._config = folder / "argocd.yaml"
        self._home = folder

    def login(self, user: str, password: str) -> str:
        """`argocd login`; raises `Refused` when name or password is wrong."""
        return self._run("login", self._server, "--username", user, "--password", password)

    def run(self, *arguments: str) -> str:
        """Any other command; raises `Refused` with what the server said."""
        return self._run(*arguments, "--server", self._server)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(self._binary), *arguments, "--plaintext", "--config", str(self._config)],
            env=clean_environment() | {"HOME": str(self._home), "ARGOCD_BINARY_NAME": "argocd"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise Refused(f"argocd {arguments[0]} failed", why=said, fix="log in, or as somebody who may")
        return done.stdout.strip()
