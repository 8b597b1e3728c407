"""Long work inside a fixture is shown, although pytest captures what tests print."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import pytest

from testbed.toolchain import Toolchain
from testbed.toolchain.cli import build_with_progress


def shown(config: pytest.Config) -> contextlib.AbstractContextManager[None]:
    """Inside it, output goes to the user."""
    capture = config.pluginmanager.getplugin("capturemanager")
    return capture.global_and_fixture_disabled() if capture else contextlib.nullcontext()


def make_ready(config: pytest.Config, toolchain: Toolchain, tools: Iterable[str]) -> None:
    """Make tools ready and show it."""
    with shown(config):
        build_with_progress(toolchain, list(tools))
