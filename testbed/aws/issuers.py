"""Issuers of web identity tokens: GitHub Actions and the clusters' service accounts, with keys of the run's own."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

GITHUB = "https://token.actions.githubusercontent.com"
AUDIENCE = "sts.amazonaws.com"


class Issuer:
    """Signs tokens for one issuer URL; its public key is published for the emulated STS.

    Args:
        url: The issuer, as it stands in the tokens and in the account's OIDC provider.
        folder: Where the emulation looks for keys; None to publish nowhere (a forger).
    """

    def __init__(self, url: str, folder: Path | None) -> None:
        self.url = url
        self.kid = hashlib.sha256(url.encode()).hexdigest()[:16]
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        if folder is not None:
            public = json.loads(RSAAlgorithm.to_jwk(self._key.public_key())) | {"kid": self.kid, "use": "sig"}
            part = folder / f"{self.kid}.part"
            part.write_text(json.dumps({"issuer": url, "jwks": {"keys": [public | {"alg": "RS256"}]}}))
            part.replace(folder / f"{self.kid}.json")

    def token(self, subject: str, *, audience: str = AUDIENCE, lifetime: float = 900, **claims: Any) -> str:
        """A signed token; `lifetime` in seconds, negative for one that has expired."""
        now = time.time()
        body = {"iss": self.url, "sub": subject, "aud": audience, "iat": int(min(now, now + lifetime)) - 1}
        body |= {"exp": int(now + lifetime), **claims}
        return jwt.encode(body, self._key, algorithm="RS256", headers={"kid": self.kid})


def github_subject(repository: str, branch: str = "main") -> str:
    """The subject of a workflow's token on a branch."""
    return f"repo:{repository}:ref:refs/heads/{branch}"


def service_account_subject(namespace: str, name: str) -> str:
    """The subject of a pod's projected token."""
    return f"system:serviceaccount:{namespace}:{name}"
