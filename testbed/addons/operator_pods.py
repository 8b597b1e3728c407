"""An operator as it is deployed in production: pods from its image, a Service, a certificate in a Secret.

For clusters that run containers. The manifests are those of `manifests/operators`; what they take from other components
of a production cluster (cert-manager's certificate, the ServiceMonitor) is left out or made here.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock

from testbed.cluster import Cluster, Manifest, load_manifests
from testbed.cluster.base import pem_data
from testbed.cluster.client import NOT_YET
from testbed.cluster.kind import KindSpec
from testbed.errors import UsageError
from testbed.paths import manifests
from testbed.wait import wait_until

NAMESPACE = "platform-operators"
METRICS_PORT = 8080
REPLICAS = 2
"""As its manifest has them."""
READY_TIMEOUT = 180.0
_SOURCE = Path(__file__).parents[2]
_COPIED = (".requirements.lock", "testbed/__init__.py", "testbed/errors.py", "testbed/py.typed", "testbed/operators")
"""What the Containerfile copies from the top of the repository."""
_NOT_HERE = {"Issuer", "Certificate", "ServiceMonitor"}
"""Kinds of cert-manager and of the Prometheus operator, which a test cluster does without."""


class OperatorPods:
    """One operator's Deployment on one cluster.

    Args:
        cluster: With the capability `images`.
        command: The operator's: name of its Deployment, Service, service account and lease.
        flags: Before the manifest's own.
    """

    def __init__(self, cluster: Cluster, command: str, flags: list[str]) -> None:
        self.cluster = cluster
        self.command = command
        self.flags = flags

    def deploy(self) -> None:
        """Image, certificate and Deployment; returns when every replica is ready.

        Raises:
            UsageError: There is no source tree to build the image from, and none was configured.
            ComponentDied: The image was not built or not loaded.
            WaitTimeout: The pods did not become ready; says in what state they are.
        """
        image = operators_image(self.cluster)
        self.cluster.client().apply_all([self.certificate(), *self.objects(image)])
        self._wait()

    def certificate(self) -> Manifest:
        """The Secret that cert-manager would make."""
        host = f"{self.command}.{NAMESPACE}.svc"
        certificate, key = self.cluster.authority.issue(f"{self.command}-webhook", host, hosts=[host])
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": f"{self.command}-webhook", "namespace": NAMESPACE},
            "data": {"tls.crt": pem_data(certificate.read_bytes()), "tls.key": pem_data(key.read_bytes())},
        }

    def objects(self, image: str) -> list[Manifest]:
        """The manifests of production, with the image and the flags of this cluster."""
        every = load_manifests(manifests("operators", self.command, "deployment.yaml"))
        found = [manifest for manifest in every if manifest["kind"] not in _NOT_HERE]
        for manifest in found:
            if manifest["kind"] == "Deployment":
                (container,) = manifest["spec"]["template"]["spec"]["containers"]
                container["image"] = image
                container["args"] = [*self.flags, *container["args"]]
        return found

    def webhooks(self) -> list[Manifest]:
        """The webhook configurations of production, with the bundle that cert-manager would inject."""
        found = load_manifests(manifests("operators", self.command, "webhooks.yaml"))
        for manifest in found:
            del manifest["metadata"]["annotations"]
            for webhook in manifest["webhooks"]:
                webhook["clientConfig"]["caBundle"] = pem_data(self.cluster.authority.pem)
        return found

    def page(self, path: str) -> tuple[int, str]:
        """Status and text of a page of the replica that leads (of any one while none does)."""
        kube = self.cluster.client()
        lease = kube.get("Lease", self.command, namespace=NAMESPACE, api_version="coordination.k8s.io/v1") or {}
        names = [pod["metadata"]["name"] for pod in self._pods() if not pod["metadata"].get("deletionTimestamp")]
        holder = lease.get("spec", {}).get("holderIdentity")
        if not names:
            raise ConnectionError(f"{self.command} has no pod")
        return kube.pod_page(NAMESPACE, holder if holder in names else names[0], METRICS_PORT, path)

    def pages(self, path: str) -> list[str]:
        """The text of a page of every replica that is ready."""
        kube = self.cluster.client()
        ready = [
            pod["metadata"]["name"]
            for pod in self._pods()
            if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions") or [])
        ]
        if not ready:
            raise ConnectionError(f"no pod of {self.command} is ready")
        return [kube.pod_page(NAMESPACE, name, METRICS_PORT, path)[1] for name in ready]

    def describe(self) -> str:
        """The state of its pods and the end of their logs, as evidence."""
        kube, lines = self.cluster.client(), []
        for pod in self._pods():
            name = pod["metadata"]["name"]
            lines.append(f"{name}: {pod['status'].get('phase')}")
            for one in pod["status"].get("containerStatuses") or []:
                lines.append(f"  {one.get('state')}, before: {one.get('lastState')}, restarts: {one['restartCount']}")
                lines.append(kube.pod_log(NAMESPACE, name, previous=bool(one["restartCount"])))
        return "\n".join(lines) or f"{self.command} has no pod"

    def incarnations(self) -> list[tuple[str, int]]:
        """Each of its pods, by uid, with how often its container was started again."""
        return sorted(
            (pod["metadata"]["uid"], sum(one["restartCount"] for one in pod["status"].get("containerStatuses") or []))
            for pod in self._pods()
        )

    def scale(self, replicas: int) -> None:
        """So many replicas; returns when they are ready, and those that are too many gone."""
        kube = self.cluster.client()
        deployment = {"apiVersion": "apps/v1", "kind": "Deployment"}
        metadata = {"name": self.command, "namespace": NAMESPACE}
        kube.merge(deployment | {"metadata": metadata}, {"spec": {"replicas": replicas}})

        def gone() -> tuple[bool, object]:
            names = [pod["metadata"]["name"] for pod in self._pods()]
            return len(names) <= replicas, names

        wait_until(
            f"{NAMESPACE}/{self.command} on cluster {self.cluster.name} has no more than {replicas} pods",
            gone,
            timeout=READY_TIMEOUT,
            every=0.2,
            retry_on=NOT_YET,
            evidence=self.describe,
        )
        if replicas:
            self._wait()

    def remove(self) -> None:
        """Delete what `deploy` made."""
        for manifest in [*self.objects("none"), {"kind": "Secret", "metadata": {"name": f"{self.command}-webhook"}}]:
            self.cluster.client().delete(manifest["kind"], manifest["metadata"]["name"], namespace=NAMESPACE)

    def _pods(self) -> list[Manifest]:
        selector = f"app.kubernetes.io/name={self.command}"
        return self.cluster.client().list("Pod", namespace=NAMESPACE, api_version="v1", selector=selector)

    def _wait(self) -> None:
        kube = self.cluster.client()

        def probe() -> tuple[bool, object]:
            found = kube.get("Deployment", self.command, namespace=NAMESPACE) or {}
            status, wanted = found.get("status", {}), found.get("spec", {}).get("replicas")
            done = status.get("observedGeneration") == found.get("metadata", {}).get("generation")
            return done and status.get("readyReplicas") == wanted, status

        wait_until(
            f"every replica of {NAMESPACE}/{self.command} on cluster {self.cluster.name} is ready",
            probe,
            timeout=READY_TIMEOUT,
            every=0.2,
            retry_on=NOT_YET,
            evidence=self.describe,
        )


def operators_image(cluster: Cluster) -> str:
    """The operators' image, loaded into the cluster's nodes; built if none was configured. Both operators share it."""
    kind = getattr(cluster, "kind", KindSpec())
    cluster.folder.mkdir(parents=True, exist_ok=True)
    loaded = cluster.folder / "operators-image"
    with FileLock(cluster.folder / "operators-image.lock"):
        if loaded.exists():
            return loaded.read_text()
        image = kind.operators_image or _build(cluster, kind.operators_base)
        cluster.load_image(image)
        loaded.write_text(image)
        return image


def _build(cluster: Cluster, base: str | None) -> str:
    """Build the image from this source tree; its tag is what went into it, so that runs do not disturb each other."""
    missing = [name for name in _COPIED if not (_SOURCE / name).exists()]
    if missing:
        raise UsageError(
            "the operators' image cannot be built",
            why=f"{', '.join(missing)} is missing in {_SOURCE}: this is an installed package, not a source tree",
            fix="set `operators_image` in [tool.testbed.kind] to an image that you have",
        )
    containerfile = manifests("operators", "Containerfile")
    with tempfile.TemporaryDirectory(prefix="testbed-image-") as folder:
        # A folder of its own: the engine reads the whole context, and the repository holds virtual environments.
        context = Path(folder)
        for name in _COPIED:
            target = context / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (_SOURCE / name).is_dir():
                shutil.copytree(_SOURCE / name, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(_SOURCE / name, target)
        digest = hashlib.sha256(containerfile.read_bytes() + (base or "").encode())
        for path in sorted(context.rglob("*")):
            if path.is_file():
                digest.update(str(path.relative_to(context)).encode() + b"\0" + path.read_bytes())
        image = f"platform-operators:{digest.hexdigest()[:12]}"
        cluster.build_image(containerfile, context, image, {"BASE": base} if base else {})
    return image
