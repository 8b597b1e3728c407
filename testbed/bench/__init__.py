"""`testbed bench`: how long starts take, how much memory the platform holds, how fast admission and scheduling are."""

from testbed.bench.cases import CASES, Bench
from testbed.bench.figures import Figure, render

__all__ = ["CASES", "Bench", "Figure", "render"]
