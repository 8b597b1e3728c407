"""A container's environment and arguments, resolved as a kubelet does."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Awaitable, Callable
from typing import Any

Body = dict[str, Any]
Fetch = Callable[[str, str], Awaitable[Body | None]]
"""Gets a ConfigMap or Secret of the pod's namespace: ("configmaps", name), ("secrets", name)."""

_SUFFIXES = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_SUFFIXES |= {f"{prefix}i": 1024.0**power for power, prefix in enumerate("KMGTP", start=1)}


class ConfigError(Exception):
    """The container cannot be configured (CreateContainerConfigError); the text says what is missing."""


def quantity(text: str | int | float) -> float:
    """The value of a Kubernetes quantity: '128Mi', '0.5', '250m'.

    Raises:
        ConfigError: It is none.
    """
    match = re.fullmatch(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)([a-zA-Z]*)", str(text))
    if match is None or match[2] not in _SUFFIXES:
        raise ConfigError(f"{text!r} is no quantity")
    return float(match[1]) * _SUFFIXES[match[2]]


def memory_limit(container: Body) -> int | None:
    """The memory limit of a container in bytes."""
    limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
    return None if limit is None else int(quantity(limit))


def cpu_limit(container: Body) -> float | None:
    """The CPU limit of a container in cores."""
    limit = ((container.get("resources") or {}).get("limits") or {}).get("cpu")
    return None if limit is None else quantity(limit)


def expand(text: str, variables: dict[str, str]) -> str:
    """Fill in $(NAME); $$ is a dollar sign, and an unknown name stays as it is."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return variables.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]+)\)", value, text)


async def resolve(pod: Body, container: Body, fetch: Fetch, addresses: dict[str, str]) -> dict[str, str]:
    """The variables that a container's `envFrom` and `env` give.

    Args:
        addresses: The pod's own: `status.podIP`, `status.podIPs`, `status.hostIP`, `status.hostIPs`.

    Raises:
        ConfigError: Something that is not optional is missing, or not supported.
    """
    found: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        found |= {source.get("prefix", "") + name: value for name, value in (await _all_of(source, fetch)).items()}
    for entry in container.get("env") or []:
        if "valueFrom" in entry:
            value = await _value_from(pod, container, entry["valueFrom"], fetch, addresses)
            if value is not None:
                found[entry["name"]] = value
        else:
            found[entry["name"]] = expand(entry.get("value") or "", found)
    return found


async def _all_of(source: Body, fetch: Fetch) -> dict[str, str]:
    kind, field = ("secrets", "secretRef") if "secretRef" in source else ("configmaps", "configMapRef")
    reference = source.get(field)
    if reference is None:
        raise ConfigError(f"envFrom {sorted(source)} is not supported")
    return await _data(kind, reference, fetch) or {}


async def _data(kind: str, reference: Body, fetch: Fetch) -> dict[str, str] | None:
    found = await fetch(kind, reference["name"])
    if found is None:
        if reference.get("optional"):
            return None
        raise ConfigError(f'{kind.removesuffix("s")} "{reference["name"]}" not found')
    if kind == "secrets":
        return {key: base64.b64decode(value).decode() for key, value in (found.get("data") or {}).items()}
    return dict(found.get("data") or {})


async def _value_from(pod: Body, container: Body, source: Body, fetch: Fetch, addresses: dict[str, str]) -> str | None:
    for kind, field in (("configmaps", "configMapKeyRef"), ("secrets", "secretKeyRef")):
        if field in source:
            data = await _data(kind, source[field], fetch)
            key = source[field]["key"]
            if data is not None and key in data:
                return data[key]
            if source[field].get("optional"):
                return None
            raise ConfigError(f'couldn\'t find key {key} in {kind.removesuffix("s")} "{source[field]["name"]}"')
    if "fieldRef" in source:
        return field_of(pod, source["fieldRef"]["fieldPath"], addresses)
    if "resourceFieldRef" in source:
        return _resource(container, source["resourceFieldRef"])
    raise ConfigError(f"valueFrom {sorted(source)} is not supported")


def field_of(pod: Body, path: str, addresses: dict[str, str]) -> str:
    """A field by the downward API.

    Raises:
        ConfigError: There is no such field.
    """
    if path in addresses:
        return addresses[path]
    match = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if match is not None:
        return str((pod["metadata"].get(match[1]) or {}).get(match[2], ""))
    if path in {"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName"}:
        top, _, field = path.partition(".")
        return str(pod[top].get(field, ""))
    raise ConfigError(f"field {path} is not supported")


def _resource(container: Body, reference: Body) -> str:
    kind, _, name = reference["resource"].partition(".")
    value = ((container.get("resources") or {}).get(kind) or {}).get(name)
    if value is None:
        raise ConfigError(f"the container has no {reference['resource']}")
    divisor = quantity(reference.get("divisor") or 1) or 1
    return str(math.ceil(quantity(value) / divisor))
