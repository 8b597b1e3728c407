"""Pods as Kubernetes says they behave: crashes, probes, memory, configuration, images, ports, ends."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import pytest

from testbed.addons.workloads import Workloads
from testbed.cluster import Cluster, KubeClient, Manifest
from testbed.cluster.flags import POD_CIDR
from testbed.config import PlatformSpec
from testbed.errors import UsageError
from testbed.wait import wait_until
from testbed.workloads.faults import Faults
from testbed.workloads.labels import PROCESS, SIMULATED, WORKLOAD
from testbed.workloads.releases import ask, podinfo, roll_out

IMAGE = "ghcr.io/stefanprodan/podinfo:3.0.0"
Pods = Callable[[], list[Manifest]]
pytestmark = pytest.mark.xdist_group("workloads")  # one platform, also under xdist
WITHIN = 30.0


def pod(name: str, *containers: Manifest, labels: dict[str, str] | None = None, **spec: Any) -> Manifest:
    """A bare pod."""
    main = [{"name": f"c{index}", "image": IMAGE} | one for index, one in enumerate(containers or ({},))]
    metadata = {"name": name, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": main, **spec}}


class Namespace:
    """Pods of one namespace, by name."""

    def __init__(self, kube: KubeClient, name: str) -> None:
        self.kube, self.name = kube, name

    def create(self, manifest: Manifest) -> None:
        self.kube.create(manifest, namespace=self.name)

    def pod(self, name: str) -> Manifest:
        found = self.kube.get("Pod", name, namespace=self.name, api_version="v1")
        assert found is not None
        return found

    def container(self, name: str, index: int = 0) -> Manifest:
        statuses = self.pod(name).get("status", {}).get("containerStatuses") or [{}, {}]
        found: Manifest = statuses[index]
        return found

    def wait(self, what: str, seen: Callable[[], object], right: Callable[[Any], object]) -> Any:
        return wait_until(what, lambda: (bool(right(now := seen())), now), timeout=WITHIN)

    def wait_state(self, name: str, state: str, reason: str | None = None, index: int = 0) -> Manifest:
        def right(status: Manifest) -> bool:
            found = status.get("state") or {}
            return state in found and (reason is None or found[state].get("reason") == reason)

        found: Manifest = self.wait(f"{name} is {state} {reason}", lambda: self.container(name, index), right)
        return found

    def events(self, name: str) -> dict[str, str]:
        """Reason and message of its events."""
        found = self.kube.list("Event", namespace=self.name, api_version="v1")
        return {event["reason"]: event["message"] for event in found if event["involvedObject"]["name"] == name}


@pytest.fixture
def ns(kube: KubeClient, space: str) -> Namespace:
    return Namespace(kube, space)


def ready(found: Manifest) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in found["status"].get("conditions") or [])


def test_a_crash_is_counted_and_repeated_ones_back_off(ns: Namespace) -> None:
    ns.create(pod("crashing", {"readinessProbe": {"httpGet": {"port": 9898, "path": "/readyz"}, "periodSeconds": 1}}))
    for count in (1, 2):
        ns.wait("it is ready", lambda: ns.pod("crashing"), ready)
        with pytest.raises(ConnectionError):
            ask(ns.pod("crashing"), "/panic")
        status = ns.wait(
            f"restart {count}",
            lambda: ns.container("crashing"),
            lambda seen, count=count: seen["restartCount"] == count and "running" in seen["state"],
        )
        assert status["lastState"]["terminated"]["exitCode"] == 255
        assert status["lastState"]["terminated"]["reason"] == "Error"
    ns.wait("the back-off is told", lambda: ns.events("crashing"), lambda seen: "BackOff" in seen)
    assert {"Pulled", "Created", "Started", "Scheduled"} <= ns.events("crashing").keys()


def test_a_failing_liveness_probe_restarts(ns: Namespace) -> None:
    probe = {"httpGet": {"port": 9898, "path": "/healthz"}, "periodSeconds": 1, "failureThreshold": 1}
    ns.create(pod("sick", {"args": ["--unhealthy", "--level=debug"], "livenessProbe": probe}))
    ns.wait("it is restarted", lambda: ns.container("sick"), lambda seen: seen.get("restartCount", 0) >= 1)
    events = ns.events("sick")
    assert "503" in events["Unhealthy"] or "connect" in events["Unhealthy"]
    assert "failed liveness probe, will be restarted" in events["Killing"]


def test_readiness_decides_about_endpoints(ns: Namespace, kube: KubeClient, pods: Pods) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "shop"},
        "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80, "targetPort": "http"}]},
    }
    kube.apply(service, namespace=ns.name)
    roll_out(kube, ns.name, podinfo("shop", replicas=2))
    first, second = pods()

    def endpoints() -> dict[str, bool]:
        slices = kube.list("EndpointSlice", namespace=ns.name, api_version="discovery.k8s.io/v1")
        found = [(slice_, endpoint) for slice_ in slices for endpoint in slice_.get("endpoints") or []]
        assert all(slice_["ports"][0]["port"] == 9898 for slice_, _ in found)
        return {endpoint["addresses"][0]: endpoint["conditions"]["ready"] for _, endpoint in found}

    addresses = [one["status"]["podIP"] for one in (first, second)]
    ns.wait("both are endpoints", endpoints, lambda seen: seen == dict.fromkeys(addresses, True))
    ask(first, "/readyz/disable", method="POST")
    ns.wait("one is not ready", endpoints, lambda seen: seen == {addresses[0]: False, addresses[1]: True})
    found = ns.pod(first["metadata"]["name"])
    (condition,) = [c for c in found["status"]["conditions"] if c["type"] == "Ready"]
    assert condition["reason"] == "ContainersNotReady"
    ask(first, "/readyz/enable", method="POST")
    ns.wait("it is ready again", endpoints, lambda seen: all(seen.values()))


def test_memory_above_the_limit_is_oom_killed(ns: Namespace, kube: KubeClient) -> None:
    limits = {"resources": {"limits": {"memory": "96Mi"}}, "env": Faults(memory_mb_per_second=200).env()}
    ns.create(pod("leaking", limits))

    def killed(seen: Manifest) -> bool:
        states = [seen.get("lastState") or {}, seen.get("state") or {}]
        return any(state.get("terminated", {}).get("reason") == "OOMKilled" for state in states)

    status = ns.wait("it is OOMKilled", lambda: ns.container("leaking"), killed)
    ended = (status["lastState"] or status["state"])["terminated"]
    assert ended["exitCode"] == 137

    def told() -> list[str]:
        events = kube.list("Event", namespace="default", api_version="v1")
        return [one["message"] for one in events if one["reason"] == "OOMKilling"]

    ns.wait("the node tells it", told, lambda seen: any(f"{ns.name}/leaking" in message for message in seen))


def test_configuration_comes_from_the_api_and_what_is_missing_is_told(ns: Namespace, kube: KubeClient) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"colour": "red"}}
    kube.apply(config, namespace=ns.name)
    env = [
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "PODINFO_UI_COLOR", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "colour"}}},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}},
        {"name": "BOTH", "value": "$(POD) is $(TOKEN)"},
    ]
    ns.create(pod("configured", {"env": env, "args": ["--ui-message=$(BOTH)"]}))
    status = ns.wait_state("configured", "waiting", "CreateContainerConfigError")
    assert 'secret "s" not found' in status["state"]["waiting"]["message"]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"token": "t-1"}}
    kube.apply(secret, namespace=ns.name)
    ns.wait_state("configured", "running")
    found = ns.pod("configured")
    _, _, text = ns.wait("it answers", lambda: answer(found, "/"), lambda seen: seen[0] == 200)
    assert '"message": "configured is t-1"' in text
    assert '"color": "red"' in text
    assert '"hostname": "configured"' in text
    assert f"IP={found['status']['podIP']}" in ask(found, "/env")[2]


def answer(found: Manifest, path: str) -> tuple[int, dict[str, str], str]:
    try:
        return ask(found, path)
    except OSError as error:
        return 0, {}, str(error)


def test_an_unknown_image_is_an_error_of_the_pod(ns: Namespace) -> None:
    ns.create(pod("strange", {"image": "registry.example/strange:1"}, labels={WORKLOAD: PROCESS}))
    status = ns.wait_state("strange", "waiting", "ImagePullBackOff")
    assert "ghcr.io/stefanprodan/podinfo" in status["state"]["waiting"]["message"]
    assert ns.pod("strange")["status"]["phase"] == "Pending"
    ns.wait("it is told", lambda: ns.events("strange"), lambda seen: {"Failed", "BackOff"} <= seen.keys())


def test_a_taken_port_is_told_by_the_container_that_wants_it(ns: Namespace) -> None:
    ns.create(pod("twins", {}, {}))
    statuses = ns.wait(
        "one of them fails",
        lambda: [ns.container("twins", index) for index in (0, 1)],
        lambda seen: any((one.get("lastState") or {}).get("terminated") for one in seen),
    )
    (ended,) = [one["lastState"]["terminated"] for one in statuses if one["lastState"]]
    assert "address already in use" in ended["message"]
    assert ended["exitCode"] == 1


def test_others_stay_with_the_simulator(ns: Namespace) -> None:
    ns.create(pod("other", {"image": "nginx:1"}))
    ns.create(pod("chosen", labels={WORKLOAD: SIMULATED}))
    ns.create(pod("mixed", {}, {"image": "nginx:1"}))
    for name in ("other", "chosen", "mixed"):
        ns.wait_state(name, "running")
        found = ns.pod(name)
        assert ipaddress.ip_address(found["status"]["podIP"]) in ipaddress.ip_network(POD_CIDR)
        assert found["metadata"].get("labels", {}).get(WORKLOAD) != PROCESS


def test_containers_run_in_their_order_and_to_their_end(ns: Namespace) -> None:
    init = {"name": "first", "image": IMAGE, "args": ["--version"]}
    ns.create(pod("job", {"args": ["--version"]}, restartPolicy="Never", initContainers=[init]))
    ns.wait("it has succeeded", lambda: ns.pod("job")["status"], lambda seen: seen["phase"] == "Succeeded")
    status = ns.pod("job")["status"]
    assert status["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
    assert {c["type"]: c.get("reason") for c in status["conditions"]}["Ready"] == "PodCompleted"
    wrong = {"name": "first", "image": IMAGE, "command": ["sh", "-c", "exit 3"]}
    ns.create(pod("stuck", restartPolicy="Never", initContainers=[wrong]))
    ns.wait("it has failed", lambda: ns.pod("stuck")["status"], lambda seen: seen["phase"] == "Failed")
    (first,) = ns.pod("stuck")["status"]["initContainerStatuses"]
    assert "executable file not found" in first["state"]["terminated"]["message"]


def test_a_deleted_pod_ends_in_its_grace_period(ns: Namespace, kube: KubeClient, cluster: Cluster) -> None:
    probe = {"exec": {"command": ["podcli", "check", "http", "localhost:9898/readyz"]}, "periodSeconds": 1}
    ns.create(pod("ending", {"readinessProbe": probe, "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}))
    ns.wait("it is ready", lambda: ns.pod("ending"), ready)
    kube.delete("Pod", "ending", namespace=ns.name)
    assert ns.pod("ending")["metadata"]["deletionGracePeriodSeconds"] == 30
    ns.wait("it is gone", lambda: kube.get("Pod", "ending", namespace=ns.name), lambda seen: seen is None)
    assert "Stopping container" in ns.events("ending")["Killing"]
    log = Workloads(cluster).logs / f"{ns.name}_ending" / "c0.log"
    assert "Shutting down HTTP" in log.read_text()


def test_a_backend_with_kubelets_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot run on the backend existing"):
        PlatformSpec(backend="existing", addons=["workloads"]).tools()
    assert PlatformSpec(backend="existing").lacks({"workloads"}) == {"simulated-nodes"}
