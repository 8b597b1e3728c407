"""The Slack client against the stand-in, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer
from slack_sdk.errors import SlackApiError

from testbed.promotion.config import Settings
from testbed.promotion.ledger import Request
from testbed.promotion.slack import SlackNotifications
from testbed.promotion.slack_stand_in import SlackStandIn

REQUEST = Request("1" * 32, "orders", "1.1.0", "c0ffee", "production", 0, "waiting", "", "", "", None, "")


@pytest_asyncio.fixture
async def server() -> AsyncIterator[TestServer]:
    async with TestServer(SlackStandIn("xoxb-0").application(), host="127.0.0.1") as server:
        yield server


def client(settings: Settings, server: TestServer) -> SlackNotifications:
    return SlackNotifications(settings.slack.model_copy(update={"api": str(server.make_url("/api/"))}))


@pytest.mark.asyncio
async def test_asked_once_however_often(settings: Settings, server: TestServer) -> None:
    slack = client(settings, server)
    first = await asyncio.to_thread(slack.ask, REQUEST, "staging: healthy")
    assert await asyncio.to_thread(slack.ask, REQUEST, "staging: healthy") == first
    history = (await asyncio.to_thread(lambda: slack._client.conversations_history(channel="C0RELEASES")))["messages"]
    assert [message["text"] for message in history] == ["Release orders@1.1.0 to production?"]
    assert [one["action_id"] for one in history[0]["blocks"][1]["elements"]] == ["approve", "reject"]


@pytest.mark.asyncio
async def test_buttons_go_when_it_is_decided(settings: Settings, server: TestServer) -> None:
    slack = client(settings, server)
    stamp = await asyncio.to_thread(slack.ask, REQUEST, "")
    posted = Request(**{**REQUEST.__dict__, "message": stamp})
    await asyncio.to_thread(slack.tell, posted, "on its way")
    history = (await asyncio.to_thread(lambda: slack._client.conversations_history(channel="C0RELEASES")))["messages"]
    assert [block["type"] for block in history[0]["blocks"]] == ["section"]


@pytest.mark.asyncio
async def test_wrong_token(settings: Settings, server: TestServer) -> None:
    settings.slack.token_file.write_text("xoxb-wrong")
    slack = client(settings, server)
    with pytest.raises(SlackApiError, match="invalid_auth"):
        await asyncio.to_thread(slack.ask, REQUEST, "")
