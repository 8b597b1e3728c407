"""Services that LocalStack does not serve, served by moto behind the same endpoint and per account."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gaps import GAPS
from localstack.aws.skeleton import Skeleton
from localstack.aws.spec import load_service
from localstack.services.moto import _proxy_moto
from localstack.services.plugins import SERVICE_PLUGINS, Service
from moto.organizations import utils as organization_ids
from moto.organizations.models import FakeAccount

SERVICES = (
    "autoscaling",
    "cloudtrail",
    "ecr",
    "opensearch",
    "eks",
    "elasticache",
    "elb",
    "elbv2",
    "guardduty",
    "kafka",
    "organizations",
    "ram",
    "rds",
    "servicequotas",
    "sso-admin",
    "wafv2",
    "application-autoscaling",
)
"""Names of botocore's service models."""


def add_services(trail: Any) -> None:
    """Teach LocalStack's service manager the names in `SERVICES`; each is loaded at its first call.

    `cloudtrail:LookupEvents` is answered by `trail`, which moto does not implement.
    """
    original = SERVICE_PLUGINS._load_service_plugin

    def load(name: str) -> Any:
        if name not in SERVICES:
            return original(name)
        model = load_service(name)
        table: dict[str, Any] = dict.fromkeys(model.operation_names, _proxy_moto)
        table |= GAPS.get(name, {})
        if name == "cloudtrail":
            table["LookupEvents"] = trail.lookup_events
        return SimpleNamespace(service=Service(name=name, skeleton=Skeleton(model, table)))

    SERVICE_PLUGINS._load_service_plugin = load
    for name in SERVICES:
        SERVICE_PLUGINS.api_provider_specs[name] = ["default"]


def fixed_account_ids(accounts: dict[str, str]) -> None:
    """Let `organizations:CreateAccount` give the accounts their known ids instead of random ones."""
    random_id = organization_ids.make_random_account_id
    original = FakeAccount.__init__

    def create(self: Any, organization: Any, **kwargs: Any) -> None:
        organization_ids.make_random_account_id = lambda: accounts.get(kwargs["AccountName"]) or random_id()
        try:
            original(self, organization, **kwargs)
        finally:
            organization_ids.make_random_account_id = random_id

    FakeAccount.__init__ = create
