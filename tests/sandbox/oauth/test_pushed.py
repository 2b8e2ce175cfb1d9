"""Pushed authorization requests (RFC 9126): sent ahead, good once, for one client and one minute."""

import httpx2
import pytest

from tests.sandbox.oauth.conftest import Start
from tests.sandbox.oauth.driver import Driver, redirected


async def test_a_pushed_request_is_answered_like_one_in_the_url(start: Start) -> None:
    """(OA-22)"""
    async with start(pushed_requests="offered") as ehr:
        await ehr.register()
        answer = await push(ehr)
        assert (answer.status_code, answer.json()["expires_in"]) == (201, 60)
        assert answer.headers["cache-control"] == "no-store"
        request_uri = answer.json()["request_uri"]
        assert request_uri.startswith("urn:ietf:params:oauth:request_uri:canary-request-")
        code = redirected(await follow(ehr, request_uri))["code"]
        assert (await ehr.exchange(code)).status_code == 200
        assert (await ehr.counts())["par"] == 1


async def test_a_request_uri_works_once(start: Start) -> None:
    """(OA-22)"""
    async with start(pushed_requests="offered") as ehr:
        await ehr.register()
        request_uri = (await push(ehr)).json()["request_uri"]
        assert "code" in redirected(await follow(ehr, request_uri))
        assert (await follow(ehr, request_uri)).status_code == 400


async def test_a_request_uri_lives_for_a_minute(start: Start) -> None:
    """(OA-22)"""
    async with start(pushed_requests="offered") as ehr:
        await ehr.register()
        request_uri = (await push(ehr)).json()["request_uri"]
        ehr.now.seconds += 60
        answer = await follow(ehr, request_uri)
        assert answer.status_code == 400
        assert "request_uri has expired" in answer.text


async def test_a_request_uri_of_one_client_is_no_use_to_another(start: Start) -> None:
    """(OA-22)"""
    async with start(pushed_requests="offered") as ehr:
        await ehr.register()
        request_uri = (await push(ehr)).json()["request_uri"]
        await ehr.register("another")
        assert (await follow(ehr, request_uri)).status_code == 400


async def test_where_pushing_is_required_nothing_else_is_taken(start: Start) -> None:
    """(OA-22)"""
    async with start(pushed_requests="required") as ehr:
        await ehr.register()
        assert redirected(await ehr.authorize())["error"] == "invalid_request"
        assert "code" in redirected(await follow(ehr, (await push(ehr)).json()["request_uri"]))
        document = (await ehr.http.get("/api/FHIR/R4/.well-known/smart-configuration")).json()
        assert document["require_pushed_authorization_requests"] is True
        assert document["pushed_authorization_request_endpoint"].endswith("/oauth2/par")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"redirect_uri": "http://evil.example/"}, "invalid_request"),
        ({"aud": "http://evil.example/"}, "invalid_request"),
        ({"scope": "user/*.cruds"}, "invalid_scope"),
        ({"state": None}, "invalid_request"),
        ({"request_uri": "urn:ietf:params:oauth:request_uri:x"}, "invalid_request"),
        ({"client_id": "another"}, "invalid_client"),
    ],
)
async def test_a_request_that_would_be_refused_is_refused_when_it_is_pushed(
    start: Start, changes: dict[str, str | None], error: str
) -> None:
    async with start(pushed_requests="offered") as ehr:
        await ehr.register()
        assert (await push(ehr, **changes)).json()["error"] == error


async def test_only_the_client_itself_may_push(start: Start) -> None:
    async with start(pushed_requests="offered") as ehr:
        await ehr.register()
        ehr.secret = "wrong"
        assert (await push(ehr)).status_code == 401


async def test_a_launch_is_used_up_by_the_authorization_request_not_by_pushing_it(start: Start) -> None:
    async with start(pushed_requests="offered") as ehr:
        await ehr.register()
        patient = (await ehr.tokens())["patient"]
        launch = await ehr.launch(patient=patient)
        first, second = [await push(ehr, launch=launch, scope="launch patient/*.rs") for _ in range(2)]
        assert "code" in redirected(await follow(ehr, first.json()["request_uri"]))
        assert redirected(await follow(ehr, second.json()["request_uri"]))["error"] == "invalid_request"


async def test_pushing_can_fail_for_a_moment(start: Start) -> None:
    async with start(pushed_requests="offered") as ehr:
        await ehr.register()
        await ehr.arm("par_503")
        assert [(await push(ehr)).status_code for _ in range(2)] == [503, 201]


async def test_there_is_no_such_endpoint_unless_it_is_asked_for(ehr: Driver) -> None:
    assert (await push(ehr)).status_code == 404


async def test_a_posted_request_without_a_launch_can_be_refused(start: Start) -> None:
    """Epic documents POST for EHR launches only (AL-14, EP-11)."""
    async with start(refuse_standalone_post=True) as ehr:
        await ehr.register()
        assert redirected(await ehr.http.post("/oauth2/authorize", data=ehr.request()))["error"] == "invalid_request"
        patient = (await ehr.tokens())["patient"]
        request = ehr.request(launch=await ehr.launch(patient=patient), scope="launch patient/*.rs")
        assert "code" in redirected(await ehr.http.post("/oauth2/authorize", data=request))


async def push(ehr: Driver, **changes: str | None) -> httpx2.Response:
    form = {**ehr.request(**changes)}
    return await ehr.http.post("/oauth2/par", data=form, auth=(ehr.client_id, ehr.secret))


async def follow(ehr: Driver, request_uri: str) -> httpx2.Response:
    parameters = {"client_id": ehr.client_id, "request_uri": request_uri}
    return await ehr.http.get("/oauth2/authorize", params=parameters)
