"""A person authorizes an existing grant again, by a one-time link: it stays the same, or nothing of it changes."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from broker.errors import InvalidRequest
from broker.grants import Grant, health_of
from tests.refusals.refusal import assert_page, nothing_sent
from tests.stage import App, BrokerStage, Browser
from tests.stories.held import DUE, ENDED, Held, audit_of, code_of, hold


@pytest.fixture
async def person() -> AsyncIterator[Browser]:
    """Somebody with a browser of their own."""
    person = Browser(stops_at="nowhere")
    yield person
    await person.close()


async def offered(held: Held, *, lifetime: int = 3600) -> str:
    offer = await held.stage.broker.offer_reauthorization(held.tag, lifetime=lifetime)
    return offer.url.reveal()


async def go_on(person: Browser, link: str) -> httpx2.Response:
    """Press the button of the page, and go wherever that leads."""
    answer = await person.http.post(link)
    if answer.status_code == 303:
        await person.open(answer.headers["location"])
        answer = person.seen[-1]
    return answer


async def end(held: Held) -> Grant:
    """Let the EHR say that the refresh token is no good any more."""
    held.stage.sandbox.fault("token_invalid_grant")
    held.stage.clock.advance(ENDED)
    answer = await held.read()
    assert (answer.status_code, code_of(answer)) == (401, "reauthorization_required")
    grant = await held.grant()
    assert grant.state == "needs_reauth"
    return grant


def revoked_at_ehr(held: Held) -> bool:
    """Whether the tokens that came last were given back."""
    issued = [e["sha256"][:16] for e in held.stage.sandbox.journal("issued") if e["token"] == "refresh_token"]
    gone = [entry["parameters"]["token"] for entry in held.stage.sandbox.journal("revoke")]
    return f"sha256:{issued[-1]}" in gone


async def test_a_grant_that_ended_goes_on_with_its_handles_when_the_person_has_authorized_again(
    held: Held, person: Browser
) -> None:
    """RF-14."""
    before = await end(held)

    said = await go_on(person, await offered(held))

    assert (said.status_code, "Access is authorized again." in said.text) == (200, True)
    grant = await held.grant()
    assert (grant.tag, grant.state, grant.cause, grant.generation) == (before.tag, "active", None, 2)
    assert grant.terms.context == before.terms.context
    assert (grant.created_at, grant.used_at) == (before.created_at, before.used_at)
    assert grant.authorized_at > grant.created_at
    assert health_of(grant, now=held.stage.clock()).health == "healthy"
    assert (await held.read()).status_code == 200
    again = await held.app.token(grant_type="refresh_token", refresh_token=held.refresh_handle)
    assert again.json()["patient"] == before.terms.context.patient
    told = [(line["outcome"], line["reason"]) for line in audit_of(held.stage, "grant.reauthorize")]
    assert told == [
        ("allowed", "a link is made that lives 3600 s"),
        ("allowed", "the person goes to the EHR"),
        ("allowed", "authorized again: generation 2"),
    ]


async def test_the_new_refresh_token_is_the_one_that_is_used(held: Held, person: Browser) -> None:
    await end(held)
    held.stage.sandbox.fault("token_lifetime", seconds=100)
    await go_on(person, await offered(held))
    held.stage.clock.advance(DUE)

    assert (await held.read()).status_code == 200

    assert (await held.grant()).generation == 3


async def test_a_grant_that_works_can_be_authorized_again_before_it_ends(held: Held, person: Browser) -> None:
    """RF-13."""
    await go_on(person, await offered(held))

    assert ((await held.grant()).state, (await held.grant()).generation) == ("active", 2)
    assert (await held.read()).status_code == 200


async def test_a_grant_without_a_refresh_token_takes_no_working_ones_place(held: Held, person: Browser) -> None:
    held.stage.sandbox.fault("token_members", drop=["refresh_token"])
    fields = await held.stage.redis.hgetall(f"sb:{{{held.tag}}}:grant")

    said = await go_on(person, await offered(held))

    assert_page(said, 403, "access_denied")
    assert await held.stage.redis.hgetall(f"sb:{{{held.tag}}}:grant") == fields


@pytest.mark.parametrize("fault", ["token_drop_before", "token_refresh_patient"])
async def test_uncertain_and_suspended_grants_come_back(held: Held, person: Browser, fault: str) -> None:
    held.stage.sandbox.fault(fault)
    held.stage.clock.advance(ENDED)
    await held.read()
    assert (await held.grant()).state in {"uncertain", "suspended"}

    await go_on(person, await offered(held))

    grant = await held.grant()
    assert (grant.state, grant.attempted_by, grant.trouble) == ("active", None, None)
    assert (await held.read()).status_code == 200


@pytest.mark.parametrize(
    ("fault", "parameters", "cause"),
    [
        ("token_members", {"set": {"patient": "somebody-else"}}, "is of another patient"),
        ("token_members", {"drop": ["patient"]}, "does not say its patient"),
        ("id_token_subject", {}, "is of another subject"),
        ("token_members", {"drop": ["id_token"]}, "does not say its issuer"),
        ("token_members", {"set": {"scope": "openid offline_access"}}, "granted no resource scope"),
        ("token_members", {"set": {"scope": "user/Practitioner.rs"}}, "granted nothing that the grant had"),
    ],
)
async def test_an_authorization_that_is_not_the_same_changes_nothing_and_is_given_back(
    held: Held, person: Browser, fault: str, parameters: dict[str, Any], cause: str
) -> None:
    await end(held)
    fields = await held.stage.redis.hgetall(f"sb:{{{held.tag}}}:grant")
    link = await offered(held)
    held.stage.sandbox.fault(fault, **parameters)

    said = await go_on(person, link)

    assert_page(said, 403, "access_denied", hides=["somebody-else"])
    assert await held.stage.redis.hgetall(f"sb:{{{held.tag}}}:grant") == fields
    assert revoked_at_ehr(held)
    lines = [line for line in audit_of(held.stage, "launch.finish") if line["outcome"] == "denied"]
    assert [cause in line["reason"] for line in lines] == [True]
    held.stage.sandbox.clear_faults()
    await go_on(person, link)  # it was not used up: the right person may still come
    assert (await held.grant()).state == "active"


@pytest.mark.parametrize(
    ("granted", "expected"),
    [
        ("patient/Patient.rs", {"patient/Patient.rs"}),
        ("patient/*.cruds system/*.cruds user/*.rs", {"patient/*.rs"}),
    ],
)
async def test_scopes_shrink_and_never_grow(held: Held, person: Browser, granted: str, expected: set[str]) -> None:
    await end(held)
    link = await offered(held)
    held.stage.sandbox.fault("token_members", set={"scope": granted})

    await go_on(person, link)

    assert set(map(str, (await held.grant()).terms.scopes.resources)) == expected


async def test_a_link_works_once(held: Held, person: Browser) -> None:
    link = await offered(held)
    await go_on(person, link)

    with nothing_sent(held.stage.sandbox):
        assert_page(await person.http.get(link), 400, "invalid_request", hides=[link])
        assert_page(await person.http.post(link), 400, "invalid_request", hides=[link])


async def test_one_authorization_ends_all_links_of_a_grant(held: Held, person: Browser) -> None:
    first, second = await offered(held), await offered(held)
    await go_on(person, first)

    assert_page(await person.http.post(second), 400, "invalid_request")
    assert (await held.grant()).generation == 2


async def test_two_launches_by_one_link_give_one_authorization(held: Held, person: Browser) -> None:
    link, other = await offered(held), Browser(stops_at=f"{held.stage.public_url}/callback/")
    waiting = await other.open((await other.http.post(link)).headers["location"])
    await go_on(person, link)

    late = await other.http.get(waiting.url)

    assert_page(late, 403, "access_denied")
    assert (await held.grant()).generation == 2
    assert revoked_at_ehr(held)
    await other.close()


async def test_the_callback_belongs_to_the_browser_that_pressed_the_button(held: Held, person: Browser) -> None:
    """(CB-02)."""
    thief = Browser(stops_at=f"{held.stage.public_url}/callback/")
    came = await thief.open((await thief.http.post(await offered(held))).headers["location"])

    assert_page(await person.http.get(came.url), 400, "invalid_request")
    assert (await held.grant()).generation == 1
    await thief.close()


async def test_opening_a_link_begins_nothing(held: Held, person: Browser) -> None:
    link = await offered(held)
    with nothing_sent(held.stage.sandbox):
        said = await person.http.get(link)

    assert said.status_code == 200
    assert "growth-chart" in said.text
    assert "<script" not in said.text
    assert said.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in said.headers["content-security-policy"]
    assert "set-cookie" not in said.headers
    assert not [key async for key in held.stage.redis.scan_iter("sb:launch:*")]


async def test_a_link_begins_ten_launches_in_ten_minutes(held: Held, person: Browser) -> None:
    link = await offered(held)
    said = [(await person.http.post(link)).status_code for _ in range(11)]
    assert said == [303] * 10 + [400]

    held.stage.clock.advance(601)

    assert (await person.http.post(link)).status_code == 303


async def test_a_link_ends_at_its_time(held: Held, person: Browser) -> None:
    link = await offered(held, lifetime=300)
    held.stage.clock.advance(301)

    with nothing_sent(held.stage.sandbox):
        assert_page(await person.http.post(link), 400, "invalid_request")


async def test_a_revoked_grant_is_not_revived(held: Held, person: Browser) -> None:
    """(HB-08): not by a new link, not by an old one, and not by a launch that was under way."""
    link = await offered(held)
    browser = Browser(stops_at=f"{held.stage.public_url}/callback/")
    waiting = await browser.open((await browser.http.post(link)).headers["location"])
    await held.stage.broker.revoke_grant(held.tag, cause="test")

    assert_page(await browser.http.get(waiting.url), 403, "access_denied")
    assert_page(await person.http.post(link), 400, "invalid_request")
    with pytest.raises(InvalidRequest, match="is revoked"):
        await offered(held)

    assert (await held.grant()).state == "revoked"
    assert revoked_at_ehr(held)
    await browser.close()


async def test_a_refresh_that_was_under_way_does_not_undo_it(held: Held, person: Browser) -> None:
    """RF-04."""
    grant = await held.grant()
    renewal = held.stage.broker.keeper.refresher.renewal
    owner = "an attempt@1"
    assert await renewal._claim(grant, owner, "") == "claimed"
    await renewal.sending._intend(grant, owner, 10)

    await go_on(person, await offered(held))

    sealed = await held.stage.broker.grants.seal(
        held.tag,
        grant.terms,
        await held.stage.broker.grants.open_tokens(grant),
        generation=2,
        created_at=grant.created_at,
        used_at=grant.used_at,
    )
    assert await held.stage.broker.grants.commit(sealed, owner=owner) == "stale"


async def test_a_grant_of_nobody_known_is_given_no_link(secret_stage: BrokerStage, secret_app: App) -> None:
    """Whoever logs in by it could not be told from somebody else."""
    secret_stage.sandbox.fault("token_members", drop=["id_token", "patient"])
    answer = await secret_app.standalone()

    with pytest.raises(InvalidRequest, match="nothing tells whom"):
        await secret_stage.broker.offer_reauthorization(answer["access_token"][4:16], lifetime=3600)


async def test_a_backend_grant_is_given_no_link(stage: BrokerStage, reports: App) -> None:
    ask = {"grant_type": "client_credentials", "scope": "system/Patient.rs", "resource": reports.base}
    tag = (await reports.token(**ask)).json()["access_token"][4:16]

    with pytest.raises(InvalidRequest, match="is no person's"):
        await stage.broker.offer_reauthorization(tag, lifetime=3600)


async def test_a_link_is_kept_as_its_keyed_hash(held: Held) -> None:
    text = (await offered(held)).rpartition("/")[2]

    redis = held.stage.redis
    kept = b"".join([key + (await redis.get(key)) async for key in redis.scan_iter("*:reauthorize:*")])

    assert kept
    assert text.encode() not in kept
    assert text not in "".join(held.stage.audit_lines())


async def test_a_grant_is_authorized_again_without_loss_for_who_holds_it_meanwhile(
    secret_stage: BrokerStage, secret_app: App, person: Browser
) -> None:
    held = await hold(secret_stage, secret_app)
    narrowed = await held.app.token(grant_type="refresh_token", refresh_token=held.refresh_handle)

    await go_on(person, await offered(held))

    for handle in (held.handle, narrowed.json()["access_token"]):
        assert (await held.app.fhir(handle, held.path)).status_code == 200
