"""CanaryPolicy: a service's SLO becomes a Flagger Canary with the parameters that the platform enforces."""

NAME = "canary-policy"
"""Of the operator: its command, service account, lease and metric label."""
