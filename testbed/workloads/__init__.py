"""Pods of known images as processes of this machine; the faults that a release can have."""

STATE = "state.json"
"""In the agent's folder: process id, address block and how limits are minded; written when it knows every pod."""
