"""People in Slack, and others who pretend to be: who presses which button, and what reaches the promoter then."""

from __future__ import annotations

import json
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

import requests
from slack_sdk.signature import SignatureVerifier

from testbed.promotion.slack import SIGNATURE, TIMESTAMP

LATE = 301.0
"""Seconds; Slack tells apps to refuse what is older than five minutes."""


@dataclass(frozen=True)
class Sent:
    """One request as it goes over the wire; kept, it can be sent again."""

    body: bytes
    headers: dict[str, str] = field(repr=False)


def press(message: dict[str, Any], user: str, action: str, **changed: str) -> bytes:
    """The body that Slack sends when a user presses a button of a message.

    Args:
        message: As Slack's Web API gives it.
        user: Id of the user.
        action: `approve` or `reject`.
        changed: Fields of the button's value that are not what the promoter put there.
    """
    buttons = next(block for block in message["blocks"] if block["type"] == "actions")
    button = next(one for one in buttons["elements"] if one["action_id"] == action)
    value = json.dumps(json.loads(button["value"]) | changed)
    payload = {
        "type": "block_actions",
        "user": {"id": user},
        "container": {"type": "message", "message_ts": message["ts"]},
        "actions": [{"type": "button", "action_id": action, "block_id": buttons["block_id"], "value": value}],
    }
    return urllib.parse.urlencode({"payload": json.dumps(payload)}).encode()


def signed(body: bytes, secret: str, *, age: float = 0) -> Sent:
    """A body as somebody signs it who knows `secret`; `age` in seconds."""
    timestamp = str(int(time.time() - age))
    signature = SignatureVerifier(secret).generate_signature(timestamp=timestamp, body=body)
    return unsigned(body, {TIMESTAMP: timestamp, SIGNATURE: str(signature)})


def unsigned(body: bytes, headers: dict[str, str] | None = None) -> Sent:
    """A body without a signature."""
    return Sent(body, {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})})


def send(url: str, sent: Sent) -> tuple[int, str]:
    """Send it to an endpoint; returns status and text."""
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(url, data=sent.body, headers=sent.headers, timeout=10)
    return answer.status_code, answer.text
