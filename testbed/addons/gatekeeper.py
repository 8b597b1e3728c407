"""OPA Gatekeeper: the real controller and audit as processes, the platform's policies, a webhook that fails closed."""

from __future__ import annotations

from typing import Any

from testbed.addons.base import AddOn
from testbed.cluster import Cluster, Fidelity, KubeClient, Manifest, Refused, load_manifests
from testbed.cluster.base import pem_data
from testbed.cluster.client import NOT_YET
from testbed.errors import TestbedError, UsageError
from testbed.pages import NOT_SERVED, page
from testbed.paths import manifests
from testbed.ports import LOOPBACK, free_ports, retry_on_taken_port
from testbed.supervisor import ProcessSpec, log_tail
from testbed.wait import wait_until

NAMESPACE = "gatekeeper-system"
WEBHOOK = "gatekeeper-validating-webhook-configuration"
WEBHOOK_API = "admissionregistration.k8s.io/v1"
CONSTRAINTS = "constraints.gatekeeper.sh/v1beta1"
ADMIT = "validation.gatekeeper.sh"
NOT_INSTALLED = {"Deployment", "Secret", "Service", "PodDisruptionBudget", "MutatingWebhookConfiguration"}
"""Of upstream's manifest: what only serves its pods. Mutation is not used by the platform."""
AUDIT_INTERVAL = 10
"""Seconds between audits; upstream's default is 60. Each costs about 0.3 s of a processor, on every cluster."""
READY_TIMEOUT = 90.0
PROBE_NAMESPACE = "testbed-gatekeeper-probe"


