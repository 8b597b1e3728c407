"""The addresses of pods that run as processes: 10.a.b.c in the API is 127.a.b.c on this machine.

Kubernetes refuses loopback addresses in EndpointSlices, and Linux answers for all of 127.0.0.0/8 without configuration
and without root. So a pod has an address of its own and its real port, and nothing listens off loopback.

Addresses are taken from 10.112.0.0/12, where this testbed has no node, no Service and no simulated pod. A cluster
reserves a block of it, so that clusters and runs beside each other never share one.
"""

from __future__ import annotations

import ipaddress
import random
import socket
from collections.abc import Container, Iterator

from testbed.errors import TestbedError

RANGE = ipaddress.IPv4Network("10.112.0.0/12")
BLOCK_PREFIX = 22
"""About a thousand pods a cluster, about a thousand clusters a machine."""
PODS = ipaddress.IPv4Network("10.0.0.0/8")


def loopback_of(pod_ip: str) -> str:
    """Where a pod listens on this machine: '127.112.3.4' for '10.112.3.4'.

    Raises:
        TestbedError: The address is none of 10.0.0.0/8, so it is no pod's of the embedded backend.
    """
    try:
        inside = ipaddress.IPv4Address(pod_ip) in PODS
    except ValueError:
        inside = False
    if not inside:
        raise TestbedError(
            f"{pod_ip!r} is no address of a pod here",
            why=f"pods of the embedded backend have addresses of {PODS}",
            fix="read the address from the pod's status or from an EndpointSlice",
        )
    return f"127.{pod_ip.partition('.')[2]}"


class Block:
    """A block of pod addresses that is ours for as long as this process lives.

    The reservation is an abstract Unix socket: the kernel knows it by name in one network namespace, which is exactly
    where a loopback address is one, and forgets it with the process, however that ends.

    Args:
        wanted: A block to take if it is free: the one that a process before us had.

    Raises:
        TestbedError: All blocks are taken.
    """

    def __init__(self, wanted: str | None = None) -> None:
        blocks = [str(block) for block in RANGE.subnets(new_prefix=BLOCK_PREFIX)]
        random.shuffle(blocks)
        for block in [*([wanted] if wanted in blocks else []), *blocks]:
            reservation = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                reservation.bind(f"\0testbed-pods-{block}")
            except OSError:
                reservation.close()
                continue
            self._reservation = reservation
            self.network = ipaddress.IPv4Network(block)
            self._next = self._turns()
            return
        raise TestbedError(
            "there is no free block of pod addresses", why=f"{len(blocks)} are taken", fix="stop other testbeds"
        )

    def _turns(self) -> Iterator[str]:
        while True:
            yield from map(str, self.network.hosts())

    def next(self, taken: Container[str]) -> str:
        """An address that is not in `taken`; the ones that were freed last come last.

        Raises:
            TestbedError: Every address is taken.
        """
        for _ in range(self.network.num_addresses):
            if (address := next(self._next)) not in taken:
                return address
        raise TestbedError(f"all addresses of {self.network} are taken", fix="run fewer pods on this cluster")

    def __contains__(self, pod_ip: str) -> bool:
        return ipaddress.IPv4Address(pod_ip) in self.network

    def release(self) -> None:
        """Give the block back."""
        self._reservation.close()
