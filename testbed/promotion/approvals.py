"""What happens to a request to the approval endpoint: accepted, or refused with the reason, and recorded either way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from testbed.promotion.config import Settings
from testbed.promotion.ledger import Ledger, NotWaiting, Replayed, Request, State
from testbed.promotion.slack import ACTIONS, SIGNATURE, Click, Malformed, Untrusted, label, parse, verify


@dataclass(frozen=True)
class Answer:
    """HTTP status and text."""

    status: int
    text: str


class Approvals:
    """Decides about requests to the endpoint.

    Args:
        settings: Who may approve, and the secret that Slack signs with.
        ledger: Where decisions go.
        current: Whether a request is for the release that would be promoted now.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        current: Callable[[Request], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._secret = settings.slack.signing_secret_file.read_text().strip()
        self._ledger = ledger
        self._current = current
        self._clock = clock

    def handle(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Verify, check and record one request."""
        now = self._clock()
        try:
            if self._settings.protections.signatures:
                signature = verify(self._secret, body, headers, now)
            else:
                signature = headers.get(SIGNATURE, f"none at {now}")
            click = parse(body, signature)
        except Untrusted as error:
            return self._refused(401, None, "", str(error), now)
        except Malformed as error:
            return self._refused(400, None, "", str(error), now)
        request = self._ledger.request(click.request)
        if request is None:
            return self._refused(409, None, click.user, f"no release waits under {click.request!r}", now)
        return self._decide(request, click, now)

    def _decide(self, request: Request, click: Click, now: float) -> Answer:
        approvers = self._settings.slack.approvers
        if click.user not in approvers:
            return self._refused(403, request, click.user, f"{click.user} may not approve", now)
        if click.release != label(request):
            why = f"the button says {click.release!r}, the request is for {label(request)!r}"
            return self._refused(409, request, click.user, why, now)
        decision = cast(State, ACTIONS[click.action])
        try:
            if request.state == "waiting" and not self._current(request):
                raise NotWaiting("another release has taken its place")
            name = approvers[click.user]
            self._ledger.decide(request, decision, click.user, name, click.signature, now)
        except Replayed:
            return self._refused(409, request, click.user, "replayed: this very request was accepted before", now)
        except NotWaiting as error:
            return self._refused(409, request, click.user, f"{label(request)} does not wait: {error}", now)
        return Answer(200, f"{label(request)}: {decision}")

    def _refused(self, status: int, request: Request | None, who: str, why: str, now: float) -> Answer:
        release, environment = (request.release, request.environment) if request else (None, "")
        self._ledger.record(now, "refused", release, environment, who, why)
        return Answer(status, why)
