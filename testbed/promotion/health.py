"""What Argo CD says of the services: which tag runs, whether it is well, and since when."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

from testbed.cluster.client import NOT_YET, KubeClient
from testbed.promotion.config import Settings
from testbed.promotion.releases import Health

API = "argoproj.io/v1alpha1"
KUBERNETES_ERRORS = NOT_YET


class HealthPort(Protocol):
    """What knows how services are."""

    def look(self) -> None:
        """Read how everything is now."""

    def of(self, service: str, environment: str, tag: str) -> Health:
        """How a service was at the last look, where `tag` is what it should be."""


class ArgoHealth:
    """Reads Argo CD's Applications. Its account needs no other right than to list them."""

    def __init__(self, settings: Settings, kube: KubeClient) -> None:
        self._settings = settings
        self._kube = kube
        self._applications: dict[str, dict[str, Any]] = {}

    def look(self) -> None:
        """List the Applications."""
        found = self._kube.list("Application", namespace=self._settings.application_namespace, api_version=API)
        self._applications = {entry["metadata"]["name"]: entry for entry in found}

    def of(self, service: str, environment: str, tag: str) -> Health:
        """Healthy means: synced, healthy, and the image with this tag is what runs."""
        name = self._settings.application.format(service=service, environment=environment)
        application = self._applications.get(name)
        if application is None:
            return Health("", False, 0, f"there is no Application {name}")
        return health(application, tag)


def health(application: dict[str, Any], tag: str) -> Health:
    """How an Application is, where `tag` is what it should run."""
    name = application["metadata"]["name"]
    status = application.get("status") or {}
    tags = {image.rpartition(":")[2] for image in (status.get("summary") or {}).get("images") or []}
    state = status.get("health") or {}
    synced = (status.get("sync") or {}).get("status", "Unknown")
    deployed = [entry["deployedAt"] for entry in status.get("history") or [] if entry.get("deployedAt")]
    moments = [*deployed[-1:], *filter(None, [state.get("lastTransitionTime")])]
    since = max((_unix(moment) for moment in moments), default=0.0)
    if tag not in tags:
        return Health("", False, since, f"{name} runs {', '.join(sorted(tags)) or 'nothing'}, not yet {tag}")
    if synced != "Synced":
        return Health(tag, False, since, f"{name} is {synced}")
    if state.get("status") != "Healthy":
        return Health(tag, False, since, f"{name} is {state.get('status', 'Unknown')}: {state.get('message', '')}")
    if not moments:
        return Health(tag, False, since, f"{name} does not say since when it is healthy")
    return Health(tag, True, since)


def _unix(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
