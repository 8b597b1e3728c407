"""The Kubernetes API as scenarios use it: apply, get, delete, and wait."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import DynamicApiError, NotFoundError
from kubernetes.dynamic.resource import ResourceList

from testbed.errors import TestbedError
from testbed.wait import wait_until

Manifest = dict[str, Any]
FIELD_MANAGER = "testbed"

NOT_YET = (DynamicApiError, ApiException, urllib3.exceptions.HTTPError, OSError)
"""What an API server that is starting, restarting or behind a failing webhook answers with."""


class Refused(TestbedError):
    """The API server refused a request; `reason` is its message."""

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what, why=why, fix=fix)
        self.reason = why


def load_manifests(path: Path) -> list[Manifest]:
    """The objects in a YAML file, or in all `*.yaml` files below a folder, in order of their names.

    Raises:
        TestbedError: A file is not YAML, or holds something that is no Kubernetes object.
    """
    files = sorted(path.rglob("*.yaml")) if path.is_dir() else [path]
    manifests: list[Manifest] = []
    for file in files:
        try:
            documents = [document for document in yaml.safe_load_all(file.read_text()) if document]
        except (OSError, yaml.YAMLError) as error:
            raise TestbedError(f"{file} cannot be read", why=str(error), fix="correct the file") from None
        for document in documents:
            if not isinstance(document, dict) or not {"apiVersion", "kind", "metadata"} <= document.keys():
                raise TestbedError(f"{file} holds no Kubernetes object", why=str(document)[:80], fix="correct the file")
            manifests.append(document)
    return manifests


def describe(manifest: Mapping[str, Any]) -> str:
    """'Deployment shop/checkout', for messages."""
    metadata = manifest.get("metadata", {})
    namespace = metadata.get("namespace")
    return f"{manifest.get('kind')} {namespace + '/' if namespace else ''}{metadata.get('name')}"


class KubeClient:
    """One cluster's API by one kubeconfig. Use one per thread."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.api: client.ApiClient = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
        # A dead API server is the caller's business to wait for, not urllib3's to retry in silence.
        self.api.rest_client.pool_manager.connection_pool_kw["retries"] = False
        self._dynamic: DynamicClient | None = None

    def _resource(self, kind: str, api_version: str | None) -> Any:
        if self._dynamic is None:
            # Its own file: the library writes it in place, and a reader of half of it would log an error.
            own = f".discovery-{os.getpid()}-{threading.get_ident()}"
            self._dynamic = DynamicClient(self.api, cache_file=str(self.kubeconfig.with_suffix(own)))  # type: ignore[no-untyped-call]
        query = {"kind": kind}
        if api_version:
            # With the prefix, so that no other group is asked: one whose CRDs were just removed answers 404.
            group, _, version = api_version.rpartition("/")
            query |= {"prefix": "apis" if group else "api", "group": group, "api_version": version}
        return self._dynamic.resources.get(**query)

    def ready(self) -> bool:
        """True when /readyz answers ok. For kubeconfigs with a client certificate."""
        pool: urllib3.PoolManager = self.api.rest_client.pool_manager
        answer = pool.request("GET", f"{self.api.configuration.host}/readyz", timeout=2, retries=False)
        return answer.status == 200

    def pod_page(self, namespace: str, pod: str, port: int, path: str) -> tuple[int, str]:
        """Status and text of a page that a pod serves, through the API server. For the administrator's kubeconfig."""
        pool: urllib3.PoolManager = self.api.rest_client.pool_manager
        where = f"{self.api.configuration.host}/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}"
        answer = pool.request("GET", where, timeout=5, retries=False)
        return answer.status, answer.data.decode()

    def pod_log(self, namespace: str, pod: str, *, previous: bool = False, lines: int = 10) -> str:
        """The end of a pod's log (of the container that ran before, with `previous`), or why there is none."""
        try:
            return str(
                client.CoreV1Api(self.api).read_namespaced_pod_log(pod, namespace, previous=previous, tail_lines=lines)
            )
        except ApiException as error:
            return f"no log: {error.reason}"

    def apply(self, manifest: Manifest, *, namespace: str | None = None, dry_run: bool = False) -> Manifest:
        """Server-side apply one object; returns it as stored.

        Raises:
            Refused: Admission or validation said no; `.reason` has the server's words.
        """
        resource = self._resource(manifest["kind"], manifest["apiVersion"])
        if not resource.namespaced:
            namespace = None
        elif namespace is None:
            namespace = manifest["metadata"].get("namespace", "default")
        extra = {"dry_run": "All"} if dry_run else {}
        try:
            stored = resource.server_side_apply(
                body=manifest,
                name=manifest["metadata"]["name"],
                namespace=namespace,
                field_manager=FIELD_MANAGER,
                force_conflicts=True,
                **extra,
            )
        except DynamicApiError as error:
            if is_refusal(error):
                raise refused(manifest, error) from None
            raise
        result: Manifest = stored.to_dict()
        return result

    def create(self, manifest: Manifest, *, namespace: str | None = None, dry_run: bool = False) -> Manifest:
        """Create one object, as `kubectl create` does; `Refused` as in `apply`."""
        resource = self._resource(manifest["kind"], manifest["apiVersion"])
        extra = {"dry_run": "All"} if dry_run else {}
        try:
            stored = resource.create(body=manifest, namespace=namespace if resource.namespaced else None, **extra)
        except DynamicApiError as error:
            if is_refusal(error):
                raise refused(manifest, error) from None
            raise
        result: Manifest = stored.to_dict()
        return result

    def apply_all(self, manifests: Iterable[Manifest], *, namespace: str | None = None) -> None:
        """Apply objects in their order."""
        for manifest in manifests:
            self.apply(manifest, namespace=namespace)

    def get(
        self, kind: str, name: str, *, namespace: str | None = None, api_version: str | None = None
    ) -> Manifest | None:
        """One object, or None where there is none."""
        try:
            found = self._resource(kind, api_version).get(name=name, namespace=namespace)
        except NotFoundError:
            return None
        result: Manifest = found.to_dict()
        return result

    def list(
        self, kind: str, *, namespace: str | None = None, api_version: str | None = None, selector: str = ""
    ) -> list[Manifest]:
        """Objects of a kind, in one namespace or in all."""
        found = self._resource(kind, api_version).get(namespace=namespace, label_selector=selector)
        items: list[Manifest] = found.to_dict()["items"]
        return items

    def acting_as(self, user: str, group: str) -> KubeClient:
        """The same API as a user of one group sees it: the API server decides by that user's rights (impersonation)."""
        other = KubeClient(self.kubeconfig)
        other.api.set_default_header("Impersonate-User", user)  # type: ignore[no-untyped-call]
        other.api.set_default_header("Impersonate-Group", group)  # type: ignore[no-untyped-call]
        return other

    def allowed(
        self, user: str, group: str, verb: str, resource: str, api_group: str = "", namespace: str = ""
    ) -> bool:
        """Whether a user of one group may do something, by the API server's own SubjectAccessReview."""
        attributes = {"verb": verb, "resource": resource, "group": api_group, "namespace": namespace}
        spec = {"user": user, "groups": [group, "system:authenticated"], "resourceAttributes": attributes}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": spec}
        return bool(self.create(review)["status"]["allowed"])

    def watch(self, kind: str, *, api_version: str, timeout: int) -> Iterator[tuple[str, Manifest]]:
        """Changes of a kind in all namespaces, beginning with what is there; ends after `timeout` seconds."""
        for event in self._resource(kind, api_version).watch(timeout=timeout):
            yield str(event["type"]), event["raw_object"]

    def request_counts(self, verbs: Iterable[str]) -> dict[str, float]:
        """How many requests with these verbs the API server has served since its start, by resource.

        Its own metric `apiserver_request_total`; requests to subresources are counted as `resource/subresource`.
        """
        from prometheus_client.parser import text_string_to_metric_families  # only who counts pays for it

        pool: urllib3.PoolManager = self.api.rest_client.pool_manager
        headers = dict(self.api.default_headers)
        answer = pool.request("GET", f"{self.api.configuration.host}/metrics", headers=headers, timeout=10)
        wanted, counts = set(verbs), defaultdict[str, float](float)
        for family in text_string_to_metric_families(answer.data.decode()):
            if family.name != "apiserver_request":
                continue
            for sample in family.samples:
                labels = sample.labels
                if labels.get("verb") in wanted:
                    counts[f"{labels['resource']}/{labels['subresource']}".rstrip("/")] += sample.value
        return dict(counts)

    def everything_in(self, namespace: str) -> dict[str, Any]:
        """Every object in a namespace, by resource, as evidence; secrets only by name."""
        return self._objects(lambda resource: bool(resource.namespaced), namespace=namespace)

    def custom_resources(self) -> dict[str, Any]:
        """Every object of every group that is not Kubernetes' own, by resource, as evidence."""
        return self._objects(lambda resource: "." in resource.group and not resource.group.endswith(".k8s.io"))

    def _objects(self, wanted: Callable[[Any], bool], **where: str) -> dict[str, Any]:
        self._resource("Namespace", "v1")  # discovers
        found: dict[str, Any] = {}
        for resource in self._dynamic.resources.search() if self._dynamic else []:
            if isinstance(resource, ResourceList):  # the search finds a ResourceList beside each
                continue
            if not (wanted(resource) and resource.preferred and "list" in (resource.verbs or [])):
                continue
            try:
                items = resource.get(**where).to_dict()["items"]
            except (DynamicApiError, ApiException):
                continue
            if items:
                secret = resource.kind == "Secret"
                found[f"{resource.group or 'core'}/{resource.kind}"] = (
                    [item["metadata"]["name"] for item in items] if secret else items
                )
        return found

    def delete(self, kind: str, name: str, *, namespace: str | None = None, api_version: str | None = None) -> None:
        """Delete one object; fine if it is not there. Does not wait for finalizers."""
        try:
            self._resource(kind, api_version).delete(name=name, namespace=namespace)
        except NotFoundError:
            return

    def update_status(self, manifest: Manifest) -> None:
        """Merge-patch the status subresource of an object."""
        self._resource(manifest["kind"], manifest["apiVersion"]).status.patch(
            name=manifest["metadata"]["name"],
            namespace=manifest["metadata"].get("namespace"),
            body={"status": manifest["status"]},
            content_type="application/merge-patch+json",
        )

    def merge(self, manifest: Manifest, change: Manifest) -> None:
        """Merge-patch an object."""
        self._resource(manifest["kind"], manifest["apiVersion"]).patch(
            name=manifest["metadata"]["name"],
            namespace=manifest["metadata"].get("namespace"),
            body=change,
            content_type="application/merge-patch+json",
        )

    def token(self, namespace: str, service_account: str, seconds: int = 30 * 24 * 3600) -> str:
        """A token for a service account from the TokenRequest API."""
        request = client.AuthenticationV1TokenRequest(
            spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=seconds)
        )
        answer = client.CoreV1Api(self.api).create_namespaced_service_account_token(service_account, namespace, request)
        if answer.status is None:
            raise TestbedError(f"no token for {namespace}/{service_account}", fix="look at the API server's log")
        return str(answer.status.token)

    def wait_crds(self, names: Iterable[str], *, timeout: float) -> None:
        """Wait until CustomResourceDefinitions are established."""
        wanted = set(names)

        def missing() -> tuple[bool, object]:
            established = {
                crd["metadata"]["name"]
                for crd in self.list("CustomResourceDefinition", api_version="apiextensions.k8s.io/v1")
                for condition in crd.get("status", {}).get("conditions") or []
                if condition["type"] == "Established" and condition["status"] == "True"
            }
            return wanted <= established, f"not established: {', '.join(sorted(wanted - established))}"

        wait_until("the CRDs are established", missing, timeout=timeout, retry_on=NOT_YET)


def is_refusal(error: DynamicApiError) -> bool:
    """Whether the server said no, also for want of a webhook that fails closed (it answers 500 then)."""
    return error.status in {400, 403, 409, 422} or (error.status == 500 and "failed calling webhook" in str(error.body))


def refused(manifest: Mapping[str, Any], error: DynamicApiError) -> Refused:
    """The server's refusal as our error."""
    try:
        message = str(yaml.safe_load(error.body or "")["message"])
    except (yaml.YAMLError, KeyError, TypeError):
        message = str(error)
    return Refused(f"{describe(manifest)} was refused", why=message, fix="change the manifest as the reason says")
