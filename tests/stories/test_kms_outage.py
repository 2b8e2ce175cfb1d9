"""While the key-management service does not answer: what works, what is refused, and that nothing is lost."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from broker.app import open_broker
from broker.errors import KeyUnavailable
from broker.vault.domain_keys import UNWRAPPED_SECONDS
from tests.stage import BrokerStage, Sandbox, open_stage
from tests.stage.vault import UnsteadyKek
from tests.stories.held import Held, audit_of, code_of, hold

LIFETIME = 7200
HOUR = int(UNWRAPPED_SECONDS) + 1


class At:
    """A stage whose key-management service can be stopped."""

    def __init__(self, stage: BrokerStage, kek: UnsteadyKek, held: Held) -> None:
        self.stage = stage
        self.kek = kek
        self.held = held

    def asked(self) -> tuple[int, int]:
        """How often the EHR was asked for tokens, and for data."""
        return len(self.stage.sandbox.journal("token")), len(self.stage.sandbox.journal("fhir"))


@pytest.fixture
async def at(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[At]:
    kek = UnsteadyKek()
    async with open_stage(sandbox, redis, tmp_path, authentication="client_secret_basic", kek=kek) as stage:
        app = stage.app()
        yield At(stage, kek, await hold(stage, app, LIFETIME))
        await app.close()


async def test_with_the_keys_at_hand_everything_goes_on(at: At) -> None:
    """Calls, refreshes, launches, and revocation at the EHR."""
    at.kek.down()

    assert (await at.held.read()).status_code == 200
    renewed = await at.stage.broker.keeper.refresher.renew(await at.held.grant())
    assert renewed.generation == 2
    assert "access_token" in await at.held.app.standalone()
    assert await at.stage.broker.revoke_grant(at.held.tag, cause="test") == "revoked"


async def test_without_them_calls_are_refused_before_the_ehr_is_asked_and_served_when_it_is_back(at: At) -> None:
    at.kek.down()
    at.stage.clock.advance(HOUR)
    before = at.asked()

    answer = await at.held.read()
    assert (answer.status_code, code_of(answer)) == (503, "key_unavailable")
    assert at.asked() == before

    at.kek.recover()
    at.stage.clock.advance(1)
    renewed = await at.held.app.token(grant_type="refresh_token", refresh_token=at.held.refresh_handle)
    answer = await at.held.app.fhir(renewed.json()["access_token"], at.held.path)
    assert (answer.status_code, (await at.held.grant()).generation) == (200, 1)


async def test_without_them_no_refresh_token_is_spent(at: At) -> None:
    """(RF-05): what could not be sealed is not asked for."""
    grant = await at.held.grant()
    at.kek.down()
    at.stage.clock.advance(HOUR)
    before = at.asked()

    with pytest.raises(KeyUnavailable):
        await at.stage.broker.keeper.refresher.renew(grant)
    assert at.asked() == before

    at.kek.recover()
    at.stage.clock.advance(1)
    assert (await at.stage.broker.keeper.refresher.renew(grant)).generation == 2


async def test_without_them_no_code_is_spent_on_tokens_that_could_not_be_sealed(at: At) -> None:
    """A launch is refused before the EHR is asked for anything."""
    at.kek.down()
    at.stage.clock.advance(HOUR)
    before = at.asked()

    landing = await at.held.app.authorize()

    assert "code" not in landing.parameters
    assert at.asked() == before
    at.kek.recover()
    at.stage.clock.advance(1)
    at.stage.sandbox.switch(clock_ahead=HOUR)
    assert "access_token" in await at.held.app.standalone()


async def test_without_them_a_revocation_ends_the_grant_here_and_says_that_the_ehr_was_not_told(at: At) -> None:
    """(HB-05): that opens nothing, so it waits for nobody."""
    at.kek.down()
    at.stage.clock.advance(HOUR)

    assert await at.stage.broker.revoke_grant(at.held.tag, cause="test") == "failed"

    assert at.stage.sandbox.journal("revoke") == []
    said = [(line["outcome"], line["reason"]) for line in audit_of(at.stage, "grant.revoke")]
    assert said == [("allowed", "revoking: test"), ("failed", "failed, not told to the EHR (key_unavailable): test")]
    at.kek.recover()
    at.stage.clock.advance(1)
    assert (await at.held.grant()).state == "revoked"
    assert (await at.held.read()).status_code == 401


async def test_a_broker_does_not_start_without_it(at: At, redis: Redis, tmp_path: Path) -> None:
    """Its own keys are sealed, too; nothing is served by half."""
    at.kek.down()

    with pytest.raises(KeyUnavailable):
        async with open_broker(at.stage.broker.settings, redis=redis, kek=at.kek, audit_file=tmp_path / "other"):
            pytest.fail("it started")
