"""Who may approve what: every refusal, and that nothing counts twice."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

import pytest

from testbed.promotion import people
from testbed.promotion.slack import SIGNATURE, TIMESTAMP, _buttons

from .conftest import APPROVER, SECRET, Developer, Promoter


@pytest.fixture
def message(promoter: Promoter, developer: Developer) -> dict[str, Any]:
    """The message with the buttons for orders@1.1.0 to production."""
    developer.set("1.1.0")
    promoter.settle()
    (request,) = promoter.ledger.requests()
    return {"ts": request.message, "blocks": [_buttons(request)]}


def answer(promoter: Promoter, sent: people.Sent) -> tuple[int, str]:
    found = promoter.approvals.handle(sent.body, sent.headers)
    promoter.settle()
    return found.status, found.text


def test_approved(promoter: Promoter, message: dict[str, Any]) -> None:
    sent = people.signed(people.press(message, APPROVER, "approve"), SECRET)
    assert answer(promoter, sent) == (200, "orders@1.1.0 production: approved")
    assert promoter.tags() == ["1.1.0"] * 3
    events = [(entry["event"], entry["who"]) for entry in promoter.ledger.audit()]
    assert ("approved", APPROVER) in events


def test_rejected(promoter: Promoter, message: dict[str, Any]) -> None:
    sent = people.signed(people.press(message, APPROVER, "reject"), SECRET)
    assert answer(promoter, sent)[0] == 200
    assert promoter.tags()[2] == "1.0.0"
    again = people.signed(people.press(message, APPROVER, "approve"), SECRET)
    assert answer(promoter, again) == (409, "orders@1.1.0 production does not wait: it is rejected already")
    assert promoter.tags()[2] == "1.0.0"


@pytest.mark.parametrize(
    ("sent", "status", "why"),
    [
        (lambda body: people.unsigned(body), 401, "unsigned"),
        (lambda body: people.signed(body, "guessed"), 401, "forged: a wrong signature"),
        (lambda body: people.signed(body, SECRET, age=people.LATE), 401, "late"),
        (lambda body: people.signed(body, SECRET, age=-people.LATE), 401, "late"),
        (lambda body: people.unsigned(body, {SIGNATURE: "v0=1", TIMESTAMP: "soon"}), 401, "forged: its timestamp"),
        (lambda body: people.unsigned(b"\xff", {SIGNATURE: "v0=1", TIMESTAMP: "1"}), 401, "forged: its body"),
        (lambda body: people.signed(b"payload=1", SECRET), 400, "in the payload"),
        (lambda body: people.signed(b"", SECRET), 400, "in the payload"),
    ],
)
def test_refused(promoter: Promoter, message: dict[str, Any], sent: Any, status: int, why: str) -> None:
    found = answer(promoter, sent(people.press(message, APPROVER, "approve")))
    assert found[0] == status
    assert why in found[1]
    assert promoter.tags()[2] == "1.0.0"
    assert [entry["event"] for entry in promoter.ledger.audit()].count("refused") == 1


def test_body_of_another_signature(promoter: Promoter, message: dict[str, Any]) -> None:
    approve = people.press(message, APPROVER, "approve")
    reject = people.signed(people.press(message, APPROVER, "reject"), SECRET)
    assert answer(promoter, people.Sent(approve, reject.headers))[0] == 401


def test_stranger(promoter: Promoter, message: dict[str, Any]) -> None:
    sent = people.signed(people.press(message, "U0EVE", "approve"), SECRET)
    assert answer(promoter, sent) == (403, "U0EVE may not approve")
    assert promoter.tags()[2] == "1.0.0"


def test_another_release_on_the_button(promoter: Promoter, message: dict[str, Any]) -> None:
    body = people.press(message, APPROVER, "approve", release="orders@9.9.9 production")
    status, text = answer(promoter, people.signed(body, SECRET))
    assert (status, "'orders@9.9.9 production'" in text) == (409, True)
    body = people.press(message, APPROVER, "approve", request="0" * 32)
    assert answer(promoter, people.signed(body, SECRET))[0] == 409
    assert promoter.tags()[2] == "1.0.0"


def test_button_of_a_superseded_release(promoter: Promoter, developer: Developer, message: dict[str, Any]) -> None:
    developer.set("1.2.0")
    promoter.settle()
    status, text = answer(promoter, people.signed(people.press(message, APPROVER, "approve"), SECRET))
    assert (status, text) == (409, "orders@1.1.0 production does not wait: it is superseded already")
    assert promoter.tags()[2] == "1.0.0"


def test_button_pressed_before_the_promoter_saw_the_newer_one(
    promoter: Promoter, developer: Developer, message: dict[str, Any]
) -> None:
    developer.set("1.2.0", "staging")
    promoter.repository.refresh()
    sent = people.signed(people.press(message, APPROVER, "approve"), SECRET)
    found = promoter.approvals.handle(sent.body, sent.headers)
    assert (found.status, "taken its place" in found.text) == (409, True)


def test_replayed(promoter: Promoter, message: dict[str, Any]) -> None:
    sent = people.signed(people.press(message, APPROVER, "approve"), SECRET)
    assert answer(promoter, sent)[0] == 200
    assert answer(promoter, sent) == (409, "replayed: this very request was accepted before")
    again = people.signed(people.press(message, APPROVER, "approve"), SECRET, age=5)
    assert answer(promoter, again) == (409, "orders@1.1.0 production does not wait: it is promoted already")
    assert answer(promoter.restarted(), sent)[0] == 409
    assert len(promoter.repository.promotions("orders", "production")) == 1


def test_other_payloads(promoter: Promoter) -> None:
    for payload in ({"type": "view_submission"}, {"type": "block_actions", "actions": []}, [], "text"):
        body = urllib.parse.urlencode({"payload": json.dumps(payload)}).encode()
        assert answer(promoter, people.signed(body, SECRET))[0] == 400
