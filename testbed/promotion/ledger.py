"""The promoter's memory: approvals that were asked for and given, and a record of everything that was tried.

SQLite, every change committed to the disk before it is answered, so kill -9 loses no approval. Anybody may read it
while the promoter runs: `sqlite3 ledger.sqlite 'select * from audit'`.
"""

from __future__ import annotations

import sqlite3
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from testbed.promotion.releases import Release

State = Literal["waiting", "approved", "rejected", "promoted", "superseded"]

_SCHEMA = """
create table if not exists requests (
    id text primary key, service text not null, tag text not null, release_commit text not null,
    environment text not null, opened real not null, state text not null, message text not null default '',
    decided_by text not null default '', decided_name text not null default '', decided real,
    commit_made text not null default '',
    unique (service, release_commit, environment)
);
create table if not exists signatures (signature text primary key, seen real not null);
create table if not exists audit (
    number integer primary key autoincrement, at real not null, event text not null, service text not null,
    tag text not null, environment text not null, who text not null, detail text not null
);
"""


@dataclass(frozen=True)
class Request:
    """An approval that was asked for."""

    id: str
    service: str
    tag: str
    release_commit: str
    environment: str
    opened: float
    state: State
    message: str
    """Slack's timestamp of the message, which is its id; empty until it is posted."""
    decided_by: str
    decided_name: str
    decided: float | None
    commit_made: str

    @property
    def release(self) -> Release:
        """What it is for."""
        return Release(self.service, self.tag, self.release_commit)


class NotWaiting(Exception):
    """The request cannot be decided; the text says why, for the person who tried."""


class Replayed(Exception):
    """The very same signed request was seen before."""


class Ledger:
    """One file; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = full")
        self._db.executescript(_SCHEMA)

    def _run(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        return self._db.execute(statement, values).fetchall()

    def record(self, at: float, event: str, release: Release | None, environment: str, who: str, detail: str) -> None:
        """Add an entry to the audit."""
        with self._lock:
            self._record(at, event, release, environment, who, detail)

    def _record(self, at: float, event: str, release: Release | None, environment: str, who: str, detail: str) -> None:
        service, tag = (release.service, release.tag) if release else ("", "")
        self._run(
            "insert into audit (at, event, service, tag, environment, who, detail) values (?, ?, ?, ?, ?, ?, ?)",
            *(at, event, service, tag, environment, who, detail),
        )

    def audit(self) -> list[dict[str, Any]]:
        """All entries, oldest first."""
        with self._lock:
            return [dict(row) for row in self._run("select * from audit order by number")]

    def requests(self) -> list[Request]:
        """All requests, oldest first."""
        with self._lock:
            return [Request(**row) for row in self._run("select * from requests order by rowid")]

    def request(self, identity: str) -> Request | None:
        """One request."""
        with self._lock:
            rows = self._run("select * from requests where id = ?", identity)
        return Request(**rows[0]) if rows else None

    def open(self, release: Release, environment: str, now: float) -> Request:
        """The request for a release in an environment, made if there is none; older ones that wait are superseded."""
        with self._lock, self._db:
            self._run("begin immediate")
            self._run(
                "insert into requests (id, service, tag, release_commit, environment, opened, state) "
                "values (?, ?, ?, ?, ?, ?, 'waiting') on conflict do nothing",
                *(uuid.uuid4().hex, release.service, release.tag, release.commit, environment, now),
            )
            rows = self._run(
                "select * from requests where service = ? and release_commit = ? and environment = ?",
                *(release.service, release.commit, environment),
            )
            for old in self._run(
                "update requests set state = 'superseded' where service = ? and environment = ? and id != ? "
                "and state in ('waiting', 'approved') returning *",
                *(release.service, environment, rows[0]["id"]),
            ):
                self._record(now, "superseded", Request(**old).release, environment, "", f"by {release}")
        return Request(**rows[0])

    def posted(self, request: Request, message: str) -> None:
        """Remember the message that asks for it."""
        with self._lock:
            self._run("update requests set message = ? where id = ?", message, request.id)

    def decide(self, request: Request, state: State, who: str, name: str, signature: str, now: float) -> None:
        """Record a decision, once.

        Raises:
            Replayed: A request with this signature was accepted before.
            NotWaiting: It is decided or superseded already.
        """
        with self._lock, self._db:
            self._run("begin immediate")
            if self._run("select 1 from signatures where signature = ?", signature):
                raise Replayed
            found = self._run("select state from requests where id = ?", request.id)[0]["state"]
            if found != "waiting":
                raise NotWaiting(f"it is {found} already")
            self._run("insert into signatures values (?, ?)", signature, now)
            self._run(
                "update requests set state = ?, decided_by = ?, decided_name = ?, decided = ? where id = ?",
                *(state, who, name, now, request.id),
            )
            self._record(now, state, request.release, request.environment, who, f"{name}, request {request.id}")

    def promoted(self, release: Release, environment: str, commit: str, now: float) -> None:
        """Record a promotion that is in the repository; recorded once however often it is told."""
        with self._lock, self._db:
            self._run("begin immediate")
            seen = self._run(
                "select 1 from audit where event = 'promoted' and service = ? and environment = ? and detail = ?",
                *(release.service, environment, commit),
            )
            self._run(
                "update requests set state = 'promoted', commit_made = ? "
                "where service = ? and release_commit = ? and environment = ? and state != 'promoted'",
                *(commit, release.service, release.commit, environment),
            )
            if not seen:
                self._record(now, "promoted", release, environment, "", commit)

    def close(self) -> None:
        """Close the file."""
        self._db.close()
