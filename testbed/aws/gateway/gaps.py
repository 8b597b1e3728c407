"""Operations that moto lacks and the platform's modules need: small, in memory, per account and region.

Each stands for what AWS does as far as a plan, an apply and a destroy can see it. Where moto has a model, it is used.
"""

from __future__ import annotations

from typing import Any

import gaps_eks
import gaps_ram
from localstack.aws.api import CommonServiceException, RequestContext
from moto.elasticache.models import elasticache_backends
from moto.kafka.models import kafka_backends


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


GAPS: dict[str, dict[str, Any]] = {
    "eks": gaps_eks.OPERATIONS,
    "elasticache": {"DeleteCacheSubnetGroup": delete_cache_subnet_group},
    "kafka": {"GetBootstrapBrokers": get_bootstrap_brokers},
    "ram": gaps_ram.OPERATIONS,
}
