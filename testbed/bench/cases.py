"""The cases of the benchmark. Each returns figures; those that compare us with others do it in the same rounds."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.bench import gateway, load, peers
from testbed.bench.figures import Figure
from testbed.cluster import ClusterSpec, EmbeddedCluster, NodeGroup
from testbed.config import PlatformSpec
from testbed.paths import kept_folder
from testbed.percentile import percentile
from testbed.platform import Platform
from testbed.supervisor import Supervisor
from testbed.toolchain import Toolchain

THREE = ["dev", "staging", "production"]
HUB_ADDONS = ["gatekeeper", "argo-cd"]
MEGABYTE = 1e6


class Bench:
    """One run of the benchmark.

    Args:
        toolchain: Where the binaries come from.
        rounds: How often each start is measured.
        requests: Admission requests.
        pods: Pods of the scheduling case.
        rate: Requests per second of the gateway case.
        seconds: How long each load of the gateway case lasts.
        tick: Hears progress: what, done, of how many.
    """

    def __init__(
        self,
        toolchain: Toolchain,
        *,
        rounds: int = 3,
        requests: int = 1000,
        pods: int = 1000,
        rate: int = 5000,
        seconds: int = 30,
        tick: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> None:
        self.toolchain = toolchain
        self.rounds = rounds
        self.requests = requests
        self.pods = pods
        self.rate = rate
        self.seconds = seconds
        self.tick = tick

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="testbed-bench-") as folder:
            yield Path(folder)

    @contextmanager
    def _platform(self, spec: PlatformSpec) -> Iterator[tuple[Platform, float]]:
        """A platform and the seconds that it took to come up."""
        with self._folder() as folder:
            began = time.monotonic()
            platform = Platform.up(spec, folder / "platform", self.toolchain)
            seconds = time.monotonic() - began
            try:
                yield platform, seconds
            finally:
                platform.down()

    def _control_plane_seconds(self, folder: Path) -> float:
        """Ours: certificates, etcd and the API server, until it is ready, as a platform starts them."""
        supervisor = Supervisor.launch(folder / "ours")
        try:
            supervisor.lease()
            began = time.monotonic()
            EmbeddedCluster(ClusterSpec(), supervisor, self.toolchain).start_control_plane()
            return time.monotonic() - began
        finally:
            supervisor.destroy()

    def control_plane(self) -> list[Figure]:
        """Our control plane and envtest's, in turns."""
        ours, theirs = [], []
        with self._folder() as folder:
            for number in range(self.rounds):
                ours.append(self._control_plane_seconds(folder))
                theirs.append(peers.envtest_seconds(self.toolchain, folder))
                self.tick("control-plane", number + 1, self.rounds)
        note = "etcd + kube-apiserver, same binaries, in turns"
        ratio = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        return [
            Figure(name="control plane ready", unit="s", samples=ours, note="TLS to etcd, RBAC, kubeadm's admission"),
            Figure(name="envtest ready", unit="s", samples=theirs, note=note),
            Figure(name="control plane / envtest", unit="", samples=ratio, target=1.2),
        ]

    def cluster(self) -> list[Figure]:
        """A whole cluster without add-ons, beside kwokctl."""
        ours, theirs = [], []
        spec = PlatformSpec(addons=[], snapshots=False)
        for number in range(self.rounds):
            with self._platform(spec) as (_, seconds):
                ours.append(seconds)
            with self._folder() as folder:
                theirs.append(peers.kwokctl_seconds(self.toolchain, folder))
            self.tick("cluster", number + 1, self.rounds)
        return [
            Figure(name="cluster with 3 nodes Ready", unit="s", samples=ours, note="no snapshot"),
            Figure(name="kwokctl create cluster --wait", unit="s", samples=theirs, note="no nodes; same binaries"),
        ]

    def platform(self) -> list[Figure]:
        """The platform with Gatekeeper: cold, warm, three clusters at once, and down as a command."""
        cold, warm, three, down = [], [], [], []
        with self._platform(PlatformSpec()):  # the snapshot is there afterwards
            pass
        clusters = [ClusterSpec(name=name) for name in THREE]
        for number in range(self.rounds):
            with self._platform(PlatformSpec(snapshots=False)) as (_, seconds):
                cold.append(seconds)
            with self._platform(PlatformSpec()) as (found, seconds):
                if not found.warm:
                    raise RuntimeError("the snapshot was not used")
                warm.append(seconds)
            seconds, seconds_down = self._kept_three(clusters)
            three.append(seconds)
            down.append(seconds_down)
            self.tick("platform", number + 1, self.rounds)
        return [
            Figure(name="platform with Gatekeeper, cold", unit="s", samples=cold),
            Figure(name="platform with Gatekeeper, warm", unit="s", samples=warm, target=15),
            Figure(name="three clusters with Gatekeeper, warm", unit="s", samples=three, target=30),
            Figure(name="`testbed down` of three clusters", unit="s", samples=down, target=3, note="whole command"),
        ]

    def _kept_three(self, clusters: list[ClusterSpec]) -> tuple[float, float]:
        name = f"bench-{uuid.uuid4().hex[:8]}"
        began = time.monotonic()
        platform = Platform.up(PlatformSpec(clusters=clusters), kept_folder(name), self.toolchain)
        seconds = time.monotonic() - began
        began = time.monotonic()
        try:
            argv = [sys.executable, "-c", "from testbed.cli import main; main()", "down", "--name", name]
            subprocess.run(argv, check=True)
        finally:
            platform.supervisor.destroy()
        return seconds, time.monotonic() - began

    def memory(self) -> list[Figure]:
        """Resident memory of one cluster with Gatekeeper after some work, and of a hub and three with Argo CD."""
        with self._platform(PlatformSpec()) as (platform, _):
            load.admission_seconds(platform.cluster, 100, lambda done, total: self.tick("memory", done, total))
            one = sum(platform.supervisor.resident_bytes().values())
        hub = PlatformSpec(clusters=[ClusterSpec(name=name) for name in ("hub", *THREE)], addons=HUB_ADDONS)
        with self._platform(hub) as (platform, _):
            four = sum(platform.supervisor.resident_bytes().values())
        note = "pages of one program counted once"
        return [
            Figure(name="memory of one cluster", unit="MB", samples=[one / MEGABYTE], target=700, note=note),
            Figure(name="memory of hub and three", unit="MB", samples=[four / MEGABYTE], target=3000, note="Argo CD"),
        ]

    def admission(self) -> list[Figure]:
        """Admission latency, with Gatekeeper and without."""
        figures = []
        for addons, label in (([], "without Gatekeeper"), (["gatekeeper"], "with Gatekeeper")):
            with self._platform(PlatformSpec(addons=addons)) as (platform, _):
                samples = load.admission_seconds(
                    platform.cluster, self.requests, lambda done, total: self.tick("admission", done, total)
                )
            for percent in (50, 99):
                value = percentile(samples, percent) * 1000
                name = f"admission p{percent} {label}"
                figures.append(Figure(name=name, unit="ms", samples=[value], note=f"{self.requests} dry-run requests"))
        return figures

    def scheduling(self) -> list[Figure]:
        """Pods from one Deployment to Running, each admitted by Gatekeeper."""
        nodes = NodeGroup(count=max(3, self.pods // 50), instance_type="m6i.2xlarge")
        with self._platform(PlatformSpec(clusters=[ClusterSpec(node_groups=[nodes])])) as (platform, _):
            seconds = load.pods_running_seconds(
                platform.cluster, self.pods, lambda done, total: self.tick("scheduling", done, total)
            )
        return [Figure(name=f"{self.pods} pods Running", unit="s", samples=[seconds], note=f"{nodes.count} nodes")]

    def gateway(self) -> list[Figure]:
        """The case study's peak through the gateway, and past it."""
        with self._platform(PlatformSpec(addons=gateway.ADDONS)) as (platform, _):
            return gateway.figures(
                platform,
                rate=self.rate,
                seconds=self.seconds,
                rounds=self.rounds,
                tick=lambda done: self.tick("gateway", done, self.rounds),
            )


CASES: dict[str, Callable[[Bench], list[Figure]]] = {
    "control-plane": Bench.control_plane,
    "cluster": Bench.cluster,
    "platform": Bench.platform,
    "memory": Bench.memory,
    "admission": Bench.admission,
    "scheduling": Bench.scheduling,
    "gateway": Bench.gateway,
}
