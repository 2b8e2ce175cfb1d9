"""A broker with two webhooks at one receiver: one that hears everything, and one that hears of ends alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.stage import Sandbox
from tests.stories.held import Held, held_at
from tests.webhooks.receiver import Receiver, running_receiver

SECRETS = ("whsec_" + "A" * 43 + "=", "whsec_" + "B" * 43 + "=")
MORE = """
[[webhook]]
id = "pager"
url = "{url}"
secret = ["file:newer", "file:older"]

[[webhook]]
id = "mail"
url = "{url}/mail"
secret = "file:older"
events = ["needs_reauth"]
"""


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as receiver:
        yield receiver


@pytest.fixture
async def held(sandbox: Sandbox, redis: Redis, tmp_path: Path, receiver: Receiver) -> AsyncIterator[Held]:
    for name, text in zip(("newer", "older"), SECRETS, strict=True):
        (tmp_path / name).write_text(text)
    async with held_at(sandbox, redis, tmp_path, more=MORE.format(url=receiver.url)) as held:
        yield held
