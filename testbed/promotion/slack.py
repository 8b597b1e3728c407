"""Slack: asking for an approval, and telling Slack's own requests from all others.

Signatures are checked by slack_sdk's `SignatureVerifier` (scheme v0: HMAC-SHA256 of `v0:timestamp:body`, five minutes).
What Slack leaves to an app is here: who may approve what, and that nothing counts twice.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from slack_sdk import WebClient
from slack_sdk.signature import SignatureVerifier

from testbed.promotion.config import Slack
from testbed.promotion.ledger import Request

SIGNATURE = "X-Slack-Signature"
TIMESTAMP = "X-Slack-Request-Timestamp"
EVENT = "promotion_requested"
ACTIONS = {"approve": "approved", "reject": "rejected"}


class NotificationPort(Protocol):
    """Where people are asked and told."""

    def ask(self, request: Request, evidence: str) -> str:
        """Ask for an approval; returns the message's id. Asking again finds the message of before."""

    def tell(self, request: Request, text: str) -> None:
        """Replace the buttons of a request's message by what became of it."""


class Untrusted(Exception):
    """A request that Slack did not send, or too long ago; the text says which."""


class Malformed(Exception):
    """Slack sent it, but it is no decision about a promotion."""


@dataclass(frozen=True)
class Click:
    """Somebody pressed a button."""

    user: str
    action: str
    request: str
    """The id of the request on the button."""
    release: str
    """What the message said would be released: `orders@1.4.0 production`."""
    signature: str


def verify(secret: str, body: bytes, headers: Mapping[str, str], now: float) -> str:
    """Check that a request is Slack's; returns its signature.

    Raises:
        Untrusted: It is unsigned, forged or late.
    """
    signature, timestamp = headers.get(SIGNATURE, ""), headers.get(TIMESTAMP, "")
    if not signature or not timestamp:
        raise Untrusted("unsigned: it has no signature or no timestamp")
    if not (timestamp.isascii() and timestamp.isdigit()):
        raise Untrusted("forged: its timestamp is no number")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Untrusted("forged: its body is not text") from None
    if not SignatureVerifier(secret).is_valid(text, timestamp, signature):
        late = abs(now - int(timestamp)) > 300
        raise Untrusted("late: it was signed more than five minutes ago" if late else "forged: a wrong signature")
    return signature


def parse(body: bytes, signature: str) -> Click:
    """The click in a `block_actions` request.

    Raises:
        Malformed: It is another kind of request, or not about a promotion.
    """
    try:
        form = urllib.parse.parse_qs(body.decode(), strict_parsing=True)
        payload: dict[str, Any] = json.loads(form["payload"][0])
        if payload["type"] != "block_actions":
            raise Malformed(f"a request of the type {payload['type']!r}")
        (action,) = payload["actions"]
        value = json.loads(action["value"])
        click = Click(payload["user"]["id"], action["action_id"], value["request"], value["release"], signature)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise Malformed(f"{type(error).__name__} in the payload") from None
    if click.action not in ACTIONS:
        raise Malformed(f"an unknown action {click.action!r}")
    return click


def label(request: Request) -> str:
    """What a button says it is for; compared with the request when it is pressed."""
    return f"{request.release} {request.environment}"


class SlackNotifications:
    """Posts to one channel."""

    def __init__(self, settings: Slack) -> None:
        self._channel = settings.channel
        self._client = WebClient(token=settings.token_file.read_text().strip(), base_url=settings.api, timeout=5)

    def ask(self, request: Request, evidence: str) -> str:
        """See `NotificationPort`. The message carries the request's id as metadata, by which it is found again."""
        history = self._client.conversations_history(channel=self._channel, include_all_metadata=True, limit=200)
        for message in history["messages"]:
            metadata = message.get("metadata") or {}
            if metadata.get("event_type") == EVENT and metadata["event_payload"]["request"] == request.id:
                return str(message["ts"])
        text = f"Release {request.release} to {request.environment}?"
        answer = self._client.chat_postMessage(
            channel=self._channel,
            text=text,
            blocks=[_section(f"*{text}*\n{evidence}"), _buttons(request)],
            metadata={"event_type": EVENT, "event_payload": {"request": request.id}},
        )
        return str(answer["ts"])

    def tell(self, request: Request, text: str) -> None:
        """See `NotificationPort`."""
        self._client.chat_update(channel=self._channel, ts=request.message, text=text, blocks=[_section(text)])


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _buttons(request: Request) -> dict[str, Any]:
    value = json.dumps({"request": request.id, "release": label(request)})
    return {
        "type": "actions",
        "block_id": f"promotion-{request.id}",
        "elements": [
            {
                "type": "button",
                "action_id": action,
                "style": style,
                "text": {"type": "plain_text", "text": action.capitalize()},
                "value": value,
            }
            for action, style in (("approve", "primary"), ("reject", "danger"))
        ],
    }
