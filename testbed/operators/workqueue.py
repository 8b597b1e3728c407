"""A work queue: each key at most once in it and at most once in work, failures with a growing delay."""

from __future__ import annotations

import asyncio
import random

from testbed.operators.store import Key

FIRST_DELAY = 0.5
LONGEST_DELAY = 60.0
"""Seconds between two tries of what fails."""


class WorkQueue:
    """Keys that wait for reconciliation."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: set[Key] = set()
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._queued)

    def add(self, key: Key) -> None:
        """Queue a key now. While it is in work, it is queued again afterwards."""
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        if key in self._working:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._waiting.put_nowait(key)

    def add_later(self, key: Key, seconds: float) -> None:
        """Queue a key after a while, unless something queues it before."""
        if key in self._timers:
            self._timers[key].cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self.add, key)

    async def get(self) -> Key:
        """The next key; call `done` when it has been worked on."""
        key = await self._waiting.get()
        self._queued.discard(key)
        self._working.add(key)
        return key

    def done(self, key: Key) -> None:
        """The work on a key ended."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def failed(self, key: Key, longest: float = LONGEST_DELAY) -> float:
        """Try a key again with back-off, after `longest` seconds at most; returns in how many."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        seconds: float = min(FIRST_DELAY * 2**count, longest) * random.uniform(0.8, 1.2)  # noqa: S311 (no secret)
        self.add_later(key, seconds)
        return seconds

    def forget_failures(self) -> None:
        """What failed before may go now: everything is new."""
        self._failures.clear()

    def succeeded(self, key: Key) -> None:
        """Forget earlier failures of a key."""
        self._failures.pop(key, None)
