"""What the stand-ins of AWS's actions do with AWS: `python -m testbed.pipelines.aws_actions configure|ecr-password`.

Runs inside a workflow's step, with the step's environment and nothing else.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError


class ActionFailed(Exception):
    """The step fails with this text."""


def id_token(audience: str) -> str:
    """A token of this run from GitHub's endpoint, as `@actions/core` asks for it.

    Raises:
        ActionFailed: The job may not have one.
    """
    url, bearer = os.environ.get("ACTIONS_ID_TOKEN_REQUEST_URL"), os.environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    if not url or not bearer:
        raise ActionFailed("there is no OIDC token for this job: does it have the permission `id-token: write`?")
    query = urllib.parse.urlencode({"audience": audience})
    request = urllib.request.Request(f"{url}&{query}", headers={"Authorization": f"bearer {bearer}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - the run's own loopback URL
        return str(json.load(answer)["value"])


def configure() -> None:
    """Credentials of the role, or the static key that was given, for the steps that follow.

    Raises:
        ActionFailed: STS refused, or there is neither a role nor a key.
    """
    role, region = os.environ["INPUT_ROLE"], os.environ["INPUT_REGION"]
    if os.environ["INPUT_KEY"]:
        variables = {
            "AWS_ACCESS_KEY_ID": os.environ["INPUT_KEY"],
            "AWS_SECRET_ACCESS_KEY": os.environ["INPUT_SECRET"],
        }
    elif role:
        sts = boto3.client("sts", region_name=region, config=Config(signature_version=UNSIGNED))
        answer = sts.assume_role_with_web_identity(
            RoleArn=role,
            RoleSessionName=os.environ["INPUT_SESSION"],
            WebIdentityToken=id_token(os.environ["INPUT_AUDIENCE"]),
        )["Credentials"]
        variables = {
            "AWS_ACCESS_KEY_ID": answer["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": answer["SecretAccessKey"],
            "AWS_SESSION_TOKEN": answer["SessionToken"],
        }
    else:
        raise ActionFailed("neither a role nor a key was given")
    for name, value in variables.items():
        if name != "AWS_ACCESS_KEY_ID":
            sys.stdout.write(f"::add-mask::{value}\n")
    with Path(os.environ["GITHUB_ENV"]).open("a") as environment:
        for name, value in {**variables, "AWS_REGION": region}.items():
            environment.write(f"{name}={value}\n")


def ecr_password() -> None:
    """The registry's password from ECR, to standard output."""
    answer = boto3.client("ecr").get_authorization_token()["authorizationData"][0]["authorizationToken"]
    sys.stdout.write(base64.b64decode(answer).decode().partition(":")[2])


def main() -> None:
    """Do one of the two."""
    try:
        {"configure": configure, "ecr-password": ecr_password}[sys.argv[1]]()
    except (ActionFailed, BotoCoreError, ClientError, OSError) as error:
        sys.stdout.write(f"::error::{error}\n")
        sys.stderr.write(f"{error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
