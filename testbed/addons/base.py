"""What an add-on is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from testbed.cluster import Cluster, Fidelity


class AddOn(ABC):
    """A platform component on one cluster.

    `install` puts its objects into the API and starts its processes; `resume` only starts the processes, on a cluster
    that was restored from a snapshot with the objects. `ready` waits until it does its work, which is more than that
    its processes run. `uninstall` takes all of it away.
    """

    name: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    """Names of add-ons that must be ready before `install`."""
    after: ClassVar[tuple[str, ...]] = ()
    """Names of add-ons that must be ready before `install` where the platform has them."""
    lane: ClassVar[str] = "core"
    """Scenarios that need it run on a platform with those of the same lane; see `testbed.lanes`."""
    tools: ClassVar[tuple[str, ...]] = ()
    """The binaries it needs."""
    hub_only: ClassVar[bool] = False
    """It runs on the platform's first cluster alone, and serves the others from there."""
    acts_on: ClassVar[tuple[str, ...]] = ()
    """Add-ons that only bring the custom resources which this one acts on."""
    capabilities: ClassVar[frozenset[str]] = frozenset()
    """What it needs of the backend: see `CAPABILITIES`."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    @property
    def version(self) -> str:
        """The version of its first tool."""
        (tool,) = self.cluster.toolchain.find([self.tools[0]])
        return tool.version

    @abstractmethod
    def install(self) -> None:
        """Create its objects and start its processes."""

    @abstractmethod
    def resume(self) -> None:
        """Start its processes; the objects are those of a snapshot, with addresses and certificates of old."""

    @abstractmethod
    def ready(self) -> None:
        """Wait until it works; raises `WaitTimeout` or `ComponentDied`."""

    def wait_back(self, role: str) -> None:
        """Wait until one of its processes, which was started again, works: by default until all of it does."""
        self.ready()

    def join(self, clusters: Iterable[Cluster]) -> None:  # noqa: B027 - most add-ons know one cluster
        """Learn of the platform's other clusters, once all of them are up. For add-ons of the hub."""

    @abstractmethod
    def uninstall(self) -> None:
        """Stop its processes and remove every object that it made."""

    @abstractmethod
    def fidelity(self) -> Fidelity:
        """What is real and what is simulated."""
