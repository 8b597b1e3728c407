"""One pytest session for `testbed run`, and the exit code that the command promises."""

from __future__ import annotations

import pytest

from testbed.errors import UsageError

WRONG_INPUT = 2
INTERRUPTED = 128 + 2
"""As shells say it of a command that SIGINT ended."""


class _Interruption:
    """Tells Ctrl-C from a collection that could not be ended: pytest has one exit code for both."""

    seen = False

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self.seen = excinfo.type is KeyboardInterrupt


def run_pytest(paths: list[str], options: list[str]) -> int:
    """Run scenarios; returns 0 where all passed or were skipped, 1 where one failed, 2 for wrong input, 130 for Ctrl-C.

    3 is an error of pytest or of a plugin, whose traceback it printed.

    Raises:
        UsageError: There is no scenario in what was asked for.
    """
    interruption = _Interruption()
    # The command itself has imported the plugin; its asserts need no rewriting.
    quiet = ["-q", "-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
    code = int(pytest.main([*paths, *options, *quiet], plugins=[interruption]))
    if interruption.seen:
        return INTERRUPTED
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise UsageError(
            "no scenario was run",
            why=f"pytest found none in {', '.join(paths)}",
            fix="name a file, a function or a parameter that exists; `testbed scenarios` lists the scenarios",
        )
    return WRONG_INPUT if code in {pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERRUPTED} else code
