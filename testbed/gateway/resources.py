"""What the controller watches."""

from __future__ import annotations

from testbed.operators.resource import Resource

GROUP = "gateway.networking.k8s.io"
API = f"{GROUP}/v1"
CONTROLLER_NAME = "gateway.testbed.dev/envoy"
"""What a GatewayClass names for its Gateways to be ours."""

GATEWAY_CLASS = Resource(API, "GatewayClass", "gatewayclasses", namespaced=False)
GATEWAY = Resource(API, "Gateway", "gateways")
HTTP_ROUTE = Resource(API, "HTTPRoute", "httproutes")
REFERENCE_GRANT = Resource(API, "ReferenceGrant", "referencegrants")
NAMESPACE = Resource("v1", "Namespace", "namespaces", namespaced=False)
SERVICE = Resource("v1", "Service", "services")
ENDPOINT_SLICE = Resource("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")

WATCHED = (GATEWAY_CLASS, GATEWAY, HTTP_ROUTE, REFERENCE_GRANT, NAMESPACE, SERVICE, ENDPOINT_SLICE)
