"""Tokens for `AssumeRoleWithWebIdentity`, checked with PyJWT: signature, issuer, audience, time.

AWS fetches an issuer's keys from its discovery document. Here they are files: `<folder>/<name>.json` with `issuer` (the
URL) and `jwks` (a JSON Web Key Set). They stand for GitHub's and the clusters' issuers, which are not on this machine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt


class InvalidToken(Exception):
    """The token is not one that AWS would accept."""


class WebIdentities:
    """Verifies tokens against the OIDC providers of an account.

    Args:
        issuers: The folder with the keys.
    """

    def __init__(self, issuers: Path) -> None:
        self.issuers = issuers

    def verify(self, token: str, providers: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        """Check a token; returns the provider's ARN, the issuer's URL and the claims.

        Args:
            token: The JWT.
            providers: The account's OIDC providers by ARN, as moto keeps them.

        Raises:
            InvalidToken: With AWS's words for the reason where it has some.
        """
        try:
            header = jwt.get_unverified_header(token)
            issuer = str(jwt.decode(token, options={"verify_signature": False}).get("iss", ""))
        except jwt.PyJWTError as error:
            raise InvalidToken(f"The ID Token provided is not a valid JWT: {error}") from None
        found = next((item for item in providers.items() if _url(item[1].url) == _url(issuer)), None)
        if found is None:
            raise InvalidToken("No OpenIDConnect provider found in your account for " + issuer)
        arn, provider = found
        try:
            claims = jwt.decode(
                token,
                self._key(issuer, header.get("kid", "")),
                algorithms=["RS256", "ES256"],
                audience=list(provider.client_id_list),
                issuer=issuer,
                options={"require": ["exp", "iat", "aud", "iss", "sub"]},
            )
        except jwt.InvalidAudienceError:
            raise InvalidToken("Incorrect token audience") from None
        except jwt.ExpiredSignatureError:
            raise InvalidToken("Token is expired") from None
        except jwt.PyJWTError as error:
            raise InvalidToken(f"Couldn't verify the token: {error}") from None
        return arn, "https://" + _url(issuer), claims

    def _key(self, issuer: str, kid: str) -> Any:
        for path in self.issuers.glob("*.json"):
            known = json.loads(path.read_text())
            if _url(known["issuer"]) != _url(issuer):
                continue
            for key in jwt.PyJWKSet.from_dict(known["jwks"]).keys:
                if key.key_id == kid:
                    return key
            raise InvalidToken("Couldn't retrieve verification key from your identity provider")
        raise InvalidToken(f"Couldn't retrieve verification key: no keys are known for {issuer}")


def _url(text: str) -> str:
    return text.removeprefix("https://").rstrip("/")
