"""The mirror: what is taken from it, what is refused."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testbed.errors import TestbedError, UsageError
from testbed.toolchain import Mirror
from testbed.toolchain.export import fill_mirror

if TYPE_CHECKING:
    from conftest import Workshop


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and logs nothing; `cut` gives only the first bytes of every file and closes."""

    cut = 0

    def log_message(self, format: str, *args: object) -> None:
        pass

    def copyfile(self, source: object, outputfile: object) -> None:
        if not self.cut:
            super().copyfile(source, outputfile)  # type: ignore[type-var]
        else:
            outputfile.write(source.read(self.cut))  # type: ignore[attr-defined]


class Filled:
    """A mirror with `tiny`, and a cache that is empty again."""

    def __init__(self, shop: Workshop, folder: Path) -> None:
        self.shop = shop
        self.folder = folder
        self.pin = self.fill()
        shop.toolchain().clean()

    def fill(self) -> str:
        toolchain = self.shop.toolchain()
        toolchain.ensure(["tiny"])
        (tool,) = toolchain.tools()
        entry = toolchain.entry(tool)
        assert entry
        return fill_mirror(self.folder, [(tool, entry)])

    def fetch(self, address: str, pin: str | None = None) -> str:
        """What the tool says that this mirror gave."""
        toolchain = self.shop.toolchain(Mirror(address, pin))
        binary = toolchain.ensure(["tiny"])["tiny"]
        assert toolchain.status()[0].source == "mirrored"
        assert (toolchain.assets("tiny") / "deploy" / "manifest.yaml").is_file()
        return subprocess.run([binary], capture_output=True, text=True, check=True).stderr

    def refused(self, match: str, address: str, pin: str | None = None) -> TestbedError:
        with pytest.raises(TestbedError, match=match) as caught:
            self.fetch(address, pin)
        assert caught.value.fix
        assert self.shop.entries() == []
        return caught.value

    def binary(self) -> Path:
        """The mirror's file of the binary."""
        (tool,) = json.loads((self.folder / "index.json").read_text())["tools"]
        return self.folder / "files" / tool["files"]["bin/tiny"]["sha256"]


@pytest.fixture
def filled(workshop: Workshop, tmp_path: Path) -> Filled:
    return Filled(workshop, tmp_path / "mirror")


@pytest.fixture
def served(filled: Filled) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(filled.folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_tool_comes_from_a_folder_without_any_go(filled: Filled, only_on_path: Callable[..., Path]) -> None:
    only_on_path()
    assert filled.fetch(str(filled.folder)) == "v1.2.3 42\n"


def test_a_tool_comes_from_a_file_url_with_a_pin(filled: Filled) -> None:
    assert filled.fetch(filled.folder.as_uri(), filled.pin) == "v1.2.3 42\n"


def test_a_tool_comes_over_http(filled: Filled, served: str) -> None:
    assert filled.fetch(served) == "v1.2.3 42\n"


def test_the_environment_names_the_mirror(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTBED_MIRROR", str(filled.folder))
    monkeypatch.setenv("TESTBED_MIRROR_SHA256", filled.pin)
    filled.shop.toolchain().ensure(["tiny"])
    assert filled.shop.toolchain().status()[0].source == "mirrored"


def test_a_pin_goes_on_to_hold_when_the_mirror_is_filled_again(filled: Filled) -> None:
    filled.shop.write_tool("v1.2.4")
    assert filled.fill() != filled.pin
    filled.shop.write_tool("v1.2.3")
    filled.shop.toolchain().clean()
    assert filled.fetch(str(filled.folder), filled.pin) == "v1.2.3 42\n"


def test_a_tool_of_another_lock_is_built_not_taken(filled: Filled) -> None:
    filled.shop.write_tool("v1.2.4")
    toolchain = filled.shop.toolchain(Mirror(str(filled.folder)))
    toolchain.ensure(["tiny"])
    assert toolchain.status()[0].source == "cached"


def test_what_came_without_a_pin_is_not_used_with_one(filled: Filled) -> None:
    filled.fetch(str(filled.folder))
    assert filled.shop.toolchain(Mirror(str(filled.folder), filled.pin)).status()[0].source == "missing"
    filled.fetch(str(filled.folder), filled.pin)


def test_another_index_than_the_pinned_one(filled: Filled) -> None:
    name = f"index-{filled.pin}.json"
    index = json.loads((filled.folder / name).read_text())
    (filled.folder / name).write_text(json.dumps(index))
    filled.refused("gives a wrong index-", str(filled.folder), filled.pin)


def test_a_pin_that_the_mirror_never_had(filled: Filled) -> None:
    error = filled.refused("does not give index-", str(filled.folder), "0" * 64)
    assert "TESTBED_MIRROR_SHA256" in error.fix


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1] + b"?", lambda raw: raw[:-1], lambda raw: raw + b"?"])
def test_a_changed_file_is_never_used(filled: Filled, served: str, damage: Callable[[bytes], bytes]) -> None:
    path = filled.binary()
    path.write_bytes(damage(path.read_bytes()))
    for address in (str(filled.folder), served):
        filled.refused("the mirror gives a wrong files/", address)


