"""`python -m testbed.monitoring --kubeconfig FILE --targets FILE`: watch pods, write the targets of Prometheus."""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

from testbed.cluster import KubeClient
from testbed.cluster.client import NOT_YET
from testbed.monitoring.targets import targets

WATCH_SECONDS = 300
RETRY_SECONDS = 0.5
log = logging.getLogger("testbed.monitoring")


class TargetsFile:
    """The file that Prometheus watches; written only when it says something new, and never by halves."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pods: dict[str, dict[str, Any]] = {}
        self._written: str | None = None

    def forget_others(self, uids: set[str]) -> None:
        """Forget pods that are gone."""
        self._pods = {uid: pod for uid, pod in self._pods.items() if uid in uids}

    def heard(self, kind: str, pod: dict[str, Any]) -> None:
        """Take one change of a pod."""
        uid = pod["metadata"]["uid"]
        if kind == "DELETED":
            self._pods.pop(uid, None)
        else:
            self._pods[uid] = pod
        self.write()

    def write(self) -> None:
        """Write what follows."""
        text = json.dumps(targets(self._pods.values()), indent=1)
        if text == self._written:
            return
        part = self._path.with_suffix(".part")
        part.write_text(text)
        part.replace(self._path)
        self._written = text


def follow(kube: KubeClient, file: TargetsFile) -> None:
    """Keep the file true for as long as a watch lasts."""
    file.forget_others({pod["metadata"]["uid"] for pod in kube.list("Pod", api_version="v1")})
    file.write()
    for kind, pod in kube.watch("Pod", api_version="v1", timeout=WATCH_SECONDS):
        if kind in {"ADDED", "MODIFIED", "DELETED"}:
            file.heard(kind, pod)


def main() -> None:
    """For ever."""
    parser = argparse.ArgumentParser(prog="python -m testbed.monitoring")
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--targets", type=Path, required=True, help="the file to write; Prometheus watches it")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    kube, file = KubeClient(options.kubeconfig), TargetsFile(options.targets)
    while True:
        try:
            follow(kube, file)
        except NOT_YET as error:
            log.warning("the watch of pods ended: %s", str(error).splitlines()[0][:200])
            time.sleep(RETRY_SECONDS)  # the API server is away


if __name__ == "__main__":
    main()
