"""Pods of known images as processes of this machine; the faults that a release can have."""

STATE = "state.json"
"""In the agent's folder: its process id and address block, written when it knows every pod."""
