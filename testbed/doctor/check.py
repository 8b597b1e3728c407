"""What one look of the doctor found."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, model_validator

State = Literal["ok", "warn", "missing", "optional"]
"""`missing`: scenarios cannot run, those of `only_for` or all. `warn`: they can, something is slow, near a limit or not
as it should be. `optional`: it is not there, and no scenario needs it."""


class Check(BaseModel):
    """One row: what was looked at, how it stands, what was found, and what to do."""

    name: str
    state: State
    found: str
    fix: str = ""
    only_for: list[str] = []
    """The groups of scenarios that alone need it (see `demands`); all need it, or none does, where it is empty."""

    @model_validator(mode="after")
    def _says_what_to_do(self) -> Check:
        if self.state in {"warn", "missing"} and not self.fix:
            raise ValueError(f"{self.name} is {self.state} but says no fix")
        return self