def test_a_transfer_that_is_cut(filled: Filled, served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Quiet, "cut", 100)
    filled.refused("the mirror does not give index.json", served)


@pytest.mark.parametrize(
    "index",
    ["{", "[]", '{"format": 2, "tools": []}', '{"tools": [{"name": "tiny"}]}'],
)
def test_an_index_that_is_none(filled: Filled, index: str) -> None:
    (filled.folder / "index.json").write_text(index)
    filled.refused("the mirror gives a wrong index.json", str(filled.folder))


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "bin/../../evil", "entry.json"])
def test_an_index_with_a_path_out_of_the_entry(filled: Filled, name: str) -> None:
    path = filled.folder / "index.json"
    index = json.loads(path.read_text())
    index["tools"][0]["files"][name] = {"sha256": hashlib.sha256(b"").hexdigest(), "size": 0}
    path.write_text(json.dumps(index))
    assert "no path of an entry" in filled.refused("gives a wrong index.json", str(filled.folder)).why


def test_a_mirror_that_is_not_there_is_an_error_not_a_build(filled: Filled, tmp_path: Path) -> None:
    for address in (str(tmp_path / "nowhere"), "http://127.0.0.1:1"):
        error = filled.refused("the mirror does not give index.json", address)
        assert address in error.why
        assert "unset it to build from sources" in error.fix


@pytest.mark.parametrize(
    ("address", "pin", "words"),
    [
        ("http://mirror.invalid/tools", None, "plain http must be pinned"),
        ("ftp://mirror.invalid/tools", None, "no 'ftp' here"),
        ("https://mirror.invalid:port/", None, "is no address"),
        ("https://mirror.invalid/", "abc", "is no digest"),
    ],
)
def test_refused_addresses(address: str, pin: str | None, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Mirror(address, pin)


def test_credentials_of_the_address_are_not_shown() -> None:
    mirror = Mirror("https://user:geheim@mirror.invalid:8443/tools/")
    assert mirror.describe() == "https://mirror.invalid:8443/tools (not pinned: trusted as a whole)"


def test_a_damaged_tool_is_not_given_to_others(workshop: Workshop, tmp_path: Path) -> None:
    toolchain = workshop.toolchain()
    binary = toolchain.ensure(["tiny"])["tiny"]
    binary.write_bytes(binary.read_bytes() + b"?")
    (tool,) = toolchain.tools()
    entry = toolchain.entry(tool)
    assert entry
    with pytest.raises(TestbedError, match="tiny in the cache is damaged"):
        fill_mirror(tmp_path / "mirror", [(tool, entry)])


def test_a_mirror_folder_that_cannot_be_written(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        fill_mirror(tmp_path / "file" / "below", [])
