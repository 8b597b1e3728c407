"""Operations that moto lacks and the platform's modules need: small, in memory, per account and region.

Each stands for what AWS does as far as a plan, an apply and a destroy can see it. Where moto has a model, it is used.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gaps_eks
import gaps_ram
from localstack.aws.api import CommonServiceException, RequestContext
from localstack.services.moto import call_moto
from moto.elasticache.models import elasticache_backends
from moto.kafka.models import kafka_backends
from moto.rds.models import RDSBackend


def delete_cache_subnet_group(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`elasticache:DeleteCacheSubnetGroup`."""
    groups = elasticache_backends[context.account_id][context.region].cache_subnet_groups
    if groups.pop(wanted["CacheSubnetGroupName"], None) is None:
        raise CommonServiceException("CacheSubnetGroupNotFoundFault", "There is no such subnet group", 404, True)
    return {}


def get_bootstrap_brokers(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`kafka:GetBootstrapBrokers`: names as AWS forms them; nothing listens there."""
    cluster = kafka_backends[context.account_id][context.region].clusters.get(wanted["ClusterArn"])
    if cluster is None:
        raise CommonServiceException("NotFoundException", "The cluster does not exist", 404, True)
    host = (
        f"{cluster.cluster_name}.{wanted['ClusterArn'].rsplit('/', 1)[-1][:6]}.c2.kafka.{context.region}.amazonaws.com"
    )
    return {"BootstrapBrokerStringSaslIam": ",".join(f"b-{number}.{host}:9098" for number in (1, 2))}


def create_kafka_cluster(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`kafka:CreateCluster` and `CreateClusterV2`: active at once; moto leaves it CREATING for ever."""
    answer = call_moto(context)
    kafka_backends[context.account_id][context.region].clusters[answer["ClusterArn"]].state = "ACTIVE"
    return answer


class _Keys:
    """Stands in for moto's KMS, which is empty: the keys are LocalStack's."""

    def __init__(self, account: str, region: str) -> None:
        self._prefix = f"arn:aws:kms:{region}:{account}:key/"

    def describe_key(self, key: str) -> Any:
        """The key's ARN, whether it is named by ARN or by id."""
        return SimpleNamespace(arn=key if key.startswith("arn:") else self._prefix + key)


def _keys_of(backend: RDSBackend) -> _Keys:
    return _Keys(backend.account_id, backend.region_name)


RDSBackend.kms = property(_keys_of)
RDSBackend._validate_kms_key = lambda backend, key: _keys_of(backend).describe_key(key).arn


GAPS: dict[str, dict[str, Any]] = {
    "eks": gaps_eks.OPERATIONS,
    "elasticache": {"DeleteCacheSubnetGroup": delete_cache_subnet_group},
    "kafka": {
        "CreateCluster": create_kafka_cluster,
        "CreateClusterV2": create_kafka_cluster,
        "GetBootstrapBrokers": get_bootstrap_brokers,
    },
    "ram": gaps_ram.OPERATIONS,
}
