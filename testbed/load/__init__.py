"""Load: requests at a constant rate, counted by the release that answered.

The program is the testbed's own `load` on vegeta's library: an open model, so a service that becomes slow does not slow
the requests down, and latencies count from the moment at which a request was due (no coordinated omission).
"""

from testbed.load.generator import Load
from testbed.load.results import NOBODY, Interval, Percentiles, Release, Summary, answers

__all__ = ["NOBODY", "Interval", "Load", "Percentiles", "Release", "Summary", "answers"]
