"""The authorization request: what is answered by redirect, what by a page, what a launch is good for."""

from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.sandbox.oauth.conftest import Start
from tests.sandbox.oauth.driver import CALLBACK, FHIR_BASE, ORIGIN, Driver, redirected


async def test_an_approved_request_comes_back_with_a_marked_code_and_the_same_state(ehr: Driver) -> None:
    carried = redirected(await ehr.authorize())
    assert carried.keys() == {"code", "state"}
    assert carried["state"] == "the-state"
    assert carried["code"].startswith("canary-code-")


async def test_get_and_post_are_answered_alike(ehr: Driver) -> None:
    """AL-14."""
    answer = await ehr.http.post("/oauth2/authorize", data=ehr.request())
    assert redirected(answer).keys() == {"code", "state"}


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "nobody"},
        {"client_id": None},
        {"redirect_uri": None},
        {"redirect_uri": f"{CALLBACK}/"},
        {"redirect_uri": CALLBACK.upper()},
        {"redirect_uri": f"{CALLBACK}?more=1"},
        {"redirect_uri": "http://evil.example/callback"},
    ],
)
async def test_an_uncertain_client_or_redirect_uri_is_never_redirected_to(
    ehr: Driver, changes: dict[str, str | None]
) -> None:
    """AL-05, OA-24."""
    answer = await ehr.authorize(**changes)
    assert answer.status_code == 400
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "invalid_request"),
        ({"aud": None}, "invalid_request"),
        ({"aud": f"{FHIR_BASE}/"}, "invalid_request"),
        ({"aud": ORIGIN}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"scope": None}, "invalid_request"),
        ({"scope": "user/*.cruds"}, "invalid_scope"),
        ({"launch": "canary-launch-made-up", "scope": "launch patient/*.rs"}, "invalid_request"),
        ({"launch": "canary-launch-made-up"}, "invalid_request"),
        ({"scope": "launch patient/*.rs"}, "invalid_request"),
    ],
)
async def test_any_other_fault_goes_back_to_the_client(ehr: Driver, changes: dict[str, str | None], error: str) -> None:
    carried = redirected(await ehr.authorize(**changes))
    assert (carried["error"], carried["state"]) == (error, "the-state")
    assert "code" not in carried


async def test_a_request_without_state_is_refused(ehr: Driver) -> None:
    carried = redirected(await ehr.authorize(state=None))
    assert carried["error"] == "invalid_request"
    assert "state" not in carried


async def test_a_parameter_given_twice_is_refused(ehr: Driver) -> None:
    answer = await ehr.http.get("/oauth2/authorize", params=[*ehr.request().items(), ("state", "another")])
    assert answer.status_code == 400
    assert "more than once: state" in answer.text


@pytest.mark.parametrize(
    ("rule", "accepted"),
    [
        ("exact", {FHIR_BASE}),
        ("slash-optional", {FHIR_BASE, f"{FHIR_BASE}/"}),
        ("slash-required", {f"{FHIR_BASE}/"}),
        ("optional", {FHIR_BASE, None}),
        ("refused", {None}),
    ],
)
async def test_what_aud_must_be_is_a_setting(start: Start, rule: str, accepted: set[str | None]) -> None:
    """Vendors want it exact, with or without a slash, or not at all (AL-11, OT-02)."""
    async with start(aud=rule) as ehr:
        await ehr.register()
        for aud in (FHIR_BASE, f"{FHIR_BASE}/", None, ORIGIN):
            assert ("code" in redirected(await ehr.authorize(aud=aud))) is (aud in accepted)


async def test_iss_is_sent_exactly_where_it_is_advertised(start: Start) -> None:
    """CB-08."""
    async with start(response_iss=True) as ehr:
        await ehr.register()
        configuration = (await ehr.http.get("/api/FHIR/R4/.well-known/smart-configuration")).json()
        assert configuration["authorization_response_iss_parameter_supported"] is True
        assert redirected(await ehr.authorize())["iss"] == f"{ORIGIN}/oauth2"
        assert redirected(await ehr.authorize(aud="x"))["iss"] == f"{ORIGIN}/oauth2"


