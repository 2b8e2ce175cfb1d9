"""A change of a grant's health reaches whoever asked for it: signed, once it lasts, and again until it was heard."""

import asyncio
import base64
import hashlib
import hmac
import json
from typing import Any, get_args

import pytest

from broker.app import _stop
from broker.errors import StoreUnavailable
from broker.grants import Health
from broker.settings.webhook import ToldHealth
from broker.store import keys
from broker.store.connection import Script
from broker.webhooks.gathering import LASTS_SECONDS, SWEEP_SECONDS
from tests.docs.pages import read, section
from tests.stage import App, BrokerStage, Browser
from tests.stories.held import DUE, ENDED, FOREVER, Held, audit_of, until
from tests.webhooks.conftest import SECRETS
from tests.webhooks.receiver import Receiver, answer


def told(receiver: Receiver, path: str = "/hook") -> list[tuple[str, str]]:
    """What a webhook has heard: the health before, and the one that it is now."""
    data = [json.loads(one.body)["data"] for one in receiver.received if one.path == path]
    return [(one["before"], one["health"]) for one in data]


async def look(held: Held) -> None:
    """Let what is written beside requests be written, and everybody be told."""
    await held.stage.broker.grants.untold.close()
    await held.stage.broker.telling.look()


async def end(held: Held) -> None:
    held.stage.sandbox.fault("token_invalid_grant")
    held.stage.clock.advance(ENDED)
    await held.read()


async def waiting(held: Held, state: Any = "due") -> list[tuple[int, str | None]]:
    return [(event.tries, event.said) async for event, _ in held.stage.broker.telling.outbox.listed("pager", state)]


async def test_an_end_is_told_to_everybody_who_asked_for_it_signed_and_with_nothing_to_hide(
    held: Held, receiver: Receiver
) -> None:
    await end(held)
    await look(held)

    assert told(receiver) == told(receiver, "/hook/mail") == [("healthy", "needs_reauth")]
    one = next(one for one in receiver.received if one.path == "/hook")
    assert one.headers["content-type"] == "application/json"
    signed = f"{one.headers['webhook-id']}.{one.headers['webhook-timestamp']}.".encode() + one.body
    made = [
        base64.b64encode(hmac.new(base64.b64decode(text.removeprefix("whsec_")), signed, hashlib.sha256).digest())
        for text in SECRETS
    ]
    assert one.headers["webhook-signature"] == " ".join(f"v1,{text.decode()}" for text in made)
    assert abs(int(one.headers["webhook-timestamp"]) - held.stage.clock()) < 5
    event = json.loads(one.body)
    assert (event["type"], set(event), set(event["data"])) == (
        "grant.health_changed",
        {"type", "timestamp", "data"},
        {"grant", "ehr", "registration", "app", "health", "before", "since", "reason", "evidence", "action"},
    )
    assert (event["data"]["grant"], event["data"]["ehr"]) == (held.tag, "sandbox")
    assert event["data"]["evidence"] == "the token endpoint answered invalid_grant (status 400)"
    grant = await held.grant()
    hidden = [grant.terms.context.patient, grant.terms.context.subject, grant.terms.context.fhir_user, "reauthorize/"]
    assert not [text for text in hidden if text and text.encode() in b"".join(r.body for r in receiver.received)]
    assert [(line["outcome"], line["grant"]) for line in audit_of(held.stage, "webhook.send")] == [
        ("allowed", held.tag)
    ] * 2
    assert await waiting(held) == []


async def test_it_is_told_once(held: Held, receiver: Receiver) -> None:
    await end(held)
    for _ in range(3):
        await look(held)
    await held.stage.broker.telling.gathering.sweep()
    await look(held)

    assert len(receiver.received) == 2
    assert not [key async for key in held.stage.redis.scan_iter("*untold*")]


async def test_a_grant_that_is_authorized_again_is_healthy_news(held: Held, receiver: Receiver) -> None:
    await end(held)
    await look(held)
    offer, person = await held.stage.broker.offer_reauthorization(held.tag, lifetime=300), Browser(stops_at="nowhere")
    await person.open((await person.http.post(offer.url.reveal())).headers["location"])
    await person.close()
    await look(held)

    assert told(receiver) == [("healthy", "needs_reauth"), ("needs_reauth", "healthy")]
    assert told(receiver, "/hook/mail") == [("healthy", "needs_reauth")]
    assert (await held.grant()).told is None


