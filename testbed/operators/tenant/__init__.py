"""TenantWorkspace: a namespace with everything that a team needs in it, from one object."""

NAME = "tenant-workspace"
"""Of the operator: its command, service account, lease and metric label."""
