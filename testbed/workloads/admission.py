"""The objects of the workloads add-on: its rights, and the policy that tells which pods are run as processes."""

from __future__ import annotations

from typing import Any

from testbed.workloads.images import pattern
from testbed.workloads.labels import PROCESS, WORKLOAD

Manifest = dict[str, Any]
USER = "testbed:workloads"
POLICY = "testbed-workloads"
_RBAC = "rbac.authorization.k8s.io"
_ADMISSION = "admissionregistration.k8s.io/v1"


def rights() -> list[Manifest]:
    """What the agent may do: what kubelets do for their pods, and no more."""
    read = ["get", "list", "watch"]
    role = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": USER},
        "rules": [
            {"apiGroups": [""], "resources": ["nodes"], "verbs": read},
            {"apiGroups": [""], "resources": ["pods"], "verbs": [*read, "delete"]},
            {"apiGroups": [""], "resources": ["pods/status", "nodes/status"], "verbs": ["patch"]},
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": read},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
        ],
    }
    binding = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": USER},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": USER},
        "subjects": [{"kind": "User", "name": USER, "apiGroup": _RBAC}],
    }
    return [role, binding]


def policy() -> list[Manifest]:
    """Labels new pods whose images are all known, unless they say themselves who runs them."""
    images = "object.spec.containers.map(c, c.image) + object.spec.?initContainers.orValue([]).map(c, c.image)"
    mutation = f'Object{{metadata: Object.metadata{{labels: {{"{WORKLOAD}": "{PROCESS}"}}}}}}'
    expression = pattern().replace("\\", "\\\\")
    definition = {
        "apiVersion": _ADMISSION,
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": POLICY},
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded",
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                ]
            },
            "matchConditions": [
                {
                    "name": "nobody-chose",
                    "expression": f'!("{WORKLOAD}" in object.metadata.?labels.orValue({{}}))',
                },
                {"name": "images-known", "expression": f'({images}).all(i, i.matches("{expression}"))'},
            ],
            "mutations": [
                {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": mutation}},
            ],
        },
    }
    binding = {
        "apiVersion": _ADMISSION,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": POLICY},
        "spec": {"policyName": POLICY},
    }
    return [definition, binding]