async def test_a_refresh_that_fails_is_news_when_that_lasts(held: Held, receiver: Receiver) -> None:
    held.stage.sandbox.fault("token_500", times=FOREVER)
    held.stage.clock.advance(DUE)
    await held.read()
    await look(held)
    assert told(receiver) == []

    held.stage.clock.advance(LASTS_SECONDS)
    await look(held)
    assert told(receiver) == [("healthy", "degraded")]

    held.stage.sandbox.clear_faults()
    await held.stage.broker.keeper.refresher.renew(await held.grant())
    await look(held)
    assert told(receiver) == [("healthy", "degraded"), ("degraded", "healthy")]


async def test_trouble_that_ends_before_it_lasts_is_no_news(held: Held, receiver: Receiver) -> None:
    held.stage.sandbox.fault("token_500")
    held.stage.clock.advance(DUE)
    await held.read()
    await look(held)
    held.stage.clock.advance(10)
    assert (await held.read()).status_code == 200
    held.stage.clock.advance(LASTS_SECONDS)
    await look(held)

    assert receiver.received == []


async def test_what_time_alone_changes_is_told_at_its_time(held: Held, receiver: Receiver) -> None:
    """RF-05."""
    held.stage.sandbox.fault("token_drop")
    held.stage.clock.advance(DUE)
    await held.read()
    await look(held)
    assert told(receiver) == [("healthy", "uncertain")]

    held.stage.clock.advance(ENDED - DUE)
    await look(held)

    assert told(receiver) == [("healthy", "uncertain"), ("uncertain", "needs_reauth")]
    assert told(receiver, "/hook/mail") == [("uncertain", "needs_reauth")]


@pytest.mark.parametrize("cause", ["token_refresh_patient", "revoked"])
async def test_security_and_operators_are_told_of_too(held: Held, receiver: Receiver, cause: str) -> None:
    if cause == "revoked":
        await held.stage.broker.revoke_grant(held.tag, cause="test")
    else:
        held.stage.sandbox.fault(cause)
        held.stage.clock.advance(ENDED)
        await held.read()
    await look(held)

    assert told(receiver) == [("healthy", "revoked" if cause == "revoked" else "suspended")]


