"""Comparing what should be with what is, as the API server would see it."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

_UNITS = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "E": Decimal(10) ** 18,
    "Ki": Decimal(2) ** 10,
    "Mi": Decimal(2) ** 20,
    "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
    "Ei": Decimal(2) ** 60,
}
_QUANTITY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?", re.ASCII)
QUANTITIES = {"hard", "default", "defaultRequest", "max"}
"""Fields whose values are quantities: the API server rewrites them ("1000m" becomes "1")."""


def quantity(value: object) -> Decimal:
    """The number that a Kubernetes quantity means.

    Raises:
        ValueError: It is none.
    """
    found = _QUANTITY.fullmatch(str(value)) if not isinstance(value, bool) else None
    if found is None:
        raise ValueError(f"{value!r} is not a quantity such as 500m, 4 or 16Gi")
    return Decimal(found[1]) * _UNITS[found[2] or ""]


def missing(wanted: Any, live: Any, path: str = "", quantities: bool = False) -> str | None:
    """The path of the first difference of what is wanted; what is there besides does not count, except in lists."""
    if isinstance(wanted, dict):
        if not isinstance(live, dict):
            return path
        for name, value in wanted.items():
            if name not in live:
                return f"{path}.{name}"
            found = missing(value, live[name], f"{path}.{name}", quantities or name in QUANTITIES)
            if found is not None:
                return found
        return None
    if isinstance(wanted, list):
        if not isinstance(live, list) or len(wanted) != len(live):
            return path
        pairs = enumerate(zip(wanted, live, strict=True))
        return next((found for i, (a, b) in pairs if (found := missing(a, b, f"{path}[{i}]", quantities))), None)
    if wanted == live:
        return None
    if quantities:
        try:
            return None if quantity(wanted) == quantity(live) else path
        except ValueError:
            pass
    return path


def difference(wanted: dict[str, Any], live: dict[str, Any]) -> str | None:
    """The path of the first difference, or None.

    What others add to metadata is theirs. What they add to the rest is a difference: a scope on a quota or a
    further field of a project changes what ours means.
    """
    found = missing(wanted, live)
    if found is not None:
        return found
    for name in wanted.keys() - {"apiVersion", "kind", "metadata"}:
        if (found := missing(live.get(name), wanted[name], f".{name}", True)) is not None:
            return found
    return None
