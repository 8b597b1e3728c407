"""The files that Envoy watches, as its documentation of xDS over the file system has them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from testbed.gateway.backends import Endpoint
from testbed.gateway.matching import FAULT, NO_BACKEND, Json
from testbed.ports import LOOPBACK

TYPES = "type.googleapis.com/envoy"
CONNECT_TIMEOUT = "1s"
UPSTREAM_IDLE = "15s"
"""After which Envoy closes an idle connection to a pod: before the pod does, or a request could meet the closing."""
UNLIMITED = 1_000_000
"""Envoy's default circuit breakers refuse the 1025th request at a time; the load balancer in the cloud does not."""

BUCKETS = (
    *(0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 28, 40, 60, 80, 100, 150, 200, 300, 400, 500),
    *(750, 1000, 1500, 2000, 3000, 5000, 10000, 30000, 60000),
)
"""Of latencies, in milliseconds: fine around the SLOs of services."""


def _watched(path: Path) -> Json:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def bootstrap(folder: Path, admin_port: int, metrics_port: int) -> Json:
    """Envoy's start: where its configuration is, its admin API, and its metrics at /metrics on a port of their own."""
    to_admin = {
        "name": "admin",
        "type": "STATIC",
        "connect_timeout": CONNECT_TIMEOUT,
        "load_assignment": _assignment("admin", [Endpoint(LOOPBACK, admin_port)]),
    }
    # Envoy serves Prometheus' format below its admin API only, which Prometheus has no business with.
    metrics = _manager(
        "metrics",
        {
            "route_config": {
                "virtual_hosts": [
                    {
                        "name": "metrics",
                        "domains": ["*"],
                        "routes": [
                            {
                                "match": {"path": "/metrics"},
                                "route": {"cluster": "admin", "prefix_rewrite": "/stats/prometheus?usedonly"},
                            }
                        ],
                    }
                ]
            }
        },
    )
    return {
        "node": {"id": "gateway", "cluster": "gateway"},
        "admin": {"address": _address(LOOPBACK, admin_port)},
        "dynamic_resources": {"lds_config": _watched(folder / "lds.json"), "cds_config": _watched(folder / "cds.json")},
        "static_resources": {
            "listeners": [
                {
                    "name": "metrics",
                    "address": _address(LOOPBACK, metrics_port),
                    "filter_chains": [{"filters": [metrics]}],
                }
            ],
            "clusters": [to_admin, {"name": NO_BACKEND, "type": "STATIC", "connect_timeout": CONNECT_TIMEOUT}],
        },
        "stats_config": {
            "histogram_bucket_settings": [
                {
                    "match": {"suffix": "rq_time"},
                    "buckets": BUCKETS,
                }
            ]
        },
    }


def _address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


def _manager(name: str, routes: Json) -> Json:
    manager = {
        "@type": f"{TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "use_remote_address": True,
        "generate_request_id": False,
        "normalize_path": True,
        "server_header_transformation": "PASS_THROUGH",
        "http_filters": [
            {"name": FAULT, "typed_config": {"@type": f"{TYPES}.extensions.filters.http.fault.v3.HTTPFault"}},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": f"{TYPES}.extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            },
        ],
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager | routes}


def route_table(port: int) -> str:
    """The name of the routes of a port, for Envoy and its statistics."""
    return f"port-{port}"


def port_of(table: str) -> int:
    """The port of a name that `route_table` made."""
    return int(table.removeprefix("port-"))


def listener(folder: Path, port: int) -> Json:
    """A listener on loopback with routes of its own."""
    name = route_table(port)
    routes = {"rds": {"route_config_name": name, "config_source": _watched(routes_file(folder, port))}}
    return {
        "@type": f"{TYPES}.config.listener.v3.Listener",
        "name": name,
        "address": _address(LOOPBACK, port),
        "filter_chains": [{"filters": [_manager(name, routes)]}],
    }


def routes(port: int, hosts: dict[str, list[Json]]) -> Json:
    """The routes of a port. No route has a retry policy: a lost request is the client's to see."""
    return {
        "@type": f"{TYPES}.config.route.v3.RouteConfiguration",
        "name": route_table(port),
        "ignore_port_in_host_matching": True,
        "virtual_hosts": [{"name": name, "domains": [name], "routes": found} for name, found in sorted(hosts.items())],
    }


def cluster(name: str, found: list[Endpoint]) -> Json:
    """A port of a Service with its endpoints.

    They are part of the cluster: with an EDS file for each, Envoy takes an inotify instance a cluster, of which a user
    has 128. When a cluster changes, Envoy lets the requests that run on its connections finish.
    """
    http = {
        "@type": f"{TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": {"idle_timeout": UPSTREAM_IDLE},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    most = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), UNLIMITED)
    return {
        "@type": f"{TYPES}.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "load_assignment": _assignment(name, found),
        "connect_timeout": CONNECT_TIMEOUT,
        "lb_policy": "ROUND_ROBIN",
        "circuit_breakers": {"thresholds": [most]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http},
    }


def _assignment(name: str, found: list[Endpoint]) -> Json:
    hosts = [{"endpoint": {"address": _address(*one)}} for one in found]
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]}


def routes_file(folder: Path, port: int) -> Path:
    """Where the routes of a port are."""
    return folder / "routes" / f"{route_table(port)}.json"


def write(path: Path, resources: list[Json]) -> str:
    """Put resources into a file that Envoy watches, as a whole, unless they are there; returns their version."""
    version = hashlib.sha256(json.dumps(resources, sort_keys=True).encode()).hexdigest()[:16]
    if _content(path).get("version_info") == version:
        return version
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"version_info": version, "resources": resources}))
    part.replace(path)  # Envoy acts on a file that is moved in, not on one that is written
    return version


def resources_in(path: Path) -> list[Json]:
    """The resources in a file; none where there is no file."""
    return list(_content(path).get("resources") or [])


def _content(path: Path) -> Json:
    try:
        found: Json = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found
