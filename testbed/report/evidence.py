"""Evidence of a failure: the scenario's objects, the events and the logs of every component, in one folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from testbed.cluster import Cluster
from testbed.platform import Platform
from testbed.supervisor import log_tail

LOG_LINES = 500


def save_evidence(platform: Platform, root: Path, name: str, namespaces: list[str]) -> Path:
    """Write what is known to a folder below `root`; returns it. What cannot be read says why in its place.

    Args:
        platform: Where the scenario ran.
        root: The run's folder for evidence.
        name: The test's name.
        namespaces: The scenario's own, whose objects are saved whole.
    """
    folder = root / "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for component in platform.supervisor.components().values():
        (folder / f"{component.name}.log").write_text(log_tail(component.log, lines=LOG_LINES))
    _write(folder / "components.json", platform.supervisor.status())
    for cluster in platform.clusters.values():
        _write(folder / f"{cluster.name}-events.json", _read(lambda cluster=cluster: _events(cluster)))
        for namespace in namespaces:
            objects = _read(lambda cluster=cluster, namespace=namespace: _objects(cluster, namespace))
            _write(folder / f"{cluster.name}-{namespace}.json", objects)
            pods = platform.supervisor.folder / "logs" / "pods" / cluster.name  # of the add-on workloads
            for log in sorted(pods.glob(f"{namespace}_*/*.log")):
                (folder / f"{cluster.name}-{log.parent.name}-{log.name}").write_text(log_tail(log, lines=LOG_LINES))
    return folder


def _events(cluster: Cluster) -> Any:
    return cluster.client().list("Event", api_version="v1")


def _objects(cluster: Cluster, namespace: str) -> Any:
    return cluster.client().everything_in(namespace)


def _read(source: Any) -> Any:
    try:
        return source()
    except Exception as error:  # the API server may be what failed
        return {"not readable": str(error)[:500]}


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, default=str))
