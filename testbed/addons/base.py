"""What an add-on is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from testbed.cluster import EmbeddedCluster, Fidelity


class AddOn(ABC):
    """A platform component on one cluster.

    `install` puts its objects into the API and starts its processes; `ready` waits until it does its work, which is
    more than that its processes run. `uninstall` takes both away.
    """

    name: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    """Names of add-ons that must be ready before `install`."""
    tools: ClassVar[tuple[str, ...]] = ()
    """The binaries it needs."""

    def __init__(self, cluster: EmbeddedCluster) -> None:
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
    def ready(self) -> None:
        """Wait until it works; raises `WaitTimeout` or `ComponentDied`."""

    @abstractmethod
    def uninstall(self) -> None:
        """Stop its processes and remove what would disturb others."""

    @abstractmethod
    def fidelity(self) -> Fidelity:
        """What is real and what is simulated."""
