"""A platform whose guard is away: noted on disk, so that after a kill nobody takes it for a sound one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.errors import TestbedError

NOTE = "guard-away"


@contextmanager
def noted(folder: Path, scenario: str) -> Iterator[None]:
    """Around a guard's removal: the note goes only when the guard is back, not after an error or a kill.

    Args:
        folder: Of the platform, or of what else the guard belongs to. The caller holds its `scenario.lock`.
        scenario: Whose control it is, for the message.
    """
    note = folder / NOTE
    note.write_text(scenario)
    yield
    note.unlink(missing_ok=True)


def refuse_unguarded(folder: Path) -> None:
    """Refuse a platform whose guard was not put back. The caller holds its `scenario.lock`.

    Raises:
        TestbedError: There is a note.
    """
    try:
        scenario = (folder / NOTE).read_text()
    except FileNotFoundError:
        return
    raise TestbedError(
        "a guard of this platform is away",
        why=f"a run was killed in {scenario}, or could not put the guard back after it",
        fix="start the platform anew: `testbed down`, then `testbed up`",
    )
