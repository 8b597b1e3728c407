"""One rule of an HTTPRoute in Envoy's words. Reference: the Gateway API's HTTPRoute, Envoy's route.v3.Route."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from testbed.gateway.backends import Backend, Unresolved
from testbed.operators.resource import Body

NO_BACKEND = "no-backend"
"""The Envoy cluster in whose place a share of the requests is answered with 500."""
FAULT = "envoy.filters.http.fault"
DEFAULT_TIMEOUT = "60s"
"""Of a request without `timeouts`: the idle timeout of an Application Load Balancer."""
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
Json = dict[str, Any]
Precedence = tuple[int, int, int, int, int]


class Unsupported(Exception):
    """Something in a rule that this gateway does not do; the route is not accepted, rather than served wrongly."""


def seconds(duration: str) -> str:
    """A Gateway API duration ("1m30s") as a protobuf one ("90s")."""
    total = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)(ms|h|m|s)", duration))
    return f"{total:.3f}".rstrip("0").rstrip(".") + "s"


def _string(kind: str, value: str) -> Json:
    if kind == "Exact":
        return {"exact": value}
    if kind == "RegularExpression":
        return {"safe_regex": {"regex": value}}
    raise Unsupported(f"a match of type {kind}")


def match(wanted: Body) -> tuple[Precedence, Json]:
    """An HTTPRouteMatch: how it ranks among others (the smallest wins), and Envoy's RouteMatch."""
    path = wanted.get("path") or {}
    kind, value = path.get("type", "PathPrefix"), str(path.get("value", "/"))
    headers = [
        {"name": entry["name"], "string_match": _string(entry.get("type", "Exact"), entry["value"])}
        for entry in wanted.get("headers") or []
    ]
    queries = [
        {"name": entry["name"], "string_match": _string(entry.get("type", "Exact"), entry["value"])}
        for entry in wanted.get("queryParams") or []
    ]
    ranks = {"Exact": 0, "RegularExpression": 1, "PathPrefix": 2}
    if kind not in ranks:
        raise Unsupported(f"a path of type {kind}")
    method = wanted.get("method")
    precedence = (ranks[kind], -len(value), 0 if method else 1, -len(headers), -len(queries))
    found: Json = {}
    if kind == "Exact":
        found["path"] = value
    elif kind == "RegularExpression":
        found["safe_regex"] = {"regex": value}
    elif value.rstrip("/"):
        found["path_separated_prefix"] = value.rstrip("/")
    else:
        found["prefix"] = "/"
    if method:
        headers.append({"name": ":method", "string_match": {"exact": method}})
    if headers:
        found["headers"] = headers
    if queries:
        found["query_parameters"] = queries
    return precedence, found


def _modifier(wanted: Body, which: str) -> Json:
    """A RequestHeaderModifier or ResponseHeaderModifier; `which` is request or response."""
    changes = [
        {"header": {"key": entry["name"], "value": _literal(entry["value"])}, "append_action": action}
        for field, action in (("set", "OVERWRITE_IF_EXISTS_OR_ADD"), ("add", "APPEND_IF_EXISTS_OR_ADD"))
        for entry in wanted.get(field) or []
    ]
    found: Json = {}
    if changes:
        found[f"{which}_headers_to_add"] = changes
    if wanted.get("remove"):
        found[f"{which}_headers_to_remove"] = list(wanted["remove"])
    return found


def _literal(value: str) -> str:
    return value.replace("%", "%%")  # Envoy would expand %NAME%


def _modifiers(filters: list[Body]) -> Json:
    found: Json = {}
    for entry in filters:
        if entry["type"] == "RequestHeaderModifier":
            found |= _modifier(entry["requestHeaderModifier"], "request")
        elif entry["type"] == "ResponseHeaderModifier":
            found |= _modifier(entry["responseHeaderModifier"], "response")
    return found


def _redirect(wanted: Body) -> Json:
    found: Json = {}
    if "scheme" in wanted:
        found["scheme_redirect"] = wanted["scheme"]
    if "hostname" in wanted:
        found["host_redirect"] = wanted["hostname"]
    if "port" in wanted:
        found["port_redirect"] = wanted["port"]
    path = wanted.get("path") or {}
    if path.get("type") == "ReplaceFullPath":
        found["path_redirect"] = path["replaceFullPath"]
    elif path.get("type") == "ReplacePrefixMatch":
        found["prefix_rewrite"] = path["replacePrefixMatch"]
    codes = {301: "MOVED_PERMANENTLY", 302: "FOUND", 303: "SEE_OTHER", 307: "TEMPORARY_REDIRECT"}
    code = int(wanted.get("statusCode") or 302)
    if code not in {*codes, 308}:
        raise Unsupported(f"a redirect with status {code}")
    return {"redirect": found | {"response_code": codes.get(code, "PERMANENT_REDIRECT")}}


