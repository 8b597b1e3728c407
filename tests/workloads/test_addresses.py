"""Pods' addresses: on loopback, and never shared."""

from __future__ import annotations

import ipaddress
import subprocess
import sys

import pytest

from testbed.cluster.flags import POD_CIDR, SERVICE_CIDR
from testbed.errors import TestbedError
from testbed.workloads.addresses import RANGE, Block, loopback_of


def test_a_pod_listens_on_loopback() -> None:
    assert loopback_of("10.112.3.4") == "127.112.3.4"
    for wrong in ("192.168.0.1", "127.0.0.1", "nonsense", ""):
        with pytest.raises(TestbedError, match="no address of a pod"):
            loopback_of(wrong)


def test_no_service_and_no_simulated_pod_has_such_an_address() -> None:
    for other in (POD_CIDR, SERVICE_CIDR):
        assert not RANGE.overlaps(ipaddress.ip_network(other))


def test_two_blocks_never_overlap_also_in_another_process() -> None:
    one, two = Block(), Block()
    try:
        assert not one.network.overlaps(two.network)
        code = f"from testbed.workloads.addresses import Block; print(Block({str(one.network)!r}).network)"
        third = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert ipaddress.ip_network(third.stdout.strip()) not in (one.network, two.network)
    finally:
        one.release()
        two.release()
    again = Block(str(one.network))
    assert again.network == one.network
    again.release()


def test_an_address_is_given_once_and_comes_back_late() -> None:
    block = Block()
    first = block.next(set())
    second = block.next({first})
    assert second != first
    assert second in block
    assert block.next({second}) not in (first, second)
    with pytest.raises(TestbedError, match="are taken"):
        block.next({str(address) for address in block.network})
    block.release()
