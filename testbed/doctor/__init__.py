"""`testbed doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

from testbed.doctor.check import Check, State
from testbed.doctor.examination import examine, ready

__all__ = ["Check", "State", "examine", "ready"]
