"""Workloads: pods of known images run as processes of this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from testbed.addons.base import AddOn
from testbed.cluster import EmbeddedCluster, Fidelity, Manifest, Refused
from testbed.cluster.client import NOT_YET
from testbed.errors import UsageError
from testbed.supervisor import ProcessSpec, log_tail
from testbed.wait import wait_until
from testbed.workloads import STATE
from testbed.workloads.admission import USER, policy, rights
from testbed.workloads.images import IMAGES, repositories
from testbed.workloads.kubelet import ADDRESS as KUBELET
from testbed.workloads.labels import PROCESS, WORKLOAD

ROLE = "workloads"
READY_TIMEOUT = 60.0
BACK_OFF, LONGEST_BACK_OFF = 0.5, 15.0
"""Seconds between restarts of a container that crashes: a twentieth of a kubelet's."""


class Workloads(AddOn):
    """The agent that plays the kubelets, and the policy that gives it its pods."""

    name = "workloads"
    lane = "delivery"
    tools = tuple(image.tool for image in IMAGES)
    capabilities = frozenset({"simulated-nodes"})

    def install(self) -> None:
        """Rights and policy, then the agent."""
        kube = self.cluster.client()
        kube.apply_all([*rights(), *policy()])
        self.resume()

    def resume(self) -> None:
        """Start the agent. Pods that are there start anew: their processes are gone, and so are their addresses."""
        if not isinstance(self.cluster, EmbeddedCluster):
            raise UsageError(
                f"the add-on {self.name} cannot run on cluster {self.cluster.name}",
                why="its own kubelets run its pods",
                fix="leave the add-on out, or use the backend embedded",
            )
        binaries = self.cluster.toolchain.ensure(self.tools)
        # Its name is the one that nodes have as ExternalDNS; the API server checks it.
        certificate, key = self.cluster.authority.issue("kubelet-serving", "testbed-kubelet", hosts=[KUBELET])
        options: dict[str, Any] = {
            "certificate": certificate,
            "key": key,
            "authority": self.cluster.authority.certificate,
            "kubeconfig": self.cluster.user_kubeconfig("workloads", USER),
            "folder": self.folder,
            "logs": self.logs,
            "back-off": BACK_OFF,
            "longest-back-off": LONGEST_BACK_OFF,
        }
        flags = [part for option, value in options.items() for part in (f"--{option}", str(value))]
        flags += [part for tool, path in binaries.items() for part in ("--tool", f"{tool}={path}")]
        self.cluster.supervisor.start(
            ProcessSpec(
                name=self.cluster.component(ROLE),
                argv=[sys.executable, "-m", "testbed.workloads", *flags],
                env={"MALLOC_ARENA_MAX": "2", "PYTHONDONTWRITEBYTECODE": "1"},
                tags={"cluster": self.cluster.name, "role": ROLE},
                restart_limit=100,
            )
        )

    @property
    def folder(self) -> Path:
        """Where the agent keeps its state."""
        return self.cluster.folder / "workloads"

    @property
    def logs(self) -> Path:
        """The logs of the pods: `<namespace>_<pod>/<container>.log`."""
        return self.cluster.supervisor.folder / "logs" / "pods" / self.cluster.name

    def probe(self) -> Manifest:
        """A pod that the policy must label."""
        spec = {"containers": [{"name": "probe", "image": f"{repositories()[0]}:0"}]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "testbed-workloads-probe"}, "spec": spec}

    def wait_agent(self, timeout: float = READY_TIMEOUT) -> None:
        """Wait until the agent (again) knows every pod."""
        component = self.cluster.component(ROLE)

        def probe() -> tuple[bool, object]:
            self.cluster.supervisor.require_running(component)
            pid = self.cluster.supervisor.component(component).pid
            state = json.loads((self.folder / STATE).read_text())
            return state["pid"] == pid, state

        wait_until(
            f"the workloads agent of cluster {self.cluster.name} is ready",
            probe,
            timeout=timeout,
            retry_on=(OSError, ValueError),
            evidence=lambda: log_tail(self.cluster.log(ROLE)),
        )

    def ready(self) -> None:
        """Wait until the policy labels pods and the agent knows every pod."""
        kube = self.cluster.client()

        def labelled() -> tuple[bool, object]:
            labels = kube.create(self.probe(), namespace="default", dry_run=True)["metadata"].get("labels") or {}
            return labels.get(WORKLOAD) == PROCESS, labels

        wait_until(
            f"new pods of known images are labelled on cluster {self.cluster.name}",
            labelled,
            timeout=READY_TIMEOUT,
            retry_on=(*NOT_YET, Refused),  # refused while there is no default service account
        )
        self.wait_agent()

    def uninstall(self) -> None:
        """Stop the agent and with it every process; its pods stay as objects."""
        self.cluster.supervisor.stop([self.cluster.component(ROLE)])
        kube = self.cluster.client()
        for manifest in reversed([*rights(), *policy()]):
            kube.delete(manifest["kind"], manifest["metadata"]["name"], api_version=manifest["apiVersion"])

    def _limits(self) -> str:
        try:
            limits = json.loads((self.folder / STATE).read_text())["limits"]
        except (OSError, ValueError, KeyError):
            return "not known before the agent runs"
        return ", ".join(f"{name} {how}" for name, how in sorted(limits.items()))

    def fidelity(self) -> Fidelity:
        """What is real here."""
        return Fidelity(
            part="workloads",
            real=f"pods of {', '.join(repositories()[:1])} are processes with their arguments, environment, probes, "
            "restarts and grace periods, each on a loopback address of its own",
            simulated="the kubelet; no image is pulled, one build stands for every tag; no Linux namespaces, volumes, "
            "cluster DNS, gRPC, `kubectl exec` or `port-forward`; logs without times; limits are minded: "
            f"{self._limits()}; pods without a known image; restarts back off from {BACK_OFF:g} to "
            f"{LONGEST_BACK_OFF:g} s instead of 10 to 300 s",
        )
