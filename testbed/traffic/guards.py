"""What keeps traffic whole, and how it is taken away for the negative control."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from testbed.traffic.split import READY_WITHIN, Split
from testbed.wait import wait_until


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
