"""No test and no child can reach a real AWS account, whatever the user's shell holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from testbed.aws.cloud import Cloud
from testbed.aws.environment import Credentials, child_environment, own_process_scrubbed, require_loopback
from testbed.errors import UsageError

ENDPOINT = "http://127.0.0.1:4566"
HOSTILE = {
    "AWS_ACCESS_KEY_ID": "AKIAREALREALREALREAL",
    "AWS_SECRET_ACCESS_KEY": "real",
    "AWS_SESSION_TOKEN": "real",
    "AWS_PROFILE": "production",
    "AWS_DEFAULT_PROFILE": "production",
    "AWS_ENDPOINT_URL": "https://sts.amazonaws.com",
    "AWS_ENDPOINT_URL_S3": "https://s3.amazonaws.com",
    "AWS_ROLE_ARN": "arn:aws:iam::999999999999:role/real",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.2/creds",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/creds",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://169.254.169.254",
    "AWS_CONFIG_FILE": "/home/user/.aws/config",
    "TF_VAR_account": "999999999999",
    "TG_IAM_ASSUME_ROLE": "arn:aws:iam::999999999999:role/real",
    "HTTPS_PROXY": "http://proxy.example.com",
}
OURS = {
    "AWS_ENDPOINT_URL": ENDPOINT,
    "AWS_REGION": "eu-west-1",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_PAGER": "",
}


@pytest.fixture
def hostile_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user's shell full of real credentials, and a home with more of them."""
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    home = tmp_path / "user"
    (home / ".aws").mkdir(parents=True)
    (home / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = AKIAREAL\naws_secret_access_key = real\n"
    )
    monkeypatch.setenv("HOME", str(home))
    return home


def test_a_child_sees_nothing_of_the_shell(hostile_shell: Path, tmp_path: Path) -> None:
    home = tmp_path / "run"
    environment = child_environment(ENDPOINT, None, home)
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    seen = json.loads(subprocess.check_output([sys.executable, "-c", program], env=environment))
    nowhere = {"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"}
    assert {name: value for name, value in seen.items() if name.startswith("AWS_") and name not in nowhere} == OURS
    assert all(not Path(seen[name]).exists() for name in nowhere)
    assert not {name for name in seen if name.startswith(("TF_", "TG_"))}
    assert {name: value for name, value in seen.items() if "PROXY" in name.upper()} == {"HTTP_PROXY": ENDPOINT}
    assert seen["HOME"] == str(home)
    assert "real" not in json.dumps(seen).lower()


def test_an_sdk_in_a_child_finds_no_credentials(hostile_shell: Path, tmp_path: Path) -> None:
    program = "import boto3; print(boto3.Session().get_credentials(), boto3.client('sts').meta.endpoint_url)"
    environment = child_environment(ENDPOINT, None, tmp_path / "run")
    assert subprocess.check_output([sys.executable, "-c", program], env=environment, text=True) == f"None {ENDPOINT}\n"


def test_a_careless_client_in_a_test_goes_to_the_emulation(hostile_shell: Path, tmp_path: Path) -> None:
    with own_process_scrubbed(ENDPOINT, tmp_path / "run"):
        session = boto3.Session()
        assert session.get_credentials() is None
        assert session.client("s3").meta.endpoint_url == ENDPOINT
        assert session.client("ec2").meta.endpoint_url == ENDPOINT
    assert os.environ["AWS_PROFILE"] == "production"


def test_sessions_of_the_harness_read_no_configuration(hostile_shell: Path, aws_less_cloud: Cloud) -> None:
    session = aws_less_cloud.session_with(Credentials(access_key_id="1" * 12, secret_access_key="x"))
    assert session.client("s3").meta.endpoint_url == aws_less_cloud.endpoint
    assert session.get_credentials().access_key == "1" * 12
    with pytest.raises(UsageError, match="not on loopback"):
        session.client("s3", endpoint_url="https://s3.eu-west-1.amazonaws.com")
    with pytest.raises(UsageError, match="not on loopback"):
        session.resource("s3", endpoint_url="https://s3.eu-west-1.amazonaws.com")


@pytest.fixture
def aws_less_cloud(tmp_path: Path) -> Cloud:
    """A cloud that does not run: enough to make sessions."""
    from testbed.supervisor import Supervisor

    return Cloud(Supervisor(tmp_path), 4566)


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://ec2.eu-west-1.amazonaws.com",
        "http://10.0.0.1:4566",
        "http://169.254.169.254:80",
        "http://localhost:4566",
        "http://127.0.0.1.example.com:4566",
        "http://127.0.0.1",
        "https://127.0.0.1:4566",
        "http://user@evil.example.com:80#127.0.0.1:4566",
        "",
    ],
)
def test_an_endpoint_off_loopback_is_refused(endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not on loopback") as refused:
        require_loopback(endpoint)
    assert refused.value.fix
    with pytest.raises(UsageError):
        child_environment(endpoint, None, tmp_path)
