"""Who may do what on the git server: accounts in a private file that the server reads."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from testbed.cluster.pki import write_private


class Account(BaseModel):
    """One account."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    token_sha256: str
    write: bool = False
    """Whether it may push."""


_ACCOUNTS = TypeAdapter(list[Account])


def new_account(name: str, *, write: bool) -> tuple[Account, str]:
    """An account and its token, which is stored nowhere."""
    token = secrets.token_urlsafe(24)
    return Account(name=name, token_sha256=_digest(token), write=write), token


def save_accounts(path: Path, accounts: list[Account]) -> None:
    """Write the file (0600)."""
    write_private(path, _ACCOUNTS.dump_json(accounts, indent=1))


def load_accounts(path: Path) -> list[Account]:
    """Read the file."""
    return _ACCOUNTS.validate_json(path.read_bytes())


def authenticate(accounts: list[Account], authorization: str) -> Account | None:
    """The account of an `Authorization: Basic ...` header, or None when name or token is wrong."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, token = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    digest = _digest(token)
    for account in accounts:
        if account.name == name and hmac.compare_digest(account.token_sha256, digest):
            return account
    return None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
