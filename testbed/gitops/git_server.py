"""A git server: `git http-backend`, which is git's own smart HTTP, behind aiohttp; and webhooks after every push.

Run as `python -m testbed.gitops.git_server`. Repositories are bare ones below a folder; every request needs an account.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import aiohttp
from aiohttp import web

from testbed.gitops.accounts import Account, authenticate, load_accounts
from testbed.gitops.push_events import WEBHOOKS, Webhook, branches, push_events, signatures

REALM = {"WWW-Authenticate": 'Basic realm="git"'}
LARGEST_PUSH = 256 * 1024**2
"""Bytes."""
DELIVERY_TRIES = 5
DELIVERY_TIMEOUT = 10
ISOLATED = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
"""No configuration of the machine or its user decides what git does here."""


class GitServer:
    """The application.

    Args:
        root: The folder of the bare repositories (`NAME.git`).
        accounts: The file of the accounts; read at every request, so that accounts come and go.
        webhooks: A JSON list of `Webhook`; read at every push. May be missing.
        deliveries: A log, one JSON object a line: every delivery with its HTTP status. Holds no secret.
        pages: Files that everybody may read, below `/pages/`: a Helm repository, as people keep one on GitHub's pages.
    """

    def __init__(self, root: Path, accounts: Path, webhooks: Path, deliveries: Path, pages: Path) -> None:
        self.root = root
        self._pages = pages
        self._accounts = accounts
        self._webhooks = webhooks
        self._deliveries = deliveries
        self._running: set[asyncio.Task[None]] = set()
        self._pushing: dict[str, asyncio.Lock] = {}
        """One push at a time into a repository: what it changed is what differs after it."""

    def application(self) -> web.Application:
        """What aiohttp serves."""
        application = web.Application(client_max_size=LARGEST_PUSH)
        application.router.add_get("/-/healthy", self._healthy)
        application.router.add_static("/pages", self._pages)
        application.router.add_route("*", "/{name}.git/{rest:.+}", self._git)
        return application

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _git(self, request: web.Request) -> web.StreamResponse:
        account = authenticate(load_accounts(self._accounts), request.headers.get("Authorization", ""))
        if account is None:
            return web.Response(status=401, text="no such account, or a wrong token\n", headers=REALM)
        rest = request.match_info["rest"]
        pushes = "git-receive-pack" in (rest, request.query.get("service", ""))
        if pushes and not account.write:
            return web.Response(status=403, text=f"{account.name} may not push\n")
        repository = self.root / f"{request.match_info['name']}.git"
        if repository.parent != self.root or not repository.is_dir():
            return web.Response(status=404, text="repository not found\n")
        if not pushes or request.method != "POST":
            return await self._backend(request, account)
        url = f"{request.scheme}://{request.host}/{request.match_info['name']}"
        async with self._pushing.setdefault(repository.name, asyncio.Lock()):
            before = await asyncio.to_thread(branches, repository)
            answer = await self._backend(request, account)
            after = await asyncio.to_thread(branches, repository)
        for event in await asyncio.to_thread(push_events, repository, url, before, after, account.name):
            self._deliver(json.dumps(event).encode())
        return answer

    async def _backend(self, request: web.Request, account: Account) -> web.Response:
        """Run `git http-backend` for one request: a CGI program, RFC 3875."""
        body = await request.read()
        process = await asyncio.create_subprocess_exec(
            "git",
            "http-backend",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **ISOLATED, **self._cgi(request, account, len(body))},
        )
        output, _ = await process.communicate(body)
        head, separator, content = output.partition(b"\r\n\r\n")
        if process.returncode or not separator:
            return web.Response(status=500, text="git http-backend failed; see the log of the git server\n")
        status, headers = 200, {}
        for line in head.decode().splitlines():
            name, _, value = line.partition(": ")
            if name.lower() == "status":
                status = int(value.split()[0])
            else:
                headers[name] = value
        return web.Response(status=status, body=content, headers=headers)

    def _cgi(self, request: web.Request, account: Account, length: int) -> Mapping[str, str]:
        headers = request.headers
        return {
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": headers.get("Git-Protocol", ""),
            "REMOTE_USER": account.name,
            "REMOTE_ADDR": request.remote or "",
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query_string,
            "CONTENT_TYPE": headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(length),
            "HTTP_CONTENT_ENCODING": "",  # aiohttp has unpacked it
        }

    def _deliver(self, body: bytes) -> None:
        hooks = WEBHOOKS.validate_json(self._webhooks.read_bytes()) if self._webhooks.is_file() else []
        for hook in hooks:
            task = asyncio.get_running_loop().create_task(self._post(hook, body))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _post(self, hook: Webhook, body: bytes) -> None:
        """Deliver one event; again, a little later each time, where nobody answers."""
        identity = str(uuid.uuid4())
        headers = {
            "Content-Type": "application/json",
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": identity,
            **signatures(hook.secret, body),
        }
        answer = ""
        for number in range(DELIVERY_TRIES):
            try:
                timeout = aiohttp.ClientTimeout(total=DELIVERY_TIMEOUT)
                async with (
                    aiohttp.ClientSession(timeout=timeout) as session,
                    session.post(hook.url, data=body, headers=headers) as response,
                ):
                    answer = str(response.status)
                    break
            except (aiohttp.ClientError, TimeoutError) as error:
                answer = str(error) or type(error).__name__
                await asyncio.sleep(0.2 * 2**number)
        event = json.loads(body)
        entry = {"id": identity, "url": hook.url, "answer": answer, "repository": event["repository"]["name"]}
        with self._deliveries.open("a") as log:
            log.write(json.dumps(entry | {"ref": event["ref"], "after": event["after"]}) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m testbed.gitops.git_server", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--accounts", type=Path, required=True)
    parser.add_argument("--webhooks", type=Path, required=True)
    parser.add_argument("--deliveries", type=Path, required=True)
    parser.add_argument("--pages", type=Path, required=True)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    given = parser.parse_args(arguments)
    host, _, port = given.listen.rpartition(":")
    server = GitServer(given.root, given.accounts, given.webhooks, given.deliveries, given.pages)
    web.run_app(server.application(), host=host, port=int(port), print=None, access_log=None)


if __name__ == "__main__":
    main()
