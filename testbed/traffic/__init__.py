"""Traffic as scenarios see it: two releases behind one route, load on it, and how a route stands."""

from testbed.traffic.routes import condition, route, service, wait_condition, wait_served
from testbed.traffic.split import Split

__all__ = ["Split", "condition", "route", "service", "wait_condition", "wait_served"]