async def test_a_replica_that_dies_after_the_change_loses_no_news(
    held: Held, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.grants.untold.Untold.hint", lambda *_: None)
    await end(held)
    await look(held)
    assert receiver.received == []

    await held.stage.broker.telling.gathering.sweep()
    await look(held)

    assert told(receiver) == [("healthy", "needs_reauth")]
    assert 0 < await held.stage.redis.ttl(keys.SWEPT) <= SWEEP_SECONDS


async def test_a_replica_that_dies_while_it_looks_makes_no_second_event(
    held: Held, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await end(held)
    gathering, call = held.stage.broker.telling.gathering, Script.__call__

    async def cut_off(self: Script, *arguments: Any, **options: Any) -> Any:
        if self is gathering.settling:
            raise StoreUnavailable("TimeoutError")
        return await call(self, *arguments, **options)

    monkeypatch.setattr(Script, "__call__", cut_off)
    await held.stage.broker.grants.untold.close()
    await gathering.look()
    monkeypatch.undo()
    held.stage.clock.advance(61)
    await look(held)

    assert told(receiver) == [("healthy", "needs_reauth")]


async def test_what_was_not_heard_is_said_again_with_the_same_id_and_body(held: Held, receiver: Receiver) -> None:
    receiver.answers = [answer(500), answer(500), answer(429, "Retry-After: 60"), b""]
    await end(held)
    await look(held)
    assert await waiting(held) == [(1, "http_500")]
    for pause, said in ((7, "http_429"), (0, "http_429"), (61, "no_answer")):
        held.stage.clock.advance(pause)
        await held.stage.broker.telling.deliveries[0].look()
        assert (await waiting(held))[0][1] == said
    held.stage.clock.advance(101)
    await look(held)

    sent = [one for one in receiver.received if one.path == "/hook"]
    assert len(sent) == 4
    assert len({(one.headers["webhook-id"], one.body) for one in sent}) == 1
    assert len({one.headers["webhook-timestamp"] for one in sent}) > 1
    assert await waiting(held) == []


@pytest.mark.parametrize(
    ("wire", "said"),
    [
        (answer(302, "Location: http://127.0.0.1:1/"), "http_302"),
        (answer(404), "http_404"),
        (answer(503, body="x" * 10_000), "http_503"),
        (b"", "no_answer"),
        (b"nonsense\r\n\r\n", "no_answer"),
    ],
)
async def test_only_2xx_is_heard_and_no_redirect_is_followed(
    held: Held, receiver: Receiver, wire: bytes, said: str
) -> None:
    receiver.answers = [wire]
    await end(held)
    await held.stage.broker.grants.untold.close()
    await held.stage.broker.telling.gathering.look()
    await held.stage.broker.telling.deliveries[0].look()

    assert await waiting(held) == [(1, said)]
    assert len(receiver.received) == 1


async def test_nobody_waits_at_the_address(held: Held, receiver: Receiver) -> None:
    await end(held)
    await held.stage.broker.grants.untold.close()
    telling = held.stage.broker.telling
    await telling.gathering.look()
    for url, said in (("http://127.0.0.1:1/", "no_connection"), ("https://169.254.169.254/", "not_allowed")):
        held.stage.clock.advance(30)
        delivering = telling.deliveries[0]
        webhook = delivering.webhook.model_copy(update={"url": url})
        object.__setattr__(delivering, "webhook", webhook)
        assert await delivering.look() == (1, 0)
        assert (await waiting(held))[0][1] == said


async def test_after_three_days_an_event_is_a_dead_letter_until_an_operator_has_it_tried_again(
    held: Held, receiver: Receiver
) -> None:
    receiver.answers = [answer(500)] * 3
    await end(held)
    await look(held)
    held.stage.clock.advance(3 * 86_400)
    await look(held)
    outbox = held.stage.broker.telling.outbox
    assert (await waiting(held), await waiting(held, "dead")) == ([], [(2, "http_500")])
    reasons = [line["reason"] for line in audit_of(held.stage, "webhook.send") if line["outcome"] == "failed"]
    assert "given up after 2 tries" in reasons[-1]
    held.stage.clock.advance(86_400)
    await look(held)
    assert len(told(receiver)) == 2

    (dead,) = [event async for event, _ in outbox.listed("pager", "dead")]
    await outbox.retry("pager", dead, now=held.stage.clock())
    receiver.answers = []
    await look(held)

    assert len(told(receiver)) == 3
    assert (await waiting(held), await waiting(held, "dead")) == ([], [])


async def test_gone_is_given_up_at_once(held: Held, receiver: Receiver) -> None:
    receiver.answers = [answer(410)]
    await end(held)
    await look(held)

    assert await waiting(held, "dead") == [(1, "http_410")]


async def test_an_event_that_waits_is_sent_by_one_replica_and_by_another_when_that_one_died(
    held: Held, receiver: Receiver
) -> None:
    await end(held)
    await held.stage.broker.grants.untold.close()
    telling, now = held.stage.broker.telling, held.stage.clock()
    await telling.gathering.look()

    assert len(await telling.outbox.take("pager", now + 1, again=now + 60, most=9)) == 1
    assert await telling.outbox.take("pager", now + 59, again=now + 99, most=9) == []
    assert len(await telling.outbox.take("pager", now + 60, again=now + 99, most=9)) == 1


async def test_where_too_many_wait_grants_keep_their_news(
    held: Held, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.webhooks.outbox.MOST_WAITING", 1)
    await held.stage.redis.zadd(keys.webhook_due("pager"), {"another": 1e12})
    await end(held)
    await look(held)
    assert told(receiver) == []

    await held.stage.redis.delete(keys.webhook_due("pager"))
    held.stage.clock.advance(61)
    await look(held)

    assert told(receiver) == [("healthy", "needs_reauth")]


async def test_a_refresh_that_goes_well_costs_the_store_nothing_more(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.stage.clock.advance(DUE)
    asked: list[str] = []
    execute = type(held.stage.redis).execute_command

    async def noted(self: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(" ".join(str(part) for part in arguments[:4]))
        return await execute(self, *arguments, **options)  # type: ignore[no-untyped-call]  # redis-py has no types here

    monkeypatch.setattr(type(held.stage.redis), "execute_command", noted)
    renewed = await held.stage.broker.keeper.refresher.renewal.renew(await held.grant())
    await held.stage.broker.grants.untold.close()

    assert renewed.generation == 2
    assert not [text for text in asked if "untold" in text and "EVALSHA" not in text]
    assert await held.stage.redis.exists(keys.UNTOLD, keys.untold(held.tag)) == 0


def test_every_health_but_a_passing_one_can_be_told_of() -> None:
    assert set(get_args(ToldHealth)) == set(get_args(Health)) - {"refreshing"}


async def test_nothing_is_marked_where_there_is_no_webhook(stage: BrokerStage, app: App) -> None:
    tag = (await app.standalone())["access_token"][4:16]

    await stage.broker.grants.end(tag, "needs_reauth", "test")
    await stage.broker.grants.untold.close()

    assert not [key async for key in stage.redis.scan_iter("*untold*")]


async def test_what_operations_say_of_verifying_is_right(held: Held, receiver: Receiver) -> None:
    code = section(read("docs/operations.md"), "## Webhooks").split("```python\n")[1].split("```")[0]
    sample: dict[str, Any] = {}
    exec(code, sample)  # noqa: S102  # it is the sample that is tested
    await held.stage.broker.revoke_grant(held.tag, cause="test")  # its clock is still the sample's
    await look(held)
    one = next(one for one in receiver.received if one.path == "/hook")

    for secret in SECRETS:
        assert sample["is_genuine"](one.headers, one.body, secret)
    assert not sample["is_genuine"](one.headers, one.body, "whsec_" + "C" * 43 + "=")
    assert not sample["is_genuine"](one.headers, one.body + b" ", SECRETS[0])
    assert not sample["is_genuine"]({**one.headers, "webhook-id": "msg_2"}, one.body, SECRETS[0])
    assert not sample["is_genuine"]({**one.headers, "webhook-timestamp": "1"}, one.body, SECRETS[0])


async def test_beside_requests_somebody_looks_again_and_again(held: Held, receiver: Receiver) -> None:
    is_draining, telling = False, held.stage.broker.telling
    running = [asyncio.create_task(work) for work in telling.work(0.01, lambda: is_draining)]
    await end(held)
    await until(lambda: len(receiver.received) == 2)
    assert told(receiver) == [("healthy", "needs_reauth")]

    is_draining = True
    await until(lambda: sum(task.done() for task in running) == len(running) - 1)
    for task in running:  # the sweep rests
        await _stop(task)


async def test_trouble_of_one_webhook_or_of_the_store_ends_no_loop(
    held: Held, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling, failed = held.stage.broker.telling, 0
    look = type(telling.gathering).look

    async def fails_twice(self: Any) -> int:
        nonlocal failed
        failed += 1
        if failed <= 2:
            raise StoreUnavailable("TimeoutError") if failed == 1 else RuntimeError("a fault of our own")
        return await look(self)

    monkeypatch.setattr(type(telling.gathering), "look", fails_twice)
    running = [asyncio.create_task(work) for work in telling.work(0.01)]
    await end(held)
    await until(lambda: len(receiver.received) == 2)
    for task in running:
        await _stop(task)

    assert failed > 2


async def test_without_a_webhook_there_is_no_work(stage: BrokerStage) -> None:
    assert list(stage.broker.telling.work(1)) == []


async def test_a_webhook_with_no_room_has_no_other_told_again_and_again(
    held: Held, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.webhooks.outbox.MOST_WAITING", 1)
    await held.stage.redis.zadd(keys.webhook_due("mail"), {"another": 1e12})
    await end(held)
    for _ in range(3):
        await look(held)
        held.stage.clock.advance(61)
    assert told(receiver) == [("healthy", "needs_reauth")]
    assert told(receiver, "/hook/mail") == []

    await held.stage.redis.delete(keys.webhook_due("mail"))
    await look(held)

    assert told(receiver) == told(receiver, "/hook/mail") == [("healthy", "needs_reauth")]
