"""Workflows before they run, and tokens for those that do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests

from testbed.aws.issuers import AUDIENCE, GITHUB, Issuer
from testbed.errors import UsageError
from testbed.pipelines.runner import STAND_INS, WORKFLOW, Runner, may_have_tokens, read_workflow
from testbed.pipelines.tokens import TokenEndpoint
from testbed.supervisor import clean_environment
from testbed.toolchain import Toolchain

FIXTURES = Path(__file__).parents[2] / "fixtures" / "pipelines"
SUBJECT = "repo:example/orders:ref:refs/heads/main"


def test_fixture_is_a_workflow_that_may_have_tokens() -> None:
    workflow = read_workflow(FIXTURES / "service" / WORKFLOW)
    assert list(workflow["jobs"]) == ["test", "image", "deploy"]
    assert may_have_tokens(workflow)


@pytest.mark.parametrize(
    ("permissions", "job", "expected"),
    [
        (None, None, False),
        ({}, {"contents": "read"}, False),
        ({"id-token": "write"}, None, True),
        ({"id-token": "write"}, {"contents": "read"}, False),  # a job's own permissions replace the workflow's
        ({}, {"id-token": "write"}, True),
        ("write-all", None, True),
        ("read-all", None, False),
    ],
)
def test_only_the_permission_gives_tokens(permissions: Any, job: Any, expected: bool) -> None:
    workflow: dict[str, Any] = {"jobs": {"image": {"steps": []}}}
    if permissions is not None:
        workflow["permissions"] = permissions
    if job is not None:
        workflow["jobs"]["image"]["permissions"] = job
    assert may_have_tokens(workflow) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("jobs: [", "flow node"),
        ("name: x", "'jobs'"),
        ("jobs: {a: {steps: [{uses: actions/checkout}]}}", "stand-ins for versions of"),
        ("jobs: {a: {steps: [{uses: evil/action@main}]}}", "there are stand-ins for versions of actions/checkout, "),
    ],
)
def test_bad_workflow_is_refused_before_anything_starts(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "release.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_workflow(path)
    assert why in refused.value.why
    assert refused.value.fix


def test_every_stand_in_is_there() -> None:
    from testbed.pipelines.runner import ACTIONS

    assert {path.parent.name for path in ACTIONS.glob("*/action.yml")} == set(STAND_INS.values())


def test_tokens_are_for_who_has_the_bearer(tmp_path: Path) -> None:
    endpoint = TokenEndpoint(Issuer(GITHUB, tmp_path), SUBJECT, {"repository": "example/orders"})
    with endpoint.serving() as variables, requests.Session() as http:
        http.trust_env = False
        url = f"{variables['ACTIONS_ID_TOKEN_REQUEST_URL']}&audience={AUDIENCE}"
        bearer = {"Authorization": f"bearer {variables['ACTIONS_ID_TOKEN_REQUEST_TOKEN']}"}
        assert http.get(url, timeout=5).status_code == 401
        assert http.get(url, headers={"Authorization": "bearer guess"}, timeout=5).status_code == 401
        assert http.get(variables["ACTIONS_ID_TOKEN_REQUEST_URL"], headers=bearer, timeout=5).status_code == 400
        assert endpoint.requests == 0
        token = http.get(url, headers=bearer, timeout=5).json()["value"]
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["sub"], claims["aud"], claims["repository"]) == (SUBJECT, AUDIENCE, "example/orders")
    assert endpoint.requests == 1


def test_steps_run_in_order_and_secrets_are_masked(tmp_path: Path) -> None:
    source = tmp_path / "service"
    (source / WORKFLOW).parent.mkdir(parents=True)
    (source / WORKFLOW).write_text(
        """
        name: t
        on: push
        concurrency: {group: "release-${{ github.ref }}", cancel-in-progress: false}
        jobs:
          first:
            runs-on: ubuntu-latest
            outputs: {word: "${{ steps.one.outputs.word }}"}
            steps:
              - id: one
                run: echo "word=hello" >> "$GITHUB_OUTPUT"
              - uses: actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683
              - uses: actions/setup-go@v6 # whatever version: what stands for it is the same
              - run: echo "secret is ${{ secrets.KEY }}"
          second:
            needs: first
            runs-on: ubuntu-latest
            steps:
              - run: |
                  echo "${{ needs.first.outputs.word }} from $GITHUB_REPOSITORY"
                  echo "tokens ${ACTIONS_ID_TOKEN_REQUEST_URL:-none}"
              - run: exit 3
              - run: echo "never comes here"
        """
    )
    work = tmp_path / "work"
    work.mkdir()
    runner = Runner(Toolchain(), work, Issuer(GITHUB, None), clean_environment())
    run = runner.run(source, "example/orders", secrets={"KEY": "s3cr3t-value"})
    assert run.code != 0
    assert run.jobs == {"first": True, "second": False}
    assert "hello from example/orders" in run.output
    assert "tokens none" in run.output
    assert "never comes here" not in run.output.replace('echo "never comes here"', "")
    assert "s3cr3t-value" not in run.output


def test_policy_has_tests_and_they_pass() -> None:
    conftest = Toolchain().ensure(["conftest"])["conftest"]
    answer = subprocess.run(
        [conftest, "verify", "--output", "json", "--policy", FIXTURES / "policy"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stdout
    assert sum(result["successes"] for result in json.loads(answer.stdout)) >= 14
