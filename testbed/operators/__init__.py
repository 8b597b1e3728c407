"""The platform's two operators, TenantWorkspace and CanaryPolicy, on kopf.

The same code runs as a supervised process beside the embedded cluster and as an image on a real one
(`python -m testbed.operators`). kopf watches, serves the webhooks and authenticates; what it hears goes into a store
and a work queue, and a reconciler compares what should be with what is. kopf's own change handlers are not used: they
keep their progress in annotations of the resource, which writes on every change, and they do not see children.
"""
