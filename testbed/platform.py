"""The platform: clusters with their add-ons, brought up together, shared by a hand-over file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testbed import __version__
from testbed.addons import AddOn, Gatekeeper, addon_classes
from testbed.cluster import ClusterSpec, EmbeddedCluster, Fidelity
from testbed.cluster.embedded import TOOLS
from testbed.errors import TestbedError, UsageError
from testbed.supervisor import Supervisor
from testbed.toolchain import Toolchain

HAND_OVER = "platform.json"
Say = Callable[[str], None]


class PlatformSpec(BaseModel):
    """What a platform should be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clusters: list[ClusterSpec] = Field(default_factory=lambda: [ClusterSpec()], min_length=1)
    addons: list[str] = Field(default=["gatekeeper"])

    def tools(self) -> list[str]:
        """The binaries it needs.

        Raises:
            UsageError: An add-on is unknown, or two clusters have one name.
        """
        names = [cluster.name for cluster in self.clusters]
        if len(set(names)) != len(names):
            raise UsageError("two clusters have the same name", why=", ".join(names), fix="give each its own name")
        return [*TOOLS, *(tool for addon in addon_classes(self.addons) for tool in addon.tools)]


class Platform:
    """Running clusters and add-ons. Made by `up`, or by `attach` in another process."""

    def __init__(self, spec: PlatformSpec, supervisor: Supervisor, toolchain: Toolchain) -> None:
        self.spec = spec
        self.supervisor = supervisor
        self.clusters = {cluster.name: EmbeddedCluster(cluster, supervisor, toolchain) for cluster in spec.clusters}
        self.addons: dict[str, list[AddOn]] = {
            name: [addon(cluster) for addon in addon_classes(spec.addons)] for name, cluster in self.clusters.items()
        }
        self.timings: dict[str, float] = {}

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
        supervisor = Supervisor.launch(folder)
        try:
            supervisor.lease()
            platform = cls(spec, supervisor, toolchain)
            with ThreadPoolExecutor(max_workers=len(spec.clusters)) as pool:
                for started in [pool.submit(platform._bring_up, name, say) for name in platform.clusters]:
                    started.result()
            hand_over = {"version": __version__, "spec": spec.model_dump(mode="json"), "timings": platform.timings}
            part = folder / f"{HAND_OVER}.part"
            part.write_text(json.dumps(hand_over))
            part.replace(folder / HAND_OVER)
        except BaseException:
            supervisor.shutdown()
            raise
        return platform

    def _bring_up(self, name: str, say: Say) -> None:
        began = time.monotonic()
        cluster = self.clusters[name]
        cluster.start_control_plane()
        self._record(f"{name}: control plane ready", began, say)
        cluster.start_nodes()
        self._record(f"{name}: {len(cluster.client().list('Node'))} nodes ready", began, say)
        for addon in self.addons[name]:
            addon.install()
            addon.ready()
            self._record(f"{name}: {addon.name} {addon.version} ready", began, say)

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
        if supervisor is None:
            return None
        try:
            hand_over = json.loads((folder / HAND_OVER).read_text())
            if hand_over["version"] != __version__:
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
        platform.timings = hand_over["timings"]
        return platform

    @property
    def cluster(self) -> EmbeddedCluster:
        """The first cluster."""
        return next(iter(self.clusters.values()))

    def gatekeeper(self, cluster: str | None = None) -> Gatekeeper:
        """The Gatekeeper of a cluster (the first one by default)."""
        for addon in self.addons[cluster or self.cluster.name]:
            if isinstance(addon, Gatekeeper):
                return addon
        raise UsageError("this platform has no gatekeeper", fix="add it to the add-ons of the platform")

    def fidelity(self) -> list[Fidelity]:
        """What is real and what is simulated in every part."""
        parts = [part for cluster in self.clusters.values() for part in cluster.fidelity()]
        return parts + [addon.fidelity() for addons in self.addons.values() for addon in addons]

    def down(self) -> None:
        """Stop everything and remove the folder."""
        self.supervisor.destroy()


def platforms_folder() -> Path:
    """Where kept platforms and runs live: private to the user."""
    return platformdirs.user_state_path("testbed") / "platforms"
