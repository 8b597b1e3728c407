"""The environment of every child that speaks AWS: nothing of the user's, and only a loopback endpoint.

A test or a tool that the harness starts cannot reach a real account: it sees no `AWS_*` variable, profile, credentials
file, container or instance metadata of the user, and its endpoint for every service is the emulation.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from testbed.aws.accounts import REGION
from testbed.errors import UsageError
from testbed.supervisor import clean_environment


class Credentials(BaseModel):
    """What AWS calls temporary credentials; `session_token` is empty for a static key."""

    model_config = ConfigDict(frozen=True)

    access_key_id: str
    secret_access_key: str
    session_token: str = ""

    def variables(self) -> dict[str, str]:
        """As the SDKs' environment variables."""
        values = {"AWS_ACCESS_KEY_ID": self.access_key_id, "AWS_SECRET_ACCESS_KEY": self.secret_access_key}
        return values | ({"AWS_SESSION_TOKEN": self.session_token} if self.session_token else {})


def require_loopback(endpoint: str) -> str:
    """Return the endpoint when it is plain HTTP to a loopback address.

    Raises:
        UsageError: It is not. A name is refused as well, `localhost` included: it can resolve to anything.
    """
    parts = urlsplit(endpoint)
    try:
        local = ipaddress.ip_address(parts.hostname or "").is_loopback and parts.port is not None
    except ValueError:
        local = False
    if not local or parts.scheme != "http":
        raise UsageError(
            f"the AWS endpoint {endpoint!r} is not on loopback",
            why="the testbed never speaks to anything that could be a real AWS account",
            fix="use http://127.0.0.1:PORT",
        )
    return endpoint


def child_environment(
    endpoint: str, credentials: Credentials | None, home: Path, environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The whole environment of a child.

    Args:
        endpoint: The emulation's URL, on loopback.
        credentials: What it may use; None for none.
        home: A private folder: its HOME, and where AWS configuration is looked for (there is none).
        environ: The user's environment; the process's own by default. Only a few names of it are passed on.

    Raises:
        UsageError: The endpoint is not on loopback.
    """
    home.mkdir(parents=True, exist_ok=True)
    return (
        clean_environment(environ)
        | {"HOME": str(home)}
        | aws_variables(endpoint, home)
        | proxy_variables(endpoint)
        | (credentials.variables() if credentials else {})
    )


def aws_variables(endpoint: str, home: Path) -> dict[str, str]:
    """The `AWS_*` variables that lead every SDK to the emulation, and to no configuration file or metadata service.

    Raises:
        UsageError: The endpoint is not on loopback.
    """
    nowhere = str(home / "no-such-aws-config")
    return {
        "AWS_ENDPOINT_URL": require_loopback(endpoint),
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": nowhere,
        "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_PAGER": "",
    }


def proxy_variables(endpoint: str) -> dict[str, str]:
    """What leads plain HTTP to names below the endpoint there, too.

    S3 Control's clients put the account's id before the endpoint's host (`210000000003.127.0.0.1`), which no resolver
    knows. As a proxy the emulation gets the request as it is. SDKs in Go ask a loopback address itself directly.
    """
    return {"HTTP_PROXY": endpoint}


@contextmanager
def own_process_scrubbed(endpoint: str, home: Path) -> Iterator[None]:
    """Inside it, this process's own environment is a child's too: a careless `boto3.client("s3")` in a test goes to
    the emulation, without credentials, whatever the user's shell holds."""
    before = {name: value for name, value in os.environ.items() if _speaks_aws(name)}
    for name in before:
        del os.environ[name]
    ours = aws_variables(endpoint, home)
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
        os.environ.update(before)


def _speaks_aws(name: str) -> bool:
    return name.upper().startswith(("AWS_", "TF_", "TG_", "TERRAGRUNT_", "BOTO_", "LOCALSTACK_"))