class Gatekeeper(AddOn):
    """Gatekeeper v3 with the constraint templates and constraints of `manifests/gatekeeper`.

    Where the API server is in a container (backend kind), the webhook listens on the gateway of the engine's network:
    nothing on loopback can be reached from there. So every container of this machine can call it, over TLS, unasked who
    it is. What it learns is how these policies judge an object that it sends; a call stores and changes nothing.
    Gatekeeper can demand a client's certificate (`--client-ca-name`), but an API server has one for webhooks only by an
    AdmissionConfiguration with a kubeconfig, which would have to be mounted into the node before kubeadm starts it.
    """

    name = "gatekeeper"
    tools = ("gatekeeper",)
    _roles = ("gatekeeper-controller", "gatekeeper-audit")

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._health: dict[str, int] = {}

    def install(self) -> None:
        """CRDs and RBAC from upstream's manifest, both processes, then the policies, then the webhook.

        Raises:
            UsageError: The cluster has a Gatekeeper of its own.
            TestbedError: Its API server does not reach our webhook.
        """
        kube = self.cluster.client()
        if kube.get("Namespace", NAMESPACE) is not None:
            raise UsageError(
                f"cluster {self.cluster.name} has a Gatekeeper already",
                why=f"there is a namespace {NAMESPACE}, and two Gatekeepers would undo each other's work",
                fix="leave gatekeeper out of the add-ons, or use a cluster without one",
            )
        objects = self._objects()
        kube.apply_all(objects)
        kube.wait_crds(_crds(objects), timeout=READY_TIMEOUT)
        port = self._start_processes(kube)
        self._apply_policies(kube)
        self._wait_processes()
        if "loopback-webhooks" not in self.cluster.capabilities:
            self._try_webhook(kube, port)
        kube.apply(self._webhook(port, "Fail"))

    def resume(self) -> None:
        """Both processes, then the webhook at its new address."""
        kube = self.cluster.client()
        port = self._start_processes(kube)
        self._wait_processes()
        kube.apply(self._webhook(port, "Fail"))

    def _upstream(self) -> list[Manifest]:
        return load_manifests(self.cluster.toolchain.assets("gatekeeper") / "deploy" / "gatekeeper.yaml")

    def _objects(self) -> list[Manifest]:
        """What is installed of upstream's manifest, without the webhook."""
        left_out = {*NOT_INSTALLED, "ValidatingWebhookConfiguration"}
        return [manifest for manifest in self._upstream() if manifest["kind"] not in left_out]

    def _try_webhook(self, kube: KubeClient, port: int) -> None:
        """Prove that the API server reaches us while a webhook that it cannot call still harms nobody."""
        kubectl = self.cluster.toolchain.ensure(["kubectl"])["kubectl"]
        undo = [str(kubectl), f"--kubeconfig={self.cluster.kubeconfig}", "delete", "--ignore-not-found"]
        self.cluster.supervisor.at_end([*undo, f"validatingwebhookconfiguration/{WEBHOOK}"])
        kube.apply(self._webhook(port, "Ignore"))
        try:
            self.ready()
        except TestbedError as error:
            raise TestbedError(
                f"the API server of cluster {self.cluster.name} does not reach webhooks on this machine",
                why=f"Gatekeeper runs here, at {self.cluster.webhook_host}:{port}; {error.why}",
                fix="use a cluster whose API server runs on this machine's network, or leave gatekeeper out",
            ) from None

    @retry_on_taken_port
    def _start_processes(self, kube: KubeClient) -> int:
        """Start controller and audit under Gatekeeper's own service account; returns the webhook's port."""
        self.cluster.supervisor.stop([self.cluster.component(role) for role in self._roles], grace=0)
        kubeconfig = self.cluster.service_account_kubeconfig(NAMESPACE, "gatekeeper-admin")
        certificates = self.cluster.folder / "gatekeeper-certs"
        host = self.cluster.webhook_host
        certificate, key = self.cluster.authority.issue("gatekeeper-webhook", "gatekeeper-webhook", hosts=[host])
        certificates.mkdir(mode=0o700, exist_ok=True)
        # Audit does not make its cache folder; without it every audit fails, in its log only.
        (self.cluster.folder / "gatekeeper-audit").mkdir(mode=0o700, exist_ok=True)
        for name, source in (
            ("tls.crt", certificate),
            ("tls.key", key),
            ("ca.crt", self.cluster.authority.certificate),
        ):
            (certificates / name).write_bytes(source.read_bytes())
            (certificates / name).chmod(0o600)
        webhook, controller_health, audit_health, discard = free_ports(4)
        self._health = {"gatekeeper-controller": controller_health, "gatekeeper-audit": audit_health}
        common = [
            f"--kubeconfig={kubeconfig}",
            "--disable-cert-rotation",
            f"--cert-dir={certificates}",
            f"--host={host}",
            "--disable-opa-builtin={http.send}",
            f"--exempt-namespace={NAMESPACE}",
            # Its Prometheus exporter can only listen on every interface; this one pushes, here to a closed port.
            "--metrics-backend=opentelemetry",
            f"--otlp-endpoint={LOOPBACK}:{discard}",
            "--otlp-metric-interval=1h",
            "--shutdown-delay=0",
        ]
        roles = {
            "gatekeeper-controller": [
                "--operation=webhook",
                f"--port={webhook}",
                f"--health-addr={LOOPBACK}:{controller_health}",
            ],
            "gatekeeper-audit": [
                "--operation=audit",
                "--operation=status",
                "--operation=generate",
                f"--audit-interval={AUDIT_INTERVAL}",
                # Else it lists every kind that the cluster has, however many CRDs others bring.
                "--audit-match-kind-only=true",
                f"--api-cache-dir={self.cluster.folder / 'gatekeeper-audit'}",
                f"--health-addr={LOOPBACK}:{audit_health}",
            ],
        }
        binary = self.cluster.toolchain.ensure(["gatekeeper"])["gatekeeper"]
        for role, arguments in roles.items():
            kube.apply(_own_pod(role))
            self.cluster.supervisor.start(
                ProcessSpec(
                    name=self.cluster.component(role),
                    argv=[str(binary), *common, *arguments],
                    env={"POD_NAME": role, "POD_NAMESPACE": NAMESPACE, "NAMESPACE": NAMESPACE, "GOGC": "50"},
                    tags={"cluster": self.cluster.name, "role": role},
                    restart_limit=100,
                )
            )
        self._wait_processes("/healthz")
        return webhook

    def _apply_policies(self, kube: KubeClient) -> None:
        templates = load_manifests(manifests("gatekeeper", "templates"))
        kube.apply_all(templates)
        kinds = [template["spec"]["crd"]["spec"]["names"]["kind"] for template in templates]
        kube.wait_crds([f"{kind.lower()}.constraints.gatekeeper.sh" for kind in kinds], timeout=READY_TIMEOUT)
        kube.apply_all(load_manifests(manifests("gatekeeper", "constraints")))

    def _webhook(self, port: int, failure_policy: str) -> Manifest:
        """Upstream's webhook configuration, pointed at our process. Policy `Fail` refuses when that does not answer."""
        (configuration,) = (found for found in self._upstream() if found["kind"] == "ValidatingWebhookConfiguration")
        authority, host = pem_data(self.cluster.authority.pem), self.cluster.webhook_host
        for webhook in configuration["webhooks"]:
            path = webhook["clientConfig"].pop("service")["path"]
            webhook["clientConfig"] = {"url": f"https://{host}:{port}{path}", "caBundle": authority}
            if webhook["name"] == ADMIT:
                webhook["failurePolicy"] = failure_policy
                # Fail-closed must not lock the cluster's own components out (leases, events, tokens).
                for expression in webhook["namespaceSelector"]["matchExpressions"]:
                    if expression["key"] == "kubernetes.io/metadata.name":
                        expression["values"] = [NAMESPACE, "kube-system", "kube-public", "kube-node-lease"]
                webhook["matchConditions"] = [
                    {
                        "name": "not-node-status-or-tokens",
                        "expression": '!(request.resource.resource in ["nodes", "leases", "events", "tokenreviews", '
                        '"subjectaccessreviews", "endpointslices"])',
                    }
                ]
        return configuration

    def _wait_processes(self, path: str = "/readyz") -> None:
        """Wait until both answer at `path`: /healthz once they listen, /readyz once they know their policies."""
        require = self.cluster.supervisor.require_started
        for role, port in self._health.items():
            name = self.cluster.component(role)
            log = self.cluster.log(role)

            def probe(name: str = name, port: int = port) -> tuple[bool, object]:
                require(name)
                status, text = page(LOOPBACK, port, path)
                return status == 200, text[:200]

            wait_until(
                f"{name} says ok at {path}",
                probe,
                timeout=READY_TIMEOUT,
                retry_on=NOT_SERVED,
                evidence=lambda log=log: log_tail(log),  # type: ignore[misc]
            )

    def ready(self) -> None:
        """Wait until an untagged namespace is refused by policy, and not because the webhook is away."""
        kube = self.cluster.client()
        probe_object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PROBE_NAMESPACE}}

        def probe() -> tuple[bool, object]:
            try:
                kube.apply(probe_object, dry_run=True)
            except Refused as refusal:
                return "cost-allocation-tags" in refusal.reason, refusal.reason
            return False, "an untagged namespace was admitted"

        controller = self.cluster.log("gatekeeper-controller")
        wait_until(
            f"Gatekeeper on cluster {self.cluster.name} enforces its constraints",
            probe,
            timeout=READY_TIMEOUT,
            retry_on=NOT_YET,
            evidence=lambda: log_tail(controller),
        )

    def restart(self) -> None:
        """Kill both processes and wait until they enforce again.

        After an outage of the API server Gatekeeper goes on enforcing what it knew, but may miss changes of
        constraints for a minute: its watches (client-go's reflectors) wait up to 30 s, and as much again at random,
        between two tries, and the first ones are refused while the API server does not know its RBAC yet. Measured
        with v3.23.1: 5 s after an outage of 3 s, 45 s after one of 30 s.
        """
        for role in self._roles:
            self.cluster.kill(role)
        self.ready()

    def uninstall(self) -> None:
        """Remove the webhook first, so that nothing is refused for want of it; then policies, processes, the rest."""
        kube = self.cluster.client()
        kube.delete("ValidatingWebhookConfiguration", WEBHOOK, api_version=WEBHOOK_API)
        for template in load_manifests(manifests("gatekeeper", "templates")):
            kube.delete(template["kind"], template["metadata"]["name"], api_version=template["apiVersion"])
        # Its owner's deletion would take them along, but the garbage collector learns of a new kind every 30 s only.
        for crd in self._template_crds(kube):
            kube.delete("CustomResourceDefinition", crd)
        wait_until(
            "the CRDs of the templates are gone",
            lambda: (not (left := self._template_crds(kube)), f"left: {', '.join(left)}"),
            timeout=READY_TIMEOUT,
            retry_on=NOT_YET,
        )
        self.cluster.supervisor.stop([self.cluster.component(role) for role in self._roles])
        for manifest in reversed(self._objects()):
            metadata = manifest["metadata"]
            kube.delete(
                manifest["kind"],
                metadata["name"],
                namespace=metadata.get("namespace"),
                api_version=manifest["apiVersion"],
            )
        wait_until(
            f"namespace {NAMESPACE} is gone",
            lambda: ((found := kube.get("Namespace", NAMESPACE)) is None, found and found.get("status")),
            timeout=READY_TIMEOUT,
            retry_on=NOT_YET,
        )

    @staticmethod
    def _template_crds(kube: KubeClient) -> list[str]:
        names = [
            crd["metadata"]["name"]
            for crd in kube.list("CustomResourceDefinition", api_version="apiextensions.k8s.io/v1")
        ]
        return [name for name in names if name.endswith(".constraints.gatekeeper.sh")]

    def set_enforcement(self, kind: str, name: str, action: str) -> None:
        """Set a constraint's enforcementAction: `dryrun` takes the guard away, `deny` puts it back."""
        self.cluster.client().apply(
            {
                "apiVersion": CONSTRAINTS,
                "kind": kind,
                "metadata": {"name": name},
                "spec": {**self.constraint(kind, name)["spec"], "enforcementAction": action},
            }
        )

    def constraint(self, kind: str, name: str) -> Manifest:
        """A constraint with its status."""
        found = self.cluster.client().get(kind, name, api_version=CONSTRAINTS)
        if found is None:
            raise Refused(f"there is no constraint {kind}/{name}", fix="see manifests/gatekeeper/constraints")
        return found

    def violations(self, kind: str, name: str) -> list[dict[str, Any]]:
        """What the last audit found against a constraint."""
        found: list[dict[str, Any]] = self.constraint(kind, name).get("status", {}).get("violations") or []
        return found

    def fidelity(self) -> Fidelity:
        """What is real here."""
        open_to = ""
        if self.cluster.webhook_host != LOOPBACK:
            open_to = f"; its webhook listens at {self.cluster.webhook_host}, where any container here may call it"
        return Fidelity(
            part=f"gatekeeper {self.version}",
            real="controller and audit, CRDs, RBAC, webhook over TLS, fail-closed",
            simulated=f"one replica as a process instead of three pods; audit every {AUDIT_INTERVAL} s{open_to}",
        )


def _crds(objects: list[Manifest]) -> list[str]:
    return [found["metadata"]["name"] for found in objects if found["kind"] == "CustomResourceDefinition"]


def _own_pod(name: str) -> Manifest:
    """The Pod object that Gatekeeper looks up as its own; gated, so that nothing ever schedules or runs it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": {"testbed.dev/runs-as": "host process"}},
        "spec": {
            "schedulingGates": [{"name": "testbed.dev/host-process"}],
            "serviceAccountName": "gatekeeper-admin",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "manager",
                    "image": "openpolicyagent/gatekeeper",
                    # The namespace enforces the "restricted" Pod Security Standard.
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
