"""The trail of the organization: every call in seven accounts, with who made it and how they proved it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import requests
from pydantic import BaseModel, ConfigDict, Field

from testbed.aws.accounts import ACCOUNTS, find_account


class Event(BaseModel):
    """One call, the part of a CloudTrail record that scenarios use."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    sequence: int
    time: datetime = Field(alias="eventTime")
    source: str = Field(alias="eventSource")
    name: str = Field(alias="eventName")
    read_only: bool = Field(alias="readOnly")
    identity: dict[str, Any] = Field(alias="userIdentity")
    parameters: dict[str, Any] = Field(alias="requestParameters")
    error: str = Field(default="", alias="errorCode")
    account: str = Field(alias="recipientAccountId")

    @property
    def credential(self) -> str:
        """How the caller proved who it is: `root`, `static key`, `web identity`, `assumed role` or `anonymous`."""
        kind = self.identity["type"]
        if kind == "AssumedRole":
            context = self.identity.get("sessionContext", {})
            return "web identity" if "webIdFederationData" in context else "assumed role"
        kinds = {"IAMUser": "static key", "Root": "root", "WebIdentityUser": "web identity", "Anonymous": "anonymous"}
        return kinds.get(kind, "unknown")

    @property
    def changes_state(self) -> bool:
        """True for a call that was not refused and that changes something."""
        return not self.read_only and not self.error

    def __str__(self) -> str:
        who = self.identity.get("arn") or self.identity.get("type")
        return f"{self.source.split('.')[0]}:{self.name} by {who}{f' ({self.error})' if self.error else ''}"


class Trail:
    """Queries over accounts."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._http = requests.Session()
        self._http.trust_env = False  # no proxy of the user's

    def events(self, *accounts: str, after: int = 0) -> list[Event]:
        """The events of accounts by name (all seven without one) after a mark, in order.

        Raises:
            UsageError: An account is unknown.
        """
        found: dict[int, Event] = {}
        for account in [find_account(name) for name in accounts or ACCOUNTS]:
            answer = self._http.get(
                f"{self._endpoint}/_testbed/trail", params={"account": account.id, "after": str(after)}, timeout=30
            )
            answer.raise_for_status()
            for entry in answer.json():
                found[entry["sequence"]] = Event.model_validate(entry)
        return [found[number] for number in sorted(found)]

    def mark(self) -> int:
        """A number for `after`: everything until now is before it."""
        return max((event.sequence for event in self.events()), default=0)

    def changes(self, *, after: int) -> list[Event]:
        """What changed state after a mark, in all accounts.

        Less the lock of a state file: a plan takes that too, and it is taken before a provider is asked anything.
        """
        lock = ".tflock"
        return [e for e in self.events(after=after) if e.changes_state and not _key(e).endswith(lock)]


def _key(event: Event) -> str:
    return str(event.parameters.get("Key", ""))
