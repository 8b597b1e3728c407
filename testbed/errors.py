"""The errors that a user sees: what happened, why, and what to do next."""

from __future__ import annotations


class TestbedError(Exception):
    """Something that stops the testbed and that the user can act on.

    Args:
        what: What happened, one sentence without a full stop.
        why: The cause, or the evidence for it (may span lines). Empty when `what` says it all.
        fix: What the user does next, in the imperative. Never empty in practice; tests assert it for bad input.

    The command line prints the three parts and exits with `exit_code`.
    """

    __test__ = False  # pytest would otherwise collect the class for its name
    exit_code = 1

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what = what
        self.why = why
        self.fix = fix
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = [self.what]
        if self.why:
            parts.append(f"why: {self.why}")
        if self.fix:
            parts.append(f"fix: {self.fix}")
        return "\n".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling, which pytest-xdist needs.
        return (_rebuild, (type(self), self.what, self.why, self.fix))


def _rebuild(kind: type[TestbedError], what: str, why: str, fix: str) -> TestbedError:
    return kind(what, why=why, fix=fix)


class UsageError(TestbedError):
    """The input was refused before anything was started (unknown name, malformed configuration...)."""

    exit_code = 2


class WaitTimeout(TestbedError):
    """A condition did not come true before its deadline."""
