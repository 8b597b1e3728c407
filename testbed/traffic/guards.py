"""What keeps traffic whole, and how each is taken away for the negative control."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from testbed.guards import Running
from testbed.traffic.split import READY_WITHIN, Split
from testbed.wait import wait_until


class ControllerRunning:
    """A gateway that follows the API; removed, its controller is stopped and the proxy keeps what it has."""

    def __init__(self, role: str = "gateway-controller") -> None:
        self.role = role

    @contextmanager
    def removed(self, split: Split) -> Iterator[None]:
        """Stop the controller, and start it again."""
        with Running(self.role).removed(split.platform):
            yield


class ControllerRestarted:
    """The restart of a controller that dies; removed, it stays dead."""

    def __init__(self, role: str = "gateway-controller") -> None:
        self.role = role

    @contextmanager
    def removed(self, split: Split) -> Iterator[None]:
        """Switch restarts off, and on again with the controller running."""
        name = split.platform.cluster.component(self.role)
        split.supervisor.component(name)  # raises where there is none
        try:
            split.supervisor.set_restart(name, False)
            yield
        finally:
            split.supervisor.set_restart(name, True)
            split.supervisor.revive(name)


class GracefulTermination:
    """The grace period in which a pod that is deleted still answers; removed, it is killed at once."""

    @contextmanager
    def removed(self, split: Split) -> Iterator[None]:
        """Set the grace period of the old release's pods to nothing, and back.

        Nobody waits for pods with the old one again: the release is the scenario's own, and goes with it.
        """
        name = split.SERVICES[0]
        deployment = split.kube.get("Deployment", name, namespace=split.namespace)
        if deployment is None:
            raise LookupError(f"there is no Deployment {name}")
        present = deployment["spec"]["template"]["spec"].get("terminationGracePeriodSeconds")

        def set_grace(seconds: int | None) -> None:
            split.kube.merge(deployment, {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": seconds}}}})

        def rolled_out() -> tuple[bool, object]:
            selector = f"app={name}"
            pods = split.kube.list("Pod", namespace=split.namespace, api_version="v1", selector=selector)
            graces = {pod["metadata"]["name"]: pod["spec"]["terminationGracePeriodSeconds"] for pod in pods}
            found = split.kube.get("Deployment", name, namespace=split.namespace) or {}
            status = found.get("status") or {}
            ready = status.get("readyReplicas") == status.get("replicas") == found["spec"]["replicas"]
            return ready and set(graces.values()) == {0}, graces

        try:
            set_grace(0)
            wait_until(f"every pod of {name} has no grace period", rolled_out, timeout=READY_WITHIN)
            yield
        finally:
            set_grace(present)
