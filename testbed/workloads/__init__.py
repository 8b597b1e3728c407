"""Pods of known images as processes of this machine; the faults that a release can have."""
