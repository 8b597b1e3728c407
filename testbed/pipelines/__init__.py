"""CI pipelines: GitHub Actions workflows, executed step by step on this machine by act.

runner      runs a workflow of a repository as a push to GitHub would
tokens      GitHub's endpoint for OIDC tokens
registry    an OCI registry in the place of ECR's
actions/    what stands for the actions that a workflow `uses`
"""
