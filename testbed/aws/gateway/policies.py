"""Evaluation of IAM policy documents: the elements that the platform's policies use.

Effect, Action, NotAction, Resource, NotResource, Principal and Condition with the string, ARN, boolean and null
operators, as described in the IAM user guide ("Policy evaluation logic"). An element or an operator that is not known
raises `UnknownElement` rather than being passed over. Why not a library: moto's evaluator, which LocalStack carries,
has no resource or condition logic beyond trust policies, and treats a statement that does not match as a denial.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

ELEMENTS = {
    "Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Principal", "NotPrincipal", "Condition",
}  # fmt: skip


class UnknownElement(ValueError):
    """A policy uses something that this evaluator does not implement."""


@dataclass(frozen=True)
class Request:
    """What is asked for. `resources` is empty where the call's resource is not derived: then every pattern matches an
    Allow, and only `*` matches a Deny."""

    action: str
    resources: tuple[str, ...] = ()
    principals: frozenset[str] = frozenset()
    context: dict[str, str] = field(default_factory=dict)


@lru_cache(maxsize=4096)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text).replace(r"\*", ".*").replace(r"\?", "."), re.IGNORECASE | re.DOTALL)


@lru_cache(maxsize=4096)
def _exact_case(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@lru_cache(maxsize=4096)
def statements(document: str) -> tuple[dict[str, Any], ...]:
    """The statements of a policy document in JSON."""
    found = tuple(_list(json.loads(document).get("Statement", [])))
    for statement in found:
        if unknown := set(statement) - ELEMENTS:
            raise UnknownElement(f"policy element {', '.join(sorted(unknown))}")
    return found


def _action(statement: dict[str, Any], action: str) -> bool:
    if "NotAction" in statement:
        return not any(_pattern(entry).fullmatch(action) for entry in _list(statement["NotAction"]))
    return any(_pattern(entry).fullmatch(action) for entry in _list(statement.get("Action", [])))


def _resource(statement: dict[str, Any], resources: tuple[str, ...]) -> bool:
    if "Resource" not in statement and "NotResource" not in statement:
        return True  # a trust policy
    if "NotResource" in statement:
        excluded = _list(statement["NotResource"])
        return not any(_exact_case(entry).fullmatch(one) for entry in excluded for one in resources)
    patterns = _list(statement["Resource"])
    if not resources:
        return statement["Effect"] == "Allow" or "*" in patterns
    return all(any(_exact_case(entry).fullmatch(one) for entry in patterns) for one in resources)


def _principal(statement: dict[str, Any], principals: frozenset[str]) -> bool:
    if "NotPrincipal" in statement:
        raise UnknownElement("policy element NotPrincipal")
    principal = statement.get("Principal")
    if principal is None or principal == "*":
        return True
    named = [entry for entries in principal.values() for entry in _list(entries)]
    return any(entry == "*" or entry in principals or _root(entry) in principals for entry in named)


def _root(principal: str) -> str:
    return f"arn:aws:iam::{principal}:root" if re.fullmatch(r"\d{12}", principal) else principal


def _condition(statement: dict[str, Any], context: dict[str, str]) -> bool:
    lowered = {key.lower(): value for key, value in context.items()}
    for operator, tests in statement.get("Condition", {}).items():
        for key, wanted in tests.items():
            if not _holds(operator, lowered.get(key.lower()), [str(entry) for entry in _list(wanted)]):
                return False
    return True


def _holds(operator: str, value: str | None, wanted: list[str]) -> bool:
    base = operator.removeprefix("ForAnyValue:").removeprefix("ForAllValues:")
    if base == "Null":
        return (value is None) == (wanted[0].lower() == "true")
    if base.endswith("IfExists"):
        if value is None:
            return True
        base = base.removesuffix("IfExists")
    negative = "Not" in base
    if value is None:
        return negative or operator.startswith("ForAllValues:")
    match base.replace("Not", ""):
        case "StringEquals" | "ArnEquals" if base.startswith("String"):
            found = value in wanted
        case "StringEqualsIgnoreCase":
            found = value.lower() in [entry.lower() for entry in wanted]
        case "StringLike" | "ArnLike" | "ArnEquals":
            found = any(_exact_case(entry).fullmatch(value) for entry in wanted)
        case "Bool":
            found = value.lower() in [entry.lower() for entry in wanted]
        case _:
            raise UnknownElement(f"condition operator {operator}")
    return found != negative


def matching(document: str, request: Request) -> set[str]:
    """The effects (`Allow`, `Deny`) of the statements of a document that apply to a request."""
    return {
        statement["Effect"]
        for statement in statements(document)
        if _action(statement, request.action)
        and _resource(statement, request.resources)
        and _principal(statement, request.principals)
        and _condition(statement, request.context)
    }


def allows(documents: list[str], request: Request) -> bool:
    """Whether documents together allow a request: an Allow somewhere, and no Deny anywhere."""
    effects = {effect for document in documents for effect in matching(document, request)}
    return "Allow" in effects and "Deny" not in effects
