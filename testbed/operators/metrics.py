"""What the operators measure about themselves, for Prometheus; the alert rules are in `manifests/operators/alerts`."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Counter, Gauge, Histogram

RECONCILES = Counter("platform_operator_reconcile", "Reconciliations, by their end.", ["controller", "result"])
ERRORS = Counter("platform_operator_reconcile_errors", "Failed reconciliations, by reason.", ["controller", "reason"])
SECONDS = Histogram(
    "platform_operator_reconcile_duration_seconds",
    "How long a reconciliation took.",
    ["controller"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
RESOURCES = Gauge("platform_operator_resources", "Custom resources that exist.", ["controller"])
NOT_READY = Gauge(
    "platform_operator_not_ready",
    "1 for every custom resource that is not ready, with the reason; absent for those that are.",
    ["controller", "namespace", "name", "reason"],
)
HEALED = Counter("platform_operator_children_healed", "Children that somebody had changed or deleted.", ["kind"])
QUEUE = Gauge("platform_operator_queue_length", "Custom resources that wait for reconciliation.", ["controller"])
ADMISSIONS = Counter("platform_operator_admissions", "Answers of the webhooks.", ["webhook", "allowed"])
API_REQUESTS = Counter("platform_operator_api_requests", "Requests to the API server.", ["method", "code"])
LEADING = Gauge("platform_operator_leader", "1 while this replica leads.", ["controller"])
RESYNCED = Gauge(
    "platform_operator_last_resync_timestamp_seconds", "When everything was last compared.", ["controller"]
)


class NotReady:
    """Keeps NOT_READY to one series a resource, whatever reasons it has had."""

    def __init__(self, controller: str) -> None:
        self._controller = controller
        self._reasons: dict[tuple[str, str], str] = {}

    def set(self, namespace: str, name: str, reason: str | None) -> None:
        """It is not ready for this reason, or ready (or gone) with None."""
        old = self._reasons.pop((namespace, name), None)
        if old is not None and old != reason:
            NOT_READY.remove(self._controller, namespace, name, old)
        if reason is not None:
            self._reasons[namespace, name] = reason
            NOT_READY.labels(self._controller, namespace, name, reason).set(1)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Namespace and name of all that are not ready."""
        return iter(list(self._reasons))

    def clear(self) -> None:
        """Forget all: this replica leads no more."""
        for namespace, name in self:
            self.set(namespace, name, None)
