"""GitHub's endpoint for OIDC tokens, on loopback: who asks with a run's own bearer gets a token that names the run."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from testbed.aws.issuers import Issuer
from testbed.ports import LOOPBACK


class TokenEndpoint:
    """Serves tokens of one run. `requests` counts those that were given out.

    Args:
        issuer: Signs them.
        subject: The `sub` of the run's tokens.
        claims: The others.
    """

    def __init__(self, issuer: Issuer, subject: str, claims: dict[str, Any]) -> None:
        self._issuer = issuer
        self._subject = subject
        self._claims = claims
        self._bearer = secrets.token_urlsafe(24)
        self.requests = 0

    @contextlib.contextmanager
    def serving(self) -> Iterator[dict[str, str]]:
        """Serve for a while; gives the variables by which a job finds it."""
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                """Answer one request."""
                status, body = endpoint.answer(self.path, self.headers.get("Authorization", ""))
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nothing: a log of tokens helps nobody."""

        with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
            thread.start()
            try:
                yield {
                    "ACTIONS_ID_TOKEN_REQUEST_URL": f"http://{LOOPBACK}:{server.server_port}/token?api-version=2.0",
                    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": self._bearer,
                }
            finally:
                server.shutdown()
                thread.join()

    def answer(self, path: str, authorization: str) -> tuple[int, dict[str, str]]:
        """Status and body for a request."""
        if not secrets.compare_digest(authorization.lower(), f"bearer {self._bearer}".lower()):
            return 401, {"message": "wrong bearer"}
        audience = parse_qs(urlsplit(path).query).get("audience", [""])[0]
        if not audience:
            return 400, {"message": "no audience"}
        self.requests += 1
        return 200, {"value": self._issuer.token(self._subject, audience=audience, lifetime=300, **self._claims)}
