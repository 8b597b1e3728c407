"""The git server: real git against it, accounts, and the events after a push."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from testbed.errors import TestbedError
from testbed.gitops.accounts import new_account, save_accounts
from testbed.gitops.protected_paths import ProtectedPath, protect
from testbed.gitops.push_events import NOTHING, WEBHOOKS, Webhook, signatures
from testbed.gitops.repository import BRANCH, DEVELOPER, PLATFORM, Repository, make_bare
from testbed.pages import NOT_SERVED, page
from testbed.ports import LOOPBACK, free_ports
from testbed.wait import wait_until

SECRET = "s3cret"  # noqa: S105 - of this test


class Server:
    """A running git server with one repository `shop`, and what its webhook received."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokens = {}
        accounts = []
        for name in ("reader", "writer"):
            account, self.tokens[name] = new_account(name, write=name == "writer")
            accounts.append(account)
        save_accounts(folder / "accounts.json", accounts)
        (folder / "repositories").mkdir()
        make_bare(folder / "repositories" / "shop.git")
        self.received: Queue[tuple[dict[str, str], bytes]] = Queue()
        self.url = ""

    def repository(self, account: str = "writer", *, token: str | None = None, name: str = "shop") -> Repository:
        """A working copy."""
        folder = self.folder / "clones" / f"{account}-{name}"
        return Repository(f"{self.url}/{name}.git", folder, account, token or self.tokens[account])

    def event(self) -> dict[str, Any]:
        """The next event, whose signature must be right."""
        headers, body = self.received.get(timeout=20)
        assert headers["X-GitHub-Event"] == "push"
        assert headers["X-Hub-Signature-256"] == signatures(SECRET, body)["X-Hub-Signature-256"]
        event: dict[str, Any] = json.loads(body)
        return event


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path)

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.received.put((dict(self.headers), body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    receiver = http.server.ThreadingHTTPServer((LOOPBACK, 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    hook = Webhook(url=f"http://{LOOPBACK}:{receiver.server_port}/hook", secret=SECRET)
    (tmp_path / "webhooks.json").write_bytes(WEBHOOKS.dump_json([hook]))
    (port,) = free_ports(1)
    found.url = f"http://{LOOPBACK}:{port}"
    options = {name: tmp_path / f"{name}.json" for name in ("accounts", "webhooks", "deliveries")}
    options |= {"root": tmp_path / "repositories", "pages": tmp_path / "pages"}
    options["pages"].mkdir()
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    argv = [sys.executable, "-m", "testbed.gitops.git_server", *flags, "--listen", f"{LOOPBACK}:{port}"]
    with subprocess.Popen(argv) as process:
        try:
            wait_until(
                "the git server answers",
                lambda: (page(LOOPBACK, port, "/-/healthy")[0] == 200, process.poll()),
                timeout=30,
                retry_on=NOT_SERVED,
            )
            yield found
        finally:
            process.terminate()
            receiver.shutdown()
            receiver.server_close()


def test_commits_have_their_authors_and_become_events(server: Server) -> None:
    repository = server.repository().clone()
    first = repository.commit("Begin", {"app/values.yaml": "tag: 1\n", "old.txt": "x\n"}, author=PLATFORM)
    made = server.event()
    assert (made["before"], made["after"], made["created"]) == (NOTHING, first, True)
    second = repository.commit("Bump", {"app/values.yaml": "tag: 2\n", "old.txt": None, "new.txt": "n\n"})
    event = server.event()
    assert (event["ref"], event["before"], event["after"]) == ("refs/heads/main", first, second)
    assert event["repository"]["default_branch"] == "main"
    assert event["repository"]["html_url"] == f"{server.url}/shop"
    (commit,) = event["commits"]
    assert (commit["author"]["email"], commit["message"]) == (DEVELOPER.email, "Bump")
    assert (commit["added"], commit["modified"], commit["removed"]) == (["new.txt"], ["app/values.yaml"], ["old.txt"])
    assert repository.git("log", "-1", "--format=%an", first) == PLATFORM.name


def test_a_revert_brings_back_what_was(server: Server) -> None:
    repository = server.repository().clone()
    repository.commit("Begin", {"tag": "1"})
    bad = repository.edit("tag", lambda _: "2", "Bump")
    other = server.repository().clone()  # somebody else's working copy
    other.revert(bad)
    repository.pull()
    assert repository.read("tag") == "1"


def test_who_may_do_what(server: Server) -> None:
    server.repository().clone().commit("Begin", {"tag": "1"})
    reader = server.repository("reader").clone()
    assert reader.read("tag") == "1"
    with pytest.raises(TestbedError, match=r"may not push|403"):
        reader.commit("Bump", {"tag": "2"})
    with pytest.raises(TestbedError, match=r"401|could not read Username|Authentication failed"):
        server.repository("reader", token="wrong").clone()
    with pytest.raises(TestbedError, match="not found"):
        server.repository(name="nowhere").clone()


def test_pages_are_for_everybody(server: Server) -> None:
    (server.folder / "pages" / "index.yaml").write_text("entries: {}\n")
    host, _, port = server.url.removeprefix("http://").partition(":")
    assert page(host, int(port), "/pages/index.yaml") == (200, "entries: {}\n")
    assert page(host, int(port), "/pages/../accounts.json")[0] == 404


def test_an_empty_commit_is_refused(server: Server) -> None:
    repository = server.repository().clone()
    repository.commit("Begin", {"tag": "1"})
    with pytest.raises(TestbedError, match="nothing to commit"):
        repository.commit("Again", {"tag": "1"})


def test_no_token_stands_in_a_file(server: Server) -> None:
    server.repository().clone().commit("Begin", {"tag": "1"})
    server.event()
    written = b"".join(path.read_bytes() for path in server.folder.rglob("*") if path.is_file())
    assert not [name for name, token in server.tokens.items() if token.encode() in written]


def test_protected_paths_heed_the_account_of_the_push(server: Server) -> None:
    repository, rules = server.repository().clone(), [ProtectedPath("live/**", ("somebody-else",))]
    repository.commit("Begin", {"live/values.yaml": "tag: 1\n"})
    bare = server.folder / "repositories" / "shop.git"
    protect(bare, BRANCH, rules)
    with pytest.raises(TestbedError) as refused:
        repository.commit("Quickly", {"live/values.yaml": "tag: 2\n"})
    assert "live/values.yaml is protected: writer may not change it, only somebody-else" in refused.value.why
    protect(bare, BRANCH, [ProtectedPath("live/**", ("somebody-else", "writer"))])
    repository.commit("Quickly", {"live/values.yaml": "tag: 2\n"})