async def test_a_redirect_uri_keeps_its_own_query(ehr: Driver) -> None:
    await ehr.register(redirect_uris=[f"{CALLBACK}?tenant=1"])
    answer = await ehr.authorize(redirect_uri=f"{CALLBACK}?tenant=1")
    assert parse_qsl(urlsplit(answer.headers["location"]).query)[0] == ("tenant", "1")


async def test_a_launch_carries_its_patient_and_encounter_into_the_token_answer(ehr: Driver) -> None:
    """CX-01, CX-02, CX-05."""
    patient, encounter = await visit_of(ehr)
    launch = await ehr.launch(patient=patient, encounter=encounter)
    tokens = await ehr.tokens(launch=launch, scope="launch patient/*.rs")
    assert (tokens["patient"], tokens["encounter"]) == (patient, encounter)
    assert tokens["need_patient_banner"] is False


async def test_a_launch_can_be_picked_up_once(ehr: Driver) -> None:
    """AL-01."""
    patient, _ = await visit_of(ehr)
    launch = await ehr.launch(patient=patient)
    assert launch.startswith("canary-launch-")
    assert "code" in redirected(await ehr.authorize(launch=launch, scope="launch patient/*.rs"))
    assert redirected(await ehr.authorize(launch=launch, scope="launch patient/*.rs"))["error"] == "invalid_request"


async def test_a_refused_request_does_not_use_up_its_launch(ehr: Driver) -> None:
    patient, _ = await visit_of(ehr)
    launch = await ehr.launch(patient=patient)
    assert "error" in redirected(await ehr.authorize(launch=launch, scope="launch patient/*.rs", aud="x"))
    assert "code" in redirected(await ehr.authorize(launch=launch, scope="launch patient/*.rs"))


async def test_a_launch_expires(ehr: Driver) -> None:
    patient, _ = await visit_of(ehr)
    launch = await ehr.launch(patient=patient)
    ehr.now.seconds += 300
    carried = redirected(await ehr.authorize(launch=launch, scope="launch patient/*.rs"))
    assert carried["error_description"] == "launch has expired"


async def test_a_launch_of_one_client_is_no_use_to_another(ehr: Driver) -> None:
    patient, _ = await visit_of(ehr)
    launch = await ehr.launch(patient=patient)
    await ehr.register("another")
    assert redirected(await ehr.authorize(launch=launch, scope="launch patient/*.rs"))["error"] == "invalid_request"


async def test_auto_approval_takes_the_patient_of_the_login_hint(ehr: Driver) -> None:
    first = (await ehr.tokens())["patient"]
    other = await another_patient(ehr, first)
    assert (await ehr.tokens(login_hint=f"patient:{other}"))["patient"] == other


async def test_auto_approval_refuses_a_patient_that_does_not_exist(ehr: Driver) -> None:
    assert (await ehr.authorize(login_hint="patient:nobody")).status_code == 400


async def test_a_standalone_launch_for_an_encounter_gets_the_latest_one(ehr: Driver) -> None:
    tokens = await ehr.tokens(scope="launch/patient launch/encounter patient/*.rs")
    bundle = (await ehr.fhir(tokens["access_token"], f"Encounter?patient={tokens['patient']}&_sort=-date")).json()
    assert tokens["encounter"] == bundle["entry"][0]["resource"]["id"]


async def visit_of(ehr: Driver) -> tuple[str, str]:
    """Return a patient and the oldest of its encounters."""
    tokens = await ehr.tokens()
    tokens = await ehr.tokens(login_hint=f"patient:{await another_patient(ehr, tokens['patient'])}",
                              scope="launch/patient patient/*.rs")  # fmt: skip
    bundle = (await ehr.fhir(tokens["access_token"], f"Encounter?patient={tokens['patient']}&_sort=date")).json()
    return tokens["patient"], bundle["entry"][0]["resource"]["id"]


async def another_patient(ehr: Driver, first: str) -> str:
    home = (await ehr.http.get("/")).text
    identifiers = [part.partition('"')[0] for part in home.split('href="/patients/')[1:]]
    return next(identifier for identifier in identifiers if identifier != first)
