"""A platform whose guard is away: noted on disk, so that after a kill nobody takes it for a sound one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from testbed.errors import TestbedError

NOTE = "guard-away"


@contextmanager
def taken_away(removal: AbstractContextManager[None], folder: Path, scenario: str) -> Iterator[None]:
    """Inside it the guard is away, and a note says so; the note goes when the guard is back, not after a kill.

    Args:
        removal: What the guard's `removed` gave. If it raises on the way in, the guard was never away: that is its
            contract. If it raises on the way out, the guard may still be away, and the note stays.
        folder: Of the platform, or of what else the guard belongs to. The caller holds its `scenario.lock`.
        scenario: Whose control it is, for the message.
    """
    note = folder / NOTE
    note.write_text(scenario)
    with ExitStack() as inside:
        try:
            inside.enter_context(removal)
        except Exception:
            note.unlink(missing_ok=True)
            raise
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
        fix="run the scenarios again; where it is a platform that you keep, `testbed down` and `testbed up` it first",
    )
