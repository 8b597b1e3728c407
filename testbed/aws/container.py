"""LocalStack as a container, for machines with a Docker engine (`--testbed-aws=container`).

The image is LocalStack's own of the same version, run with our gateway in the place of its entry point, so that both
backends behave alike. Needs the extra `container` (testcontainers) and an engine.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from testbed.errors import UsageError

if TYPE_CHECKING:
    from testbed.aws.localstack import LocalStack

IMAGE = "localstack/localstack:4.14.0"


class LocalStackContainer:
    """The same emulation in a container, with its port on 127.0.0.1.

    Args:
        localstack: Says where the port and the folder of issuers are.
    """

    def __init__(self, localstack: LocalStack) -> None:
        self._localstack = localstack

    @staticmethod
    def require_engine() -> None:
        """Raise `UsageError` where no container can be started, with the reason."""
        if find_spec("testcontainers") is None or find_spec("docker") is None:
            raise UsageError(
                "LocalStack cannot run in a container",
                why="the package testcontainers is not installed",
                fix="pip install 'platform-testbed[container]', or use the default backend `process`",
            )
        import docker

        try:
            docker.from_env().ping()
        except Exception as error:
            raise UsageError(
                "LocalStack cannot run in a container: no Docker engine answers",
                why=str(error),
                fix="start Docker, or use the default backend `process`",
            ) from None

    def start(self) -> None:
        """Start the container; it is removed when this process ends, also after kill -9 (testcontainers' reaper)."""
        import jwt
        from testcontainers.core.container import DockerContainer

        from testbed.aws.localstack import GATEWAY, settings

        self._localstack.issuers.mkdir(parents=True, exist_ok=True)
        port = int(self._localstack.endpoint.rsplit(":", 1)[1])
        container = (
            DockerContainer(IMAGE)
            .with_bind_ports(4566, cast(Any, ("127.0.0.1", port)))  # docker's own form of it, which the hint lacks
            .with_volume_mapping(str(GATEWAY), "/gateway", "ro")
            .with_volume_mapping(str(Path(jwt.__file__).parent), "/gateway-packages/jwt", "ro")
            .with_volume_mapping(str(self._localstack.issuers), "/issuers", "ro")
            .with_kwargs(entrypoint=["/opt/code/localstack/.venv/bin/python", "/gateway/main.py"])
        )
        for name, value in settings(Path("/issuers"), "0.0.0.0:4566").items():  # inside; outside it is loopback only
            container = container.with_env(name, value)
        container.with_env("PYTHONPATH", "/gateway-packages").start()
