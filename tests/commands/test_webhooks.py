"""`broker webhooks`: what was not heard, tried again or dropped by an operator."""

import json
import re
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.commands.program import Operator
from tests.stage import BrokerStage, Sandbox, open_stage

MORE = """
[[webhook]]
id = "pager"
url = "http://127.0.0.1:1/"
secret = "file:webhook"
"""
SECRET = "whsec_" + "A" * 32


@pytest.fixture
async def told(operator: Operator, sandbox: Sandbox, redis: Redis, tmp_path: Path) -> Operator:
    """An operator of a broker whose webhook nobody answers at: one event was given up, and one waits."""
    for folder in (tmp_path, operator.home):
        (folder / "webhook").write_text(SECRET)
    async with open_stage(sandbox, redis, tmp_path, more=MORE) as stage:
        (operator.home / "broker.toml").write_text((tmp_path / "broker.toml").read_text())
        app = stage.app()
        first, second = [(await app.standalone())["access_token"][4:16] for _ in range(2)]
        await app.close()
        await end(stage, first)
        stage.clock.advance(3 * 86_400)
        await stage.broker.telling.look()
        await end(stage, second)
    return operator


async def end(stage: BrokerStage, tag: str) -> None:
    await stage.broker.grants.end(tag, "needs_reauth", "test")
    await stage.broker.grants.untold.close()
    await stage.broker.telling.look()


async def test_events_are_listed_tried_again_and_dropped(told: Operator) -> None:
    listed = (await told.run("webhooks", "list", "--json")).json()
    assert [(one["webhook"], one["state"], one["tries"], one["said"], one["health"]) for one in listed] == [
        ("pager", "waiting", 1, "no_connection", "needs_reauth"),
        ("pager", "dead", 2, "no_connection", "needs_reauth"),
    ]
    waiting, dead = listed
    table = (await told.run("webhooks", "list", "--dead")).out.splitlines()
    assert re.split(r" {2,}", table[0]) == ["webhook", "event", "state", "at", "tries", "said", "grant", "health"]
    assert [line.split()[1] for line in table[1:]] == [dead["event"]]

    assert (await told.run("webhooks", "retry", "pager", "--all")).out == "1 events are due now\n"
    states = {one["event"]: one["state"] for one in (await told.run("webhooks", "list", "--json")).json()}
    assert states == {waiting["event"]: "waiting", dead["event"]: "waiting"}

    assert (await told.run("webhooks", "drop", "pager", dead["event"])).out == "1 events are deleted\n"
    assert [one["event"] for one in (await told.run("webhooks", "list", "--json")).json()] == [waiting["event"]]
    audit = [json.loads(line) for line in (told.home / "audit.jsonl").read_text().splitlines()]
    assert [(line["event"], line["grant"], line["reason"]) for line in audit] == [
        (event, dead["grant"], f"pager: {dead['event']}: by an operator") for event in ("webhook.retry", "webhook.drop")
    ]
    assert SECRET not in "".join(said.out + said.err for said in told.heard)


async def test_a_check_tells_what_webhooks_did_not_hear(told: Operator) -> None:
    findings = (await told.run("check", "--json")).json()

    assert [(one["level"], one["text"]) for one in findings if one["part"] == "webhook"] == [
        ("warning", "pager: 1 events were given up. Fix: broker webhooks list --dead, then retry or drop pager"),
        ("warning", "pager: 1 events were not heard yet (no_connection)"),
    ]


async def test_a_check_tells_that_a_webhook_heard_everything(operator: Operator, at_stage: Operator) -> None:
    config = operator.home / "broker.toml"
    config.write_text(config.read_text() + MORE)
    (operator.home / "webhook").write_text(SECRET)

    findings = (await operator.run("check", "--json")).json()

    assert [(one["level"], one["text"]) for one in findings if one["part"] == "webhook"] == [
        ("ok", "pager: it heard what it was told")
    ]


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("retry", "nobody", "--all"), "no webhook nobody"),
        (("drop", "pager", "msg_none"), "no event msg_none of webhook pager"),
    ],
)
async def test_what_is_not_there_is_said(
    operator: Operator, at_stage: Operator, arguments: tuple[str, ...], cause: str
) -> None:
    config = operator.home / "broker.toml"
    config.write_text(config.read_text() + MORE)
    (operator.home / "webhook").write_text(SECRET)

    said = await operator.run("webhooks", *arguments)

    assert (said.status, said.out, said.err) == (1, "", f"broker: not_found: {cause}\n")


async def test_a_grant_that_an_operator_ends_is_told_of_by_who_serves(
    operator: Operator, sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    for folder in (tmp_path, operator.home):
        (folder / "webhook").write_text(SECRET)
    async with open_stage(sandbox, redis, tmp_path, more=MORE) as stage:
        (operator.home / "broker.toml").write_text((tmp_path / "broker.toml").read_text())
        app = stage.app()
        tag = (await app.standalone())["access_token"][4:16]
        await app.close()
        assert (await operator.run("grants", "revoke", tag)).status == 0
        await stage.broker.telling.look()
        waiting = [event async for event, _ in stage.broker.telling.outbox.listed("pager", "due")]

    assert [(event.data["grant"], event.data["health"]) for event in waiting] == [(tag, "revoked")]