def _rewrite(wanted: Body) -> Json:
    found: Json = {}
    if "hostname" in wanted:
        found["host_rewrite_literal"] = wanted["hostname"]
    path = wanted.get("path") or {}
    if path.get("type") == "ReplaceFullPath":
        found["regex_rewrite"] = {"pattern": {"regex": "^/.*$"}, "substitution": path["replaceFullPath"]}
    elif path.get("type") == "ReplacePrefixMatch":
        found["prefix_rewrite"] = path["replacePrefixMatch"] or "/"
    return found


SUPPORTED = {"RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "RequestMirror"}
OF_BACKENDS = {"RequestHeaderModifier", "ResponseHeaderModifier"}


class Rule:
    """A rule, translated.

    Args:
        rule: The HTTPRouteRule.
        resolve: Gives the backend of a backendRef, or raises `Unresolved`.

    Raises:
        Unsupported: It asks for something that this gateway does not do.
    """

    def __init__(self, rule: Body, resolve: Callable[[Body], Backend]) -> None:
        self._resolve = resolve
        self.backends: set[Backend] = set()
        """The backends that requests can reach by it."""
        self.problems: list[Unresolved] = []
        """What of its backendRefs means nothing."""
        for refused in ("sessionPersistence", "retry"):
            if rule.get(refused):
                raise Unsupported(f"{refused} in a rule")
        self._filters: list[Body] = rule.get("filters") or []
        self._check(self._filters, SUPPORTED)
        self.matches = [match(wanted) for wanted in rule.get("matches") or [{}]]
        self._action = self._act(rule)

    @staticmethod
    def _check(filters: list[Body], known: set[str]) -> None:
        for entry in filters:
            if entry["type"] not in known:
                raise Unsupported(f"a filter of type {entry['type']}")

    def _backend(self, reference: Body) -> Backend | None:
        try:
            backend = self._resolve(reference)
        except Unresolved as problem:
            self.problems.append(problem)
            return None
        self.backends.add(backend)
        return backend

    def _act(self, rule: Body) -> Json:
        """What becomes of a request: Envoy's action, with the header changes of the rule."""
        for wanted in self._filters:
            if wanted["type"] == "RequestRedirect":
                return _redirect(wanted["requestRedirect"]) | _modifiers(self._filters)
        weighted, alive = [], False
        for reference in rule.get("backendRefs") or []:
            self._check(reference.get("filters") or [], OF_BACKENDS)
            backend = self._backend(reference)
            if not (weight := int(reference.get("weight", 1))):
                continue
            entry: Json = {"name": backend.cluster if backend else NO_BACKEND, "weight": weight}
            entry |= _modifiers(reference.get("filters") or [])
            if backend is None:
                entry["typed_per_filter_config"] = {FAULT: _abort()}
            alive = alive or backend is not None
            weighted.append(entry)
        if not alive:
            # The Gateway API: requests that would go to an invalid backend, or to none, get a 500.
            return {"direct_response": {"status": 500, "body": {"inline_string": "no valid backend\n"}}}
        return {"route": self._route(rule, weighted)} | _modifiers(self._filters)

    def _route(self, rule: Body, weighted: list[Json]) -> Json:
        timeouts = rule.get("timeouts") or {}
        timeout = timeouts.get("request") or timeouts.get("backendRequest")
        route: Json = {
            "weighted_clusters": {"clusters": weighted},
            "timeout": seconds(timeout) if timeout else DEFAULT_TIMEOUT,
        }
        mirrors = []
        for entry in self._filters:
            if entry["type"] == "URLRewrite":
                route |= _rewrite(entry["urlRewrite"])
            elif entry["type"] == "RequestMirror":
                wanted = entry["requestMirror"]
                if wanted.get("percent") is not None or wanted.get("fraction"):
                    raise Unsupported("a mirror of a part of the requests")
                if (backend := self._backend(wanted["backendRef"])) is not None:
                    mirrors.append({"cluster": backend.cluster})
        if mirrors:
            route["request_mirror_policies"] = mirrors
        return route

    def routes(self) -> list[tuple[Precedence, Json]]:
        """Envoy's routes, one a match, with how each ranks."""
        return [(precedence, {"match": wanted} | self._action) for precedence, wanted in self.matches]


def _abort() -> Json:
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        "abort": {"http_status": 500, "percentage": {"numerator": 100}},
    }
