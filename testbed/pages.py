"""Pages that components serve about themselves: /healthz, /readyz, /metrics."""

from __future__ import annotations

import http.client

NOT_SERVED = (OSError, http.client.HTTPException)
"""What asking for a page raises while nobody serves it."""


def page(host: str, port: int, path: str, *, timeout: float = 2) -> tuple[int, str]:
    """Status and text of a page; raises what `NOT_SERVED` names."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
