"""The AWS side of the platform: seven accounts behind one loopback endpoint."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Literal

import boto3
from botocore.config import Config
from botocore.session import Session as BotocoreSession
from pydantic import BaseModel, ConfigDict, ValidationError

from testbed import __version__
from testbed.aws.accounts import ACCOUNTS, MANAGEMENT, REGION, SHARED_SERVICES, Account, find_account
from testbed.aws.container import LocalStackContainer
from testbed.aws.environment import Credentials, child_environment, require_loopback
from testbed.aws.issuers import Issuer
from testbed.aws.landing_zone import ADMIN_ROLE, ATLANTIS_ROLE, build, role_arn
from testbed.aws.localstack import COMPONENT, VERSION, LocalStack, install
from testbed.aws.trail import Trail
from testbed.cluster import Fidelity
from testbed.errors import TestbedError, UsageError
from testbed.ports import free_ports
from testbed.supervisor import Supervisor
from testbed.toolchain import Toolchain

HAND_OVER = "cloud.json"
Backend = Literal["process", "container"]


class _HandOver(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: str
    port: int
    backend: Backend
    timings: dict[str, float]


class Cloud:
    """Running accounts. Made by `up`, or by `attach` in another process.

    Every boto3 session and every child gets an explicit endpoint and explicit credentials, none of the user's shell.
    """

    def __init__(self, supervisor: Supervisor, port: int, backend: Backend = "process") -> None:
        self.supervisor = supervisor
        self.folder = supervisor.folder
        self.endpoint = require_loopback(f"http://127.0.0.1:{port}")
        self.backend = backend
        self.timings: dict[str, float] = {}
        self.localstack = LocalStack(supervisor, self.folder / COMPONENT, port)
        self.trail = Trail(self.endpoint)

    @classmethod
    def up(cls, folder: Path, toolchain: Toolchain, backend: Backend = "process") -> Cloud:
        """Start the accounts in `folder`; we hold a lease on them. After an error nothing is left running.

        Raises:
            UsageError: A cloud runs in `folder` already, or `container` was asked for where no Docker engine answers.
            TestbedError: It did not start.
        """
        if backend == "container":
            LocalStackContainer.require_engine()
        if Supervisor.attach(folder) is not None:
            raise UsageError(f"a cloud already runs in {folder}", fix="use it, or stop it with `testbed aws down`")
        python = install(toolchain.cache)
        began = time.monotonic()
        supervisor = Supervisor.launch(folder)
        try:
            supervisor.lease()
            cloud = cls(supervisor, free_ports(1)[0], backend)
            if backend == "container":
                LocalStackContainer(cloud.localstack).start()
            else:
                cloud.localstack.start(python)
            cloud.localstack.ready()
            cloud.timings["LocalStack answers"] = round(time.monotonic() - began, 2)
            build(cloud.bootstrap)
            cloud.timings["seven accounts ready"] = round(time.monotonic() - began, 2)
            port = int(cloud.endpoint.rsplit(":", 1)[1])
            hand_over = _HandOver(version=__version__, port=port, backend=backend, timings=cloud.timings)
            part = folder / f"{HAND_OVER}.part"
            part.write_text(hand_over.model_dump_json())
            part.replace(folder / HAND_OVER)
        except BaseException:
            supervisor.shutdown()
            raise
        return cloud

    @classmethod
    def attach(cls, folder: Path) -> Cloud | None:
        """The cloud that runs in `folder`, or None.

        Raises:
            TestbedError: Its start did not finish, or another version of testbed started it.
        """
        supervisor = Supervisor.attach(folder)
        if supervisor is None:
            return None
        try:
            hand_over = _HandOver.model_validate(json.loads((folder / HAND_OVER).read_text()))
        except (OSError, json.JSONDecodeError, ValidationError) as error:
            raise TestbedError(
                f"the cloud in {folder} did not finish its start", why=str(error), fix="`testbed aws down`, then up"
            ) from None
        if hand_over.version != __version__:
            raise UsageError(
                f"the cloud in {folder} is of another version",
                why=f"it was started by testbed {hand_over.version}, this is {__version__}",
                fix="stop it with `testbed aws down` and start it again",
            )
        cloud = cls(supervisor, hand_over.port, hand_over.backend)
        cloud.timings = hand_over.timings
        return cloud

    def require_running(self) -> None:
        """Raise `ComponentDied` when the emulation has ended, with its exit and the end of its log."""
        self.supervisor.require_running(COMPONENT)

    def restart(self) -> None:
        """Start the emulation again after it died: seven empty accounts with their landing zone.

        Its state was in memory, so resources and the states that name them are gone together.
        """
        self.supervisor.revive(COMPONENT)
        self.localstack.ready()
        build(self.bootstrap)

    def down(self) -> None:
        """Stop everything and remove the folder."""
        self.supervisor.destroy()

    def bootstrap(self, account: Account) -> boto3.Session:
        """A session of an account's root user: what builds the landing zone, and what a scenario looks on with."""
        return self.session_with(Credentials(access_key_id=account.id, secret_access_key="bootstrap"))  # noqa: S106

    def session_with(self, credentials: Credentials) -> boto3.Session:
        """A boto3 session whose clients speak to the emulation only."""
        return _LoopbackSession(self.endpoint, credentials)

    def assume(self, account: str, role: str, who: str) -> Credentials:
        """Credentials of a role in an account, for a person or machine named `who` that comes through management.

        Raises:
            UsageError: The account is unknown.
        """
        sts = self.bootstrap(ACCOUNTS[MANAGEMENT]).client("sts")
        answer = sts.assume_role(RoleArn=role_arn(find_account(account), role), RoleSessionName=who)["Credentials"]
        return Credentials(
            access_key_id=answer["AccessKeyId"],
            secret_access_key=answer["SecretAccessKey"],
            session_token=answer["SessionToken"],
        )

    def admin(self, account: str, who: str = "engineer") -> Credentials:
        """What an engineer's shell holds after signing on to an account."""
        return self.assume(account, ADMIN_ROLE, who)

    def atlantis(self) -> Credentials:
        """What applies pull requests: it may become `terraform` in every account, and nothing else."""
        return self.assume(SHARED_SERVICES, ATLANTIS_ROLE, "atlantis")

    def session(self, account: str) -> boto3.Session:
        """A boto3 session of an account's administrator."""
        return self.session_with(self.admin(account))

    def vpcs(self, account: str) -> set[str]:
        """The ids of an account's VPCs, less the default one."""
        found = self.bootstrap(ACCOUNTS[account]).client("ec2").describe_vpcs()["Vpcs"]
        return {vpc["VpcId"] for vpc in found if not vpc["IsDefault"]}

    def environment(self, credentials: Credentials | None) -> dict[str, str]:
        """The whole environment of a child that speaks AWS."""
        return child_environment(self.endpoint, credentials, self.folder / "home")

    def issuer(self, url: str) -> Issuer:
        """An issuer of web identity tokens whose keys the emulated STS knows."""
        return Issuer(url, self.localstack.issuers)

    def fidelity(self) -> list[Fidelity]:
        """What is real and what is simulated."""
        return [
            Fidelity(
                part=f"AWS: LocalStack {VERSION} ({self.backend})",
                real="SDKs, OpenTofu, its AWS provider, Terragrunt and Conftest; S3 conditional writes; accounts apart",
                simulated="every AWS service (no machine, database, broker or cluster runs); organizations, eks, rds, "
                "elbv2, ecr, kafka, elasticache, opensearch and autoscaling are moto's",
            ),
            Fidelity(
                part="AWS access control",
                real="web identity tokens are verified: signature, issuer, audience, expiry, the role's trust policy",
                simulated="identity, permission boundary, session, service control, trust and bucket policies are "
                "evaluated at the gateway (resources for S3, STS, IAM, KMS and Secrets Manager, else actions alone); "
                "request signatures are not verified; issuers' keys come from files instead of discovery",
            ),
            Fidelity(
                part="AWS CloudTrail",
                real="LookupEvents' API; who called what with which kind of credential, refused calls included",
                simulated="the record is kept by the gateway and is there at once; management and data events",
            ),
        ]


class _LoopbackSession(boto3.Session):
    """A session whose every client goes to one endpoint and reads no configuration of the user."""

    def __init__(self, endpoint: str, credentials: Credentials) -> None:
        nowhere = {
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
        super().__init__(
            botocore_session=BotocoreSession(session_vars=nowhere),
            aws_access_key_id=credentials.access_key_id,
            aws_secret_access_key=credentials.secret_access_key,
            aws_session_token=credentials.session_token or None,
            region_name=REGION,
        )
        self._endpoint = require_loopback(endpoint)

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        given = options.setdefault("endpoint_url", self._endpoint)
        require_loopback(str(given))
        style = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 2}, proxies={})
        config = options.get("config")
        return options | {"config": style.merge(config) if isinstance(config, Config) else style}

    def client(self, service_name: str, **options: Any) -> Any:  # type: ignore[override]
        """A client of a service; an endpoint off loopback is refused."""
        return super().client(service_name, **self._options(options))

    def resource(self, service_name: str, **options: Any) -> Any:  # type: ignore[override]
        """A resource of a service; an endpoint off loopback is refused."""
        return super().resource(service_name, **self._options(options))
