"""The words of the API by which pods, nodes and feature flags are told apart."""

from __future__ import annotations

WORKLOAD = "testbed.dev/workload"
"""Label of a pod that says who runs it. Pods whose images are all known get the value `process` from an admission
policy. Write the value `process` yourself to insist on a process (an unknown image is then an error of the pod), or
`simulated` to leave the pod to the node simulator. Without the
add-on `workloads`, nobody runs a pod that insists."""
PROCESS, SIMULATED = "process", "simulated"
SELECTOR = f"{WORKLOAD}={PROCESS}"
NODE_ANNOTATION = "kwok.x-k8s.io/node"
"""Annotation of nodes that the node simulator keeps alive, value `fake`."""
FLAGS = "testbed.dev/feature-flags"
"""Label of a ConfigMap, value `true`: its keys are the feature flags of its namespace, each `true` or `false`."""
