"""A mirror: ready tools that a team or a CI shares, so that not every machine builds them.

`TESTBED_MIRROR` is a folder or a URL (file, http, https). Below it:

    index.json             the tools: name, version, digest of the lock, platform, Go that built it, files with sha256
    index-SHA256.json      the same by its own digest; stays when the mirror is filled again, so that pins go on to hold
    files/SHA256           every file by its digest: a file never changes, an old index never breaks

`testbed tools mirror FOLDER` fills it and prints the digest of the index.

**Where the trust comes from.** A tool is used only if the mirror has it for the very lock (every module version and
sum, flags, stamps) and platform, and only if each file has the sha256 that the index records. That finds damage, not
malice: who can write to the mirror can write a new index as well. So the index itself is pinned:
`TESTBED_MIRROR_SHA256`, kept where the mirror's writers cannot change it (the CI's configuration under review, say).
Without a pin the mirror is trusted as a whole, `testbed tools list` and `testbed doctor` say so, and over plain http it
is refused. What was fetched without a pin is not used once a pin is set. Builds are reproducible (trimmed paths, no
cgo, pinned flags): the same Go gives the recorded sha256 on any machine, which is how a pin can be checked.

**When it fails.** What the mirror lacks is built. A mirror that does not answer, or answers with something wrong, is an
error and never a silent build: somebody configured it, and a build of half an hour in its stead would hide that.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import ipaddress
import os
import platform
import sys
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal, NoReturn
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from pydantic import BaseModel, Field, StringConstraints, ValidationError, field_validator

from testbed.errors import TestbedError, UsageError
from testbed.toolchain.lock import Tool

if TYPE_CHECKING:
    import urllib3

PLATFORM = f"{sys.platform}-{platform.machine()}"
ATTEMPTS = 3
CHUNK = 1 << 20
_LARGEST_INDEX = 64 * 1024**2

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Progress = Callable[[int, int], None]
"""Hears the bytes fetched so far and in all."""


class MirroredFile(BaseModel):
    """One file of a tool."""

    sha256: Sha256
    size: int = Field(ge=0)


class MirroredTool(BaseModel):
    """One tool of a mirror."""

    name: str
    version: str
    lock: Sha256
    platform: str
    go: str
    seconds: float
    """How long its build took where it was built."""
    files: dict[str, MirroredFile]
    """By path in the entry: bin/NAME and assets/..."""

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, MirroredFile]) -> dict[str, MirroredFile]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or path.parts[:1] not in {("bin",), ("assets",)}:
                raise ValueError(f"{name} is no path of an entry")
        return files


class MirrorIndex(BaseModel):
    """`index.json`."""

    format: Literal[1] = 1
    tools: list[MirroredTool] = []


class Mirror:
    """A mirror to read from.

    Args:
        address: A folder or a URL.
        pin: The sha256 that its index must have.

    Raises:
        UsageError: The address or the pin is none, or plain http without a pin.
    """

    def __init__(self, address: str, pin: str | None = None) -> None:
        self.pin = pin
        try:
            parts = urlsplit(address)
            port = parts.port
        except ValueError as error:
            raise UsageError("TESTBED_MIRROR is no address", why=str(error), fix="correct it") from None
        if pin is not None and (len(pin) != 64 or set(pin) - set("0123456789abcdef")):
            raise UsageError(
                "TESTBED_MIRROR_SHA256 is no digest", why=pin, fix="set it to what `testbed tools mirror` printed"
            )
        if "://" in address and parts.scheme not in {"file", "http", "https"}:
            raise UsageError(f"TESTBED_MIRROR: no {parts.scheme!r} here", fix="use a folder, file://, http(s)://")
        self._folder: Path | None = None
        self._base = address.rstrip("/")
        self._auth: str | None = None
        if "://" not in address or parts.scheme == "file":
            self._folder = Path(unquote(parts.path) if parts.scheme == "file" else address).expanduser()
            self.shown = str(self._folder)
            return
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        netloc = f"{host}:{port}" if port else host
        self._base = parts._replace(netloc=netloc, query="", fragment="").geturl().rstrip("/")
        if parts.username is not None:
            self._auth = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        self.shown = self._base
        """The address without credentials."""
        if parts.scheme == "http" and pin is None and not _is_loopback(parts.hostname or ""):
            raise UsageError(
                "a mirror over plain http must be pinned",
                why=f"anybody on the way to {self.shown} could give you other binaries",
                fix="set TESTBED_MIRROR_SHA256 to what `testbed tools mirror` printed, or use https",
            )

    @classmethod
    def from_environment(cls) -> Mirror | None:
        """The mirror that TESTBED_MIRROR names, or None."""
        address = os.environ.get("TESTBED_MIRROR")
        return cls(address, os.environ.get("TESTBED_MIRROR_SHA256") or None) if address else None

    def describe(self) -> str:
        """Where it is and how far it is trusted."""
        trust = f"pinned to {self.pin[:12]}…" if self.pin else "not pinned: trusted as a whole"
        return f"{self.shown} ({trust})"

    @cached_property
    def index(self) -> MirrorIndex:
        """The index, read once and checked against the pin.

        Raises:
            TestbedError: It cannot be read, or is not the pinned one.
        """
        name = f"index-{self.pin}.json" if self.pin else "index.json"
        content = io.BytesIO()
        digest = self._download(name, _LARGEST_INDEX, content, lambda _: None)
        if self.pin not in {None, digest}:
            raise self._wrong(name, f"sha256 {self.pin} is pinned, {digest} was found")
        try:
            return MirrorIndex.model_validate_json(content.getvalue())
        except ValidationError as error:
            raise self._wrong(name, str(error)) from None

    def find(self, tool: Tool) -> MirroredTool | None:
        """What the mirror has for this lock and platform, or None."""
        wanted = (tool.name, tool.digest(), PLATFORM)
        for found in self.index.tools:
            if (found.name, found.lock, found.platform) == wanted and f"bin/{tool.name}" in found.files:
                return found
        return None

    def fetch(self, found: MirroredTool, target: Path, progress: Progress) -> None:
        """Write the files of a tool below `target`.

        Raises:
            TestbedError: A file cannot be read, or does not have its recorded sha256.
        """
        total = sum(file.size for file in found.files.values())
        done = 0
        for name, file in found.files.items():
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            advance = partial(_advance, progress, done, total)
            with path.open("wb") as written:
                digest = self._download(f"files/{file.sha256}", file.size, written, advance)
            done += file.size
            if digest != file.sha256:
                raise self._wrong(
                    f"files/{file.sha256}",
                    f"it is to be {name} of {found.name} {found.version}, {file.size} bytes; "
                    f"{path.stat().st_size} bytes with sha256 {digest} came",
                )
            path.chmod(0o755 if name.startswith("bin/") else 0o644)

    def _download(self, name: str, limit: int, target: BinaryIO, progress: Callable[[int], None]) -> str:
        """Write a file of the mirror to `target`; returns its sha256. Starts again when a transfer breaks."""
        for attempt in range(1, ATTEMPTS + 1):
            target.seek(0)
            target.truncate()
            digest = hashlib.sha256()
            try:
                for chunk in self._chunks(name, limit):
                    target.write(chunk)
                    digest.update(chunk)
                    progress(target.tell())
                break
            except _Broken as broken:
                if attempt == ATTEMPTS:
                    self._unreachable(name, broken)
        return digest.hexdigest()

    def _chunks(self, name: str, limit: int) -> Iterator[bytes]:
        """The bytes of a file of the mirror, at most `limit` + 1 of them: a longer one has a wrong sum by then."""
        left = limit + 1
        with self._open(name) as read:
            while left > 0 and (chunk := read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[Callable[[int], bytes]]:
        if self._folder is not None:
            try:
                with (self._folder / name).open("rb") as local:
                    yield local.read
            except OSError as error:
                self._unreachable(name, error.strerror or error)
            return
        # Only who has a mirror pays for the import.
        import urllib3

        retries = urllib3.Retry(total=ATTEMPTS, backoff_factor=0.3, status_forcelist=(429, 502, 503, 504))
        timeout = urllib3.Timeout(connect=10, read=60)
        headers = urllib3.make_headers(basic_auth=self._auth, user_agent="testbed")
        with pool_for(self._base) as pool:
            try:
                answer = pool.request(
                    "GET",
                    f"{self._base}/{name}",
                    headers=headers,
                    preload_content=False,
                    retries=retries,
                    timeout=timeout,
                )
            except urllib3.exceptions.HTTPError as error:
                self._unreachable(name, getattr(error, "reason", None) or error)
            if answer.status != 200:
                self._unreachable(name, f"it answered {answer.status} {answer.reason or ''}".rstrip())
            try:
                yield answer.read
            except urllib3.exceptions.HTTPError as error:
                raise _Broken(str(error)) from None
            finally:
                answer.release_conn()

    def _unreachable(self, name: str, cause: object) -> NoReturn:
        hint = "fill it with `testbed tools mirror`, correct TESTBED_MIRROR, or unset it to build from sources"
        if self.pin and name.startswith("index-"):
            hint = f"check TESTBED_MIRROR_SHA256: the mirror may never have had that index; else {hint}"
        raise TestbedError(f"the mirror does not give {name}", why=f"{self.shown}: {cause}", fix=hint) from None

    def _wrong(self, name: str, cause: str) -> TestbedError:
        return TestbedError(
            f"the mirror gives a wrong {name}",
            why=f"{self.shown}: {cause}",
            fix="do not use this mirror until you know who changed it; fill a new one with `testbed tools mirror`, "
            "or unset TESTBED_MIRROR to build from sources",
        )


def pool_for(address: str) -> urllib3.PoolManager:
    """Connections to the host of a URL, through the proxy that the environment names for it, if any."""
    import urllib3

    parts = urlsplit(address)
    host = parts.hostname or ""
    proxy = None if proxy_bypass(host) or _is_loopback(host) else getproxies().get(parts.scheme)
    return urllib3.ProxyManager(proxy) if proxy else urllib3.PoolManager()


def _advance(progress: Progress, before: int, total: int, got: int) -> None:
    progress(before + got, total)


class _Broken(Exception):
    """A transfer that stopped in the middle."""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
