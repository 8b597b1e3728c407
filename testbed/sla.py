"""SLAs: named limits in `scenarios/slas.toml`, measured, recorded and asserted by scenarios."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testbed.errors import UsageError


class Sla(BaseModel):
    """One limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: float = Field(gt=0)
    why: str
    """Where the limit comes from."""


class SlaMeasurement(BaseModel):
    """What was measured against a limit."""

    name: str
    seconds: float
    limit: float


class SlaBreached(AssertionError):
    """A scenario took longer than its SLA."""


def load_slas(path: Path) -> dict[str, Sla]:
    """Read `slas.toml`; returns the limits by name.

    Raises:
        UsageError: The file is missing or malformed.
    """
    try:
        return {name: Sla.model_validate(entry) for name, entry in tomllib.loads(path.read_text()).items()}
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise UsageError(f"{path} is not a list of SLAs", why=str(error), fix="correct the file") from None


class SlaRecorder:
    """Measures against the limits; the measurements go into the report."""

    def __init__(self, slas: dict[str, Sla], heard: Callable[[SlaMeasurement], None] = lambda _: None) -> None:
        self._slas = slas
        self._heard = heard
        self.measurements: list[SlaMeasurement] = []

    def limit(self, name: str) -> float:
        """The limit in seconds.

        Raises:
            UsageError: No SLA has this name.
        """
        if name not in self._slas:
            near = get_close_matches(name, self._slas, n=1)
            hint = f"did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"unknown SLA {name!r}", why=hint, fix="add it to scenarios/slas.toml")
        return self._slas[name].seconds

    @contextmanager
    def within(self, name: str) -> Iterator[float]:
        """Measure a block and assert that it stays within the SLA; gives the limit, for time-outs inside."""
        limit = self.limit(name)
        began = time.monotonic()
        yield limit
        seconds = time.monotonic() - began
        self.record(name, seconds)

    def record(self, name: str, seconds: float) -> None:
        """Record what was measured in another way, and assert it.

        Raises:
            SlaBreached: It is over the limit.
        """
        limit = self.limit(name)
        measured = SlaMeasurement(name=name, seconds=round(seconds, 3), limit=limit)
        self.measurements.append(measured)
        self._heard(measured)
        if seconds > limit:
            raise SlaBreached(f"SLA {name}: {seconds:.2f} s, the limit is {limit:g} s")
