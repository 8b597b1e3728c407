"""Waiting: on a condition, with a deadline, and with what was last seen in the error."""

from __future__ import annotations

from collections.abc import Callable

from tenacity import RetryError, Retrying, retry_if_exception_type, retry_if_result, stop_after_delay, wait_fixed

from testbed.errors import WaitTimeout

Probe = Callable[[], tuple[bool, object]]
"""Returns whether the condition holds, and what was seen (shown when time runs out)."""
EVERY = 0.05
"""Seconds between two looks, where a look costs little."""


def wait_until(
    awaited: str,
    probe: Probe,
    *,
    timeout: float,
    every: float = EVERY,
    retry_on: tuple[type[Exception], ...] = (),
    evidence: Callable[[], str] | None = None,
) -> object:
    """Poll `probe` until it says True; returns what it saw then.

    Use a watch where the API offers one; this is for readiness endpoints and other conditions without one.

    Args:
        awaited: What is waited for, for the message ("the API server of cluster dev is ready").
        probe: See `Probe`. An exception from it ends the wait unless its type is in `retry_on`.
        timeout: Seconds.
        every: Seconds between two looks.
        retry_on: Exceptions that mean "not yet".
        evidence: Called once when time runs out; its text (logs of the component to blame...) joins the message.

    Raises:
        WaitTimeout: The deadline passed. Says what was awaited and what was last seen.
    """
    last: object = "nothing yet"

    def look() -> tuple[bool, object]:
        nonlocal last
        try:
            done, last = probe()
        except retry_on as error:
            last = f"{type(error).__name__}: {error}"
            raise
        return done, last

    retrying = Retrying(
        stop=stop_after_delay(timeout),
        wait=wait_fixed(every),
        retry=retry_if_result(lambda seen: not seen[0]) | retry_if_exception_type(retry_on),
    )
    try:
        return retrying(look)[1]
    except RetryError:
        why = f"last seen: {last}"
        if evidence is not None:
            why += f"\n{evidence()}"
        raise WaitTimeout(
            f"timed out after {timeout:g} s waiting until {awaited}",
            why=why,
            fix="look at the evidence above; if the machine is just slow, raise the timeout",
        ) from None
