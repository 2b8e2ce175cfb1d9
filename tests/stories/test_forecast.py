"""What EHRs do to refresh tokens is remembered, and says which grants will need their person again."""

from contextlib import suppress

import pytest

from broker.errors import EhrError, ReauthorizationRequired
from broker.flows import forecast
from broker.grants import Grant
from broker.refresh.ends import MOST_ENDS, ObservedEnd
from broker.store import keys
from tests.stage import App, BrokerStage
from tests.stories.held import ENDED, Held

DAY = 86_400.0


async def ended(held: Held, fault: str = "token_invalid_grant") -> None:
    held.stage.sandbox.fault(fault)
    with suppress(ReauthorizationRequired, EhrError):
        await held.stage.broker.keeper.refresher.renew(await held.grant())
    await held.stage.broker.keeper.refresher.renewal.close()


async def observed(stage: BrokerStage) -> list[ObservedEnd]:
    return await stage.broker.forecast_grants.ends.of("sandbox")


async def test_an_end_is_remembered_by_how_old_the_authorization_was_and_for_how_long_it_lay_idle(held: Held) -> None:
    """RF-13."""
    held.stage.clock.advance(ENDED)
    await held.read()
    held.stage.clock.advance(50)
    await ended(held)

    (end,) = await observed(held.stage)
    assert (round(end.age, -1), round(end.idle, -1)) == (150, 50)
    (member,) = await held.stage.redis.zrange(keys.ends("sandbox"), 0, -1)
    assert held.tag.encode() not in member


@pytest.mark.parametrize("fault", ["token_500", "token_invalid_client", "token_drop"])
async def test_what_is_no_end_of_a_refresh_token_teaches_nothing(held: Held, fault: str) -> None:
    await ended(held, fault)

    assert await observed(held.stage) == []


async def test_the_end_of_a_session_teaches_nothing(secret_stage: BrokerStage, secret_app: App) -> None:
    """RF-10."""
    secret_stage.sandbox.fault("token_scope", scope="launch/patient online_access patient/*.rs")
    answer = await secret_app.standalone()
    held = Held(secret_stage, secret_app, answer["access_token"], "")
    await ended(held)
    assert (await held.grant()).state == "needs_reauth"

    assert await observed(secret_stage) == []


async def test_only_the_last_ends_are_kept(held: Held) -> None:
    ends, grant = held.stage.broker.forecast_grants.ends, await held.grant()
    await ends._note(grant)
    (first,) = await observed(held.stage)
    for _ in range(MOST_ENDS):
        held.stage.clock.advance(1)
        await ends._note(grant)

    kept = await observed(held.stage)
    assert len(kept) == MOST_ENDS
    assert first.age < min(end.age for end in kept)
    held.stage.clock.advance(401 * DAY)
    await ends._note(grant)
    assert len(await observed(held.stage)) == 1


async def test_grants_that_end_soon_are_counted_by_ehr_with_the_reason(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RF-13."""
    monkeypatch.setattr(forecast, "AT_ONCE", 2)
    stage, tags = held.stage, [held.tag]
    stage.sandbox.fault("token_members", times=2, set={"refresh_token_expires_in": 2 * DAY})
    tags += [(await held.app.standalone())["access_token"][4:16] for _ in range(4)]
    await stage.broker.revoke_grant(tags[4], cause="test")
    said = (await stage.broker.grants.read(tags[1])).expected_end

    week, day = await stage.broker.forecast_grants(7 * DAY), await stage.broker.forecast_grants(DAY)

    assert (week.living, week.ending, week.unknown, week.unreadable) == (4, 2, 2, 0)
    (line,) = week.lines.values()
    assert (line.ehr, line.basis, line.because, line.over) == ("sandbox", "said", "the EHR said so", 0)
    assert line.first_end == pytest.approx(said, abs=2)
    assert (day.living, day.ending) == (4, 0)

    stage.clock.advance(3 * DAY)
    (line,) = (await stage.broker.forecast_grants(7 * DAY)).lines.values()
    assert (line.grants, line.over) == (2, 2)


async def test_what_was_learned_is_told_with_how_often_it_was_seen(held: Held) -> None:
    """RF-13."""
    ends, grant = held.stage.broker.forecast_grants.ends, await held.grant()
    now = held.stage.clock()
    for _ in range(5):
        await ends._note(_aged(grant, now, days=5))

    (line,) = (await held.stage.broker.forecast_grants(7 * DAY)).lines.values()

    assert (line.grants, line.basis) == (1, "learned")
    assert line.because == "learned from 5 ends: 5 days after the last authorization"


def _aged(grant: Grant, now: float, *, days: float) -> Grant:
    """The grant as if it had been authorized so long ago, and refreshed an hour ago."""
    object.__setattr__(grant, "created_at", now - days * DAY)
    object.__setattr__(grant, "since", now - 3600)
    return grant


async def test_a_grant_that_cannot_be_read_is_counted_as_such(held: Held) -> None:
    await held.stage.redis.hset(f"sb:{{{held.tag}}}:grant", "terms", b"damaged")

    found = await held.stage.broker.forecast_grants(7 * DAY)

    assert (found.living, found.unreadable) == (0, 1)
