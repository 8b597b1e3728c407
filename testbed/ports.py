"""Free loopback ports for components, chosen where the kernel does not hand them to anybody's outgoing connection."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from tenacity import retry as _retry
from tenacity import retry_if_exception_type, stop_after_attempt

from testbed.errors import TestbedError, UsageError

LOOPBACK = "127.0.0.1"
LOWEST = 15000
"""Below it are the ports that services are known by."""
TAKEN = "address already in use"
"""What a component's log says (in some case) when somebody took its port between our look and its listen."""
ATTEMPTS = 3


class PortTaken(TestbedError):
    """A component lost the race for its port; started again on another one it should work."""


retry_on_taken_port = _retry(retry=retry_if_exception_type(PortTaken), stop=stop_after_attempt(ATTEMPTS), reraise=True)
"""Decorates what picks ports, starts components on them and waits for these: done again when a port was lost."""


def _ephemeral_range() -> tuple[int, int]:
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return int(low), int(high)
    except (OSError, ValueError):
        return 32768, 60999


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Different loopback ports that are free now.

    They are random and outside the kernel's ephemeral range: no client connection can be given one before its
    component listens, and two runs that start together hardly ever pick the same. Who loses that race tries others
    (see `retry_on_taken_port`).

    Raises:
        TestbedError: Nearly all ports are taken.
    """
    low, high = _ephemeral_range()
    pool = [port for port in range(LOWEST, 65000) if not low <= port <= high] or list(range(LOWEST, 65000))
    found: list[int] = []
    for port in random.sample(pool, len(pool)):
        if _is_free(port):
            found.append(port)
            if len(found) == count:
                return found
    raise TestbedError(f"there are no {count} free ports on {LOOPBACK}", fix="stop what listens on them: `ss -ltn`")


def require_free(port: int, what: str) -> int:
    """The port, when nobody listens on it.

    Raises:
        UsageError: It is taken.
    """
    if not _is_free(port):
        raise UsageError(
            f"port {port} for {what} is busy",
            why=f"another process listens on {LOOPBACK}:{port}",
            fix="stop that process, or configure another port or none (then a free one is chosen)",
        )
    return port
