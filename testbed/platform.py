"""The platform: clusters with their add-ons, brought up together, shared by a hand-over file."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from testbed import __version__
from testbed.addons import AddOn, Gatekeeper, addon_classes
from testbed.cluster import Cluster, ClusterSpec, ExistingCluster, Fidelity, KindCluster
from testbed.config import BACKENDS, PlatformSpec
from testbed.errors import TestbedError, UsageError
from testbed.snapshot import Snapshots
from testbed.supervisor import Supervisor
from testbed.teardown import HAND_OVER
from testbed.toolchain import Toolchain

Say = Callable[[str], None]
SomeAddOn = TypeVar("SomeAddOn", bound=AddOn)


class Platform:
    """Running clusters and add-ons. Made by `up`, or by `attach` in another process."""

    def __init__(self, spec: PlatformSpec, supervisor: Supervisor, toolchain: Toolchain) -> None:
        self.spec = spec
        self.supervisor = supervisor
        self.clusters = {one.name: self._cluster(one, supervisor, toolchain) for one in spec.clusters}
        self.addons: dict[str, list[AddOn]] = {
            name: [
                addon(cluster)
                for addon in addon_classes(spec.addons_of(cluster.spec))
                if not addon.hub_only or cluster is self.cluster
            ]
            for name, cluster in self.clusters.items()
        }
        self.timings: dict[str, float] = {}
        self.warm = False
        """Whether it was started from snapshots."""
        self._snapshots = Snapshots(toolchain)

    def _cluster(self, cluster: ClusterSpec, supervisor: Supervisor, toolchain: Toolchain) -> Cluster:
        if self.spec.backend == "existing":
            return ExistingCluster(cluster, supervisor, toolchain, self.spec.existing)
        if self.spec.backend == "kind":
            return KindCluster(cluster, supervisor, toolchain, self.spec.kind)
        return BACKENDS[self.spec.backend](cluster, supervisor, toolchain)

    @classmethod
    def up(cls, spec: PlatformSpec, folder: Path, toolchain: Toolchain, say: Say = lambda _: None) -> Platform:
        """Bring a platform up in `folder`; we hold a lease on it. After an error nothing is left running.

        Raises:
            UsageError: The specification is wrong (before anything is started), or a platform runs in `folder`.
            TestbedError: A part did not start.
        """
        toolchain.find(spec.tools())
        if Supervisor.attach(folder) is not None:
            raise UsageError(f"a platform already runs in {folder}", fix="use it, or stop it with `testbed down`")
        for cluster in cls(spec, Supervisor(folder), toolchain).clusters.values():
            cluster.check()
        shutil.rmtree(folder, ignore_errors=True)  # of a platform that was killed
        warm = spec.snapshots and cls(spec, Supervisor(folder), toolchain)._restorable()
        try:
            return cls._start(spec, folder, toolchain, say, warm=warm)
        except Exception as error:  # whatever it was: without the snapshot it may go well, or fail with its true cause
            if not warm or isinstance(error, UsageError):
                raise
            say(f"the snapshot did not start, installing anew: {str(error).splitlines()[0]}")
        shutil.rmtree(folder, ignore_errors=True)
        discarded = cls(spec, Supervisor(folder), toolchain)
        for cluster in discarded.clusters.values():
            discarded._snapshots.discard(discarded._key(cluster))
        return cls._start(spec, folder, toolchain, say, warm=False)

    @classmethod
    def _start(cls, spec: PlatformSpec, folder: Path, toolchain: Toolchain, say: Say, *, warm: bool) -> Platform:
        supervisor = Supervisor.launch(folder)
        platform = cls(spec, supervisor, toolchain)
        try:
            supervisor.lease()
            platform.warm = warm
            with ThreadPoolExecutor(max_workers=len(spec.clusters)) as pool:
                for started in [pool.submit(platform._bring_up, name, say) for name in platform.clusters]:
                    started.result()
            platform._join(say)
            platform._write_hand_over()
        except BaseException:
            with contextlib.suppress(Exception):
                platform._uninstall_where_others_live()
            supervisor.shutdown(grace=0)
            raise
        return platform

    def _bring_up(self, name: str, say: Say) -> None:
        began = time.monotonic()
        cluster = self.clusters[name]
        key = self._key(cluster)
        if self.warm and (snapshot := self._snapshots.find(key)) is not None:
            cluster.restore(snapshot)
        cluster.start_control_plane()
        self._record(f"{name}: control plane ready", began, say)

        def nodes() -> None:
            cluster.start_nodes()
            self._record(f"{name}: nodes ready", began, say)

        def addon(which: AddOn) -> None:
            if self.warm:
                which.resume()
            else:
                which.install()
            which.ready()
            self._record(f"{name}: {which.name} {which.version} ready", began, say)

        tasks: dict[str, Callable[[], None]] = {"nodes": nodes}
        tasks |= {one.name: lambda one=one: addon(one) for one in self.addons[name]}  # type: ignore[misc]
        run_in_order(tasks, {one.name: {*one.requires, *one.after} for one in self.addons[name]})
        if self.spec.snapshots and not self.warm and "snapshots" in cluster.capabilities:
            part = self._snapshots.new(key)
            cluster.save(part)
            self._snapshots.commit(key, part)
            self._record(f"{name}: snapshot saved", began, say)

    def _join(self, say: Say) -> None:
        """The hub's add-ons learn of the other clusters: not before these are up, and not in a snapshot."""
        others = [cluster for cluster in self.clusters.values() if cluster is not self.cluster]
        if others:
            began = time.monotonic()
            for addon in self.addons[self.cluster.name]:
                addon.join(others)
            self._record(f"{self.cluster.name}: other clusters joined", began, say)

    def _key(self, cluster: Cluster) -> str:
        addons = self.addons[cluster.name]
        tools = [*cluster.tools, *(tool for addon in addons for tool in addon.tools)]
        return self._snapshots.key(cluster.spec, [addon.name for addon in addons], tools)

    def _restorable(self) -> bool:
        return all(
            "snapshots" in cluster.capabilities and self._snapshots.find(self._key(cluster)) is not None
            for cluster in self.clusters.values()
        )

    def _write_hand_over(self) -> None:
        hand_over = {
            "version": __version__,
            "spec": self.spec.model_dump(mode="json"),
            "timings": self.timings,
            "warm": self.warm,
        }
        path = self.supervisor.folder / HAND_OVER
        part = path.with_suffix(".part")
        part.write_text(json.dumps(hand_over))
        part.replace(path)

    def _record(self, what: str, began: float, say: Say) -> None:
        self.timings[what] = round(time.monotonic() - began, 2)
        say(f"{what} after {self.timings[what]:.1f} s")

    @classmethod
    def attach(cls, folder: Path, toolchain: Toolchain) -> Platform | None:
        """The platform that runs in `folder`, or None.

        Raises:
            UsageError: It was started by another version of testbed.
        """
        supervisor = Supervisor.attach(folder)
        return None if supervisor is None else cls._handed_over(supervisor, toolchain)

    @classmethod
    def take_away(cls, folder: Path, toolchain: Toolchain) -> None:
        """`down` for the platform of a folder, also when its supervisor was killed: add-ons leave the cluster.

        It may have been started by another version of testbed: `down` is what users of a new one are told to run.

        Raises:
            TestbedError: It is not known what is on the cluster; what ran on this machine is stopped nevertheless.
        """
        supervisor = Supervisor(folder)
        try:
            platform = cls._handed_over(supervisor, toolchain, of_any_version=True)
        except TestbedError as error:
            supervisor.destroy()
            raise TestbedError(
                "the platform is stopped, but its add-ons are still on the cluster",
                why=f"what was installed cannot be read: {error.why or error.what}",
                fix="delete the webhook configurations of the add-ons first, then their namespaces and CRDs",
            ) from None
        platform.down()

    @classmethod
    def _handed_over(cls, supervisor: Supervisor, toolchain: Toolchain, *, of_any_version: bool = False) -> Platform:
        folder = supervisor.folder
        try:
            hand_over = json.loads((folder / HAND_OVER).read_text())
            if hand_over["version"] != __version__ and not of_any_version:
                raise UsageError(
                    f"the platform in {folder} is of another version",
                    why=f"it was started by testbed {hand_over['version']}, this is {__version__}",
                    fix="stop it with `testbed down` and start it again",
                )
            spec = PlatformSpec.model_validate(hand_over["spec"])
        except (OSError, KeyError, json.JSONDecodeError, ValidationError) as error:
            raise TestbedError(
                f"the platform in {folder} did not finish its start",
                why=str(error),
                fix="`testbed down`, then up again",
            ) from None
        platform = cls(spec, supervisor, toolchain)
        platform.timings, platform.warm = hand_over["timings"], hand_over["warm"]
        return platform

    @property
    def cluster(self) -> Cluster:
        """The first cluster."""
        return next(iter(self.clusters.values()))

    def addon(self, kind: type[SomeAddOn], cluster: str | None = None) -> SomeAddOn:
        """An add-on of a cluster (of the first one by default).

        Raises:
            UsageError: The platform was started without it.
        """
        for addon in self.addons[cluster or self.cluster.name]:
            if isinstance(addon, kind):
                return addon
        raise UsageError(
            f"this platform has no {kind.name}",
            why=f"its add-ons are: {', '.join(self.spec.addons) or 'none'}",
            fix=f'mark the scenario with @pytest.mark.needs("{kind.name}"), or start the platform with it',
        )

    def gatekeeper(self, cluster: str | None = None) -> Gatekeeper:
        """The Gatekeeper of a cluster (the first one by default)."""
        return self.addon(Gatekeeper, cluster)

    def fidelity(self, of: Collection[str] | None = None) -> list[Fidelity]:
        """What is real and what is simulated in the clusters and the add-ons (in those named `of`)."""
        parts = [part for cluster in self.clusters.values() for part in cluster.fidelity()]
        acted_on = {name for addons in self.addons.values() for addon in addons for name in addon.acts_on}
        addons = [
            addon
            for addons in self.addons.values()
            for addon in addons
            if (of is None or addon.name in of) and addon.name not in acted_on
        ]
        return parts + [addon.fidelity() for addon in addons]

    def _uninstall_where_others_live(self) -> None:
        """Add-ons leave a cluster that goes on without us; one that ends with us takes them along."""
        if self.spec.backend == "existing":
            for addons in self.addons.values():
                for addon in reversed(addons):
                    addon.uninstall()

    def down(self) -> None:
        """Take the add-ons away where the cluster is not ours, stop everything and remove the folder."""
        try:
            self._uninstall_where_others_live()
        finally:
            self.supervisor.destroy()


def run_in_order(tasks: dict[str, Callable[[], None]], requires: dict[str, set[str]]) -> None:
    """Run tasks side by side, each after those that it requires; raises the first error when the others are done."""
    sorter = TopologicalSorter({name: requires.get(name, set()) & tasks.keys() for name in tasks})
    sorter.prepare()
    with ThreadPoolExecutor(max_workers=max(1, len(tasks))) as pool:
        running: dict[Future[None], str] = {}
        while sorter.is_active():
            running |= {pool.submit(tasks[name]): name for name in sorter.get_ready()}
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                sorter.done(running.pop(future))
