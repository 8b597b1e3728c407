"""Evidence of a failure: the scenario's objects, the events and the logs of every component, in one folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from testbed.cluster import Cluster
from testbed.platform import Platform
from testbed.supervisor import Supervisor, SupervisorGone, log_tail

LOG_LINES = 500
MARK = ".of-testbed"
"""In the folder of a run's evidence: nothing else is ever cleared."""


def has_components(subject: object) -> bool:
    """Whether something that a scenario uses has components: a platform, the seven accounts, what works on them."""
    return isinstance(getattr(subject, "supervisor", None), Supervisor)


def clear_evidence(root: Path) -> None:
    """Remove the evidence of an earlier run."""
    if (root / MARK).is_file():
        shutil.rmtree(root, ignore_errors=True)


def save_evidence(subjects: Iterable[Any], root: Path, name: str, *, since: float) -> Path:
    """Write what is known to a folder below `root`; returns it. What cannot be read says why in its place.

    Args:
        subjects: What the scenario used: platforms, clouds; others are passed over.
        root: The run's folder for evidence.
        name: The test's name.
        since: Unix time at which the scenario began: namespaces that are younger are its own and are saved whole.
    """
    folder = root / "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (root / MARK).touch()
    found = [subject for subject in subjects if has_components(subject)]
    supervisors: dict[Path, Supervisor] = {one.supervisor.folder: one.supervisor for one in found}
    for number, supervisor in enumerate(supervisors.values()):
        _components(supervisor, folder, "components.json" if number == 0 else f"components-{number + 1}.json")
    if (cloud := next((one for one in found if hasattr(one, "trail")), None)) is not None:
        calls = _read(lambda: [event.model_dump(mode="json") for event in cloud.trail.events()])
        _write(folder / "trail.json", calls)  # who called what in the seven accounts
    for platform in (one for one in found if isinstance(one, Platform)):
        for cluster in platform.clusters.values():
            _cluster(cluster, folder, platform.supervisor.folder / "logs" / "pods" / cluster.name, since)
    return folder


def _components(supervisor: Supervisor, folder: Path, name: str) -> None:
    try:
        components = supervisor.components().values()
    except (SupervisorGone, OSError) as error:
        _write(folder / name, {"not readable": str(error)})
        return
    for component in components:
        (folder / f"{component.name}.log").write_text(log_tail(component.log, lines=LOG_LINES))
    _write(folder / name, supervisor.status())


def _cluster(cluster: Cluster, folder: Path, pods: Path, since: float) -> None:
    """Events, custom resources, and the scenario's own namespaces with the logs of their pods."""
    kube = cluster.client()
    _write(folder / f"{cluster.name}-events.json", _read(lambda: kube.list("Event", api_version="v1")))
    _write(folder / f"{cluster.name}-custom-resources.json", _read(kube.custom_resources))
    namespaces = _read(lambda: kube.list("Namespace", api_version="v1"))
    for namespace in namespaces if isinstance(namespaces, list) else []:
        own = namespace["metadata"]["name"]
        if datetime.fromisoformat(namespace["metadata"]["creationTimestamp"]).timestamp() < int(since):
            continue
        _write(folder / f"{cluster.name}-{own}.json", _read(lambda own=own: kube.everything_in(own)))
        for log in sorted(pods.glob(f"{own}_*/*.log")):  # of the add-on workloads
            (folder / f"{cluster.name}-{log.parent.name}-{log.name}").write_text(log_tail(log, lines=LOG_LINES))


def _read(source: Any) -> Any:
    try:
        return source()
    except Exception as error:  # the API server may be what failed
        return {"not readable": str(error)[:500]}


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, default=str))
