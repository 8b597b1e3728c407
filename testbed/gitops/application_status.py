"""What an Application says of itself."""

from __future__ import annotations

from typing import Any

from testbed.cluster import Manifest


class Status:
    """The status of one Application at one moment.

    Args:
        name: Its name.
        manifest: The Application as the API server has it; empty where there is none.
    """

    def __init__(self, name: str, manifest: Manifest) -> None:
        self.name = name
        self.exists = bool(manifest)
        status: dict[str, Any] = manifest.get("status") or {}
        self._sync: dict[str, Any] = status.get("sync") or {}
        self._operation: dict[str, Any] = status.get("operationState") or {}
        self._asked = bool(manifest.get("operation"))
        self._health: dict[str, Any] = status.get("health") or {}
        self._resources: list[dict[str, Any]] = status.get("resources") or []
        self._conditions: list[dict[str, Any]] = status.get("conditions") or []
        self.syncs: int = len(status.get("history") or [])
        """How many syncs went well so far."""

    def synced(self, commit: str = "") -> bool:
        """Whether the cluster has what git says (at a commit) and the last sync went well."""
        done = self._sync.get("status") == "Synced" and self._operation.get("phase") == "Succeeded"
        return done and (not commit or self._sync.get("revision") == commit)

    @property
    def in_sync(self) -> bool:
        """Whether the cluster has what git says, by a sync that went well or because it had that before."""
        return self._sync.get("status") == "Synced" and self._operation.get("phase", "Succeeded") == "Succeeded"

    @property
    def healthy(self) -> bool:
        """Whether what it deployed works."""
        return bool(self._health.get("status") == "Healthy")

    @property
    def out_of_sync(self) -> bool:
        """Whether it reports a difference."""
        return bool(self._sync.get("status") == "OutOfSync")

    def left_alone(self, commit: str) -> bool:
        """Whether it was compared with a commit and differs from it, and no sync is under way or asked for."""
        under_way = self._asked or self._operation.get("phase") in {"Running", "Terminating"}
        return self.out_of_sync and self._sync.get("revision") == commit and not under_way

    @property
    def untouched(self) -> bool:
        """Whether Argo CD has not said anything of it since it was made."""
        return self.exists and not (self._sync or self._operation or self._conditions)

    @property
    def failed(self) -> bool:
        """Whether its last sync failed, even if it is tried again."""
        return self.given_up or bool(self._operation.get("retryCount"))

    @property
    def given_up(self) -> bool:
        """Whether its last sync failed and will not be tried again."""
        return self._operation.get("phase") in {"Failed", "Error"}

    @property
    def different(self) -> list[str]:
        """The objects that differ from git, as "Kind name"."""
        return [f"{entry['kind']} {entry['name']}" for entry in self._resources if entry.get("status") == "OutOfSync"]

    @property
    def said(self) -> str:
        """Its conditions and the messages of its last sync."""
        results = (self._operation.get("syncResult") or {}).get("resources") or []
        parts = [f"{entry['type']}: {entry['message']}" for entry in self._conditions]
        parts += [str(self._operation.get("message", "")), *(str(entry.get("message", "")) for entry in results)]
        return "\n".join(part for part in parts if part)

    def __str__(self) -> str:
        operation = self._operation
        phase = f"{operation.get('phase')} ({operation.get('message', '')[:200]})" if operation else "no sync yet"
        said = "; ".join(f"{entry['type']}: {entry['message']}" for entry in self._conditions)[:400]
        sync = f"{self._sync.get('status')} at {str(self._sync.get('revision', ''))[:8]}"
        return f"{self.name}: {sync}, {self._health.get('status')}, {phase}; {said}"
