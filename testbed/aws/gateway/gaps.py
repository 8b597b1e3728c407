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
from moto.elasticache.models import ReplicationGroup, elasticache_backends
from moto.kafka.models import kafka_backends
from moto.rds.models import RDSBackend


def delete_cache_subnet_group(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`elasticache:DeleteCacheSubnetGroup`."""
    groups = elasticache_backends[context.account_id][context.region].cache_subnet_groups
    if groups.pop(wanted["CacheSubnetGroupName"], None) is None:
        raise CommonServiceException("CacheSubnetGroupNotFoundFault", "There is no such subnet group", 404, True)
    return {}


def delete_replication_group(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`elasticache:DeleteReplicationGroup`, which ends: moto's group is being deleted for ever."""
    answer = call_moto(context)
    elasticache_backends[context.account_id][context.region].replication_groups.pop(wanted["ReplicationGroupId"], None)
    return answer


def get_bootstrap_brokers(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`kafka:GetBootstrapBrokers`: names as AWS forms them; nothing listens there."""
    cluster = kafka_backends[context.account_id][context.region].clusters.get(wanted["ClusterArn"])
    if cluster is None:
        raise CommonServiceException("NotFoundException", "The cluster does not exist", 404, True)
    host = (
        f"{cluster.cluster_name}.{wanted['ClusterArn'].rsplit('/', 1)[-1][:6]}.c2.kafka.{context.region}.amazonaws.com"
    )
    return {"BootstrapBrokerStringSaslIam": ",".join(f"b-{number}.{host}:9098" for number in (1, 2))}


def describe_cache_clusters(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`elasticache:DescribeCacheClusters`, with the members of replication groups, which moto keeps by name only."""
    name = wanted.get("CacheClusterId")
    for group in elasticache_backends[context.account_id][context.region].replication_groups.values():
        if name in group.member_clusters:
            return {"CacheClusters": [_member(group, name)]}
    return call_moto(context)


def _member(group: Any, name: str) -> dict[str, Any]:
    version = group.engine_version or "7.1"
    return {
        "CacheClusterId": name,
        "ReplicationGroupId": group.replication_group_id,
        "ARN": group.arn.replace("replicationgroup:", "cluster:").replace(group.replication_group_id, name),
        "CacheClusterStatus": "available",
        "CacheNodeType": group.cache_node_type,
        "NumCacheNodes": 1,
        "Engine": group.engine,
        "EngineVersion": version if version.count(".") > 1 else f"{version}.0",
        "AutoMinorVersionUpgrade": group.auto_minor_version_upgrade in (None, True, "true"),
        "CacheSubnetGroupName": group.cache_subnet_group_name,
        "SecurityGroups": [{"SecurityGroupId": id_, "Status": "active"} for id_ in group.security_group_ids or []],
        "CacheParameterGroup": {
            "CacheParameterGroupName": group.cache_parameter_group_name or f"default.{group.engine}{version[0]}"
        },
        "PreferredMaintenanceWindow": group.preferred_maintenance_window or "sun:05:00-sun:06:00",
        "AuthTokenEnabled": group.auth_token_enabled,
        "AtRestEncryptionEnabled": bool(group.at_rest_encryption_enabled),
        "TransitEncryptionEnabled": bool(group.transit_encryption_enabled),
        "TransitEncryptionMode": group.transit_encryption_mode or "required",
    }


def create_kafka_cluster(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`kafka:CreateCluster` and `CreateClusterV2`: active at once; moto leaves it CREATING for ever."""
    answer = call_moto(context)
    kafka_backends[context.account_id][context.region].clusters[answer["ClusterArn"]].state = "ACTIVE"
    return answer


def describe_kafka_cluster(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`kafka:DescribeCluster` and `DescribeClusterV2`, without the configuration that moto makes up."""
    if wanted["ClusterArn"] not in kafka_backends[context.account_id][context.region].clusters:
        raise CommonServiceException("NotFoundException", "The cluster does not exist", 404, True)
    answer = call_moto(context)
    info = answer["ClusterInfo"]
    software = info.get("Provisioned", info).get("CurrentBrokerSoftwareInfo") or {}
    if software.get("ConfigurationArn") == "string":
        software.pop("ConfigurationArn")
        software.pop("ConfigurationRevision", None)
    return answer


def describe_db_clusters(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`rds:DescribeDBClusters`: a provisioned cluster has no scaling configuration, where moto gives an empty one."""
    answer = call_moto(context)
    for cluster in answer.get("DBClusters") or []:
        if not any((cluster.get("ScalingConfigurationInfo") or {}).values()):
            cluster.pop("ScalingConfigurationInfo", None)
    return answer


_set_members = ReplicationGroup._set_node_members_clusters_disabled


def _members(self: Any, **given: Any) -> None:
    """moto takes the number of nodes from the replicas only; `NumCacheClusters` says it as well."""
    given["replicas_per_node_group"] = given["replicas_per_node_group"] or given["num_cache_clusters"] - 1
    _set_members(self, **given)


ReplicationGroup._set_node_members_clusters_disabled = _members


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
    "elasticache": {
        "DeleteCacheSubnetGroup": delete_cache_subnet_group,
        "DeleteReplicationGroup": delete_replication_group,
        "DescribeCacheClusters": describe_cache_clusters,
    },
    "kafka": {
        "CreateCluster": create_kafka_cluster,
        "CreateClusterV2": create_kafka_cluster,
        "DescribeCluster": describe_kafka_cluster,
        "DescribeClusterV2": describe_kafka_cluster,
        "GetBootstrapBrokers": get_bootstrap_brokers,
    },
    "rds": {"DescribeDBClusters": describe_db_clusters},
    "ram": gaps_ram.OPERATIONS,
}
