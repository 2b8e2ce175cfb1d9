"""The journal and the control paths: everything is told, and no secret is."""

import hashlib
import json
from typing import Any

import pytest

from tests.sandbox.oauth.conftest import Start
from tests.sandbox.oauth.driver import CALLBACK, Driver

PUBLIC = {"client_id": "app", "authentication": "none", "redirect_uris": [CALLBACK], "scopes": ["openid"]}


async def test_requests_are_journaled_in_order_with_what_they_were(ehr: Driver) -> None:
    tokens = await ehr.tokens()
    await ehr.fhir(tokens["access_token"], f"Observation?patient={tokens['patient']}&_count=1")
    await ehr.http.get("/api/FHIR/R4/metadata")
    arrived = [entry for entry in await journal(ehr) if entry["kind"] != "issued"]
    told = [(entry["kind"], entry["method"], entry["status"], entry["client_id"]) for entry in arrived]
    assert told == [
        ("authorize", "GET", 303, "app"),
        ("token", "POST", 200, "app"),
        ("fhir", "GET", 200, "app"),
        ("metadata", "GET", 200, None),
    ]
    assert arrived[1]["grant_type"] == "authorization_code"
    assert arrived[1]["parameters"].keys() == {"grant_type", "code", "redirect_uri", "code_verifier"}
    assert arrived[2]["parameters"] == {"patient": tokens["patient"], "_count": "1"}
    assert [entry["authorization"] for entry in arrived] == [False, True, True, False]
    assert arrived[2]["bearer"] == sha256(tokens["access_token"])[:16]
    assert arrived[1]["bearer"] is None


async def test_what_was_issued_is_journaled_by_hash(ehr: Driver) -> None:
    tokens = await ehr.tokens()
    issued = await journal(ehr, "issued")
    assert [entry["token"] for entry in issued] == ["client_secret", "code", "access_token", "refresh_token"]
    assert issued[0]["sha256"] == sha256(ehr.secret)
    assert issued[2] == {
        "kind": "issued",
        "time": ehr.now(),
        "token": "access_token",
        "sha256": sha256(tokens["access_token"]),
        "client_id": "app",
        "patient": tokens["patient"],
    }


async def test_no_secret_is_told_by_any_control_path(ehr: Driver) -> None:
    patient = (await ehr.tokens())["patient"]
    launch = await ehr.launch(patient=patient)
    tokens = await ehr.tokens(launch=launch, scope="launch offline_access patient/*.rs")
    await ehr.refresh(tokens["refresh_token"])
    await ehr.http.get(f"/api/FHIR/R4/Patient?access_token={tokens['access_token']}")
    await ehr.http.post("/oauth2/introspect", data={"token": tokens["access_token"], "scope": ehr.secret})
    told = [(await ehr.http.get(f"/__{name}")).text for name in ("journal", "counts", "clients", "faults")]
    assert len(json.loads(told[0])) > 10
    assert not [text for text in told if "canary-" in text or ehr.secret in text]


async def test_numbers_are_kept_by_kind_and_grant(ehr: Driver) -> None:
    tokens = await ehr.tokens()
    await ehr.refresh(tokens["refresh_token"])
    counts = await ehr.counts()
    assert {name: counts[name] for name in ("authorize", "token", "token.authorization_code")} == {
        "authorize": 1,
        "token": 2,
        "token.authorization_code": 1,
    }
    assert (counts["token.refresh_token"], counts["issued.access_token"], counts["fhir"]) == (1, 2, 0)


async def test_a_reset_forgets_everything_but_the_clients(ehr: Driver) -> None:
    tokens = await ehr.tokens()
    await ehr.arm("fhir_500", times=-1)
    assert (await ehr.http.post("/__reset")).status_code == 204
    assert await journal(ehr) == []
    assert (await ehr.http.get("/__faults")).json() == []
    assert set((await ehr.counts()).values()) == {0}
    assert (await ehr.fhir(tokens["access_token"], "Patient")).status_code == 401
    assert (await ehr.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert [client["client_id"] for client in (await ehr.http.get("/__clients")).json()] == ["app"]


async def test_a_reset_can_drop_the_clients_too(ehr: Driver) -> None:
    assert (await ehr.http.post("/__reset", json={"clients": "drop"})).status_code == 204
    assert (await ehr.http.get("/__clients")).json() == []
    assert (await ehr.http.post("/__reset", json={"clients": "some"})).status_code == 400


async def test_a_reset_undoes_what_was_written(ehr: Driver) -> None:
    await ehr.register(grant_types=["client_credentials"], scopes="system/*.cruds")
    for expected in (9, 9):
        token = (await ehr.token(grant_type="client_credentials", scope="system/*.cruds")).json()["access_token"]
        total = (await ehr.fhir(token, "Patient?_summary=count")).json()["total"]
        assert total == expected
        created = await ehr.http.post(
            "/api/FHIR/R4/Patient",
            json={"resourceType": "Patient"},
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/fhir+json"},
        )
        assert created.status_code == 201
        await ehr.http.post("/__reset")


async def test_registered_clients_are_listed_and_can_be_removed(ehr: Driver) -> None:
    registered = await ehr.register("urn:app/1", client_name="One")
    assert registered["client_secret"].startswith("canary-secret-")
    (listed,) = [client for client in (await ehr.http.get("/__clients")).json() if client["client_id"] == "urn:app/1"]
    assert listed == {name: value for name, value in registered.items() if name != "client_secret"}
    assert (await ehr.http.delete("/__clients/urn:app/1")).status_code == 204
    assert (await ehr.http.delete("/__clients/urn:app/1")).status_code == 404
    assert (await ehr.authorize()).status_code == 400


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"client_id": ""}, "client_id is a non-empty string"),
        ({"authentication": "tls"}, "authentication is one of none, client_secret_basic"),
        ({"scopes": []}, "scopes is missing"),
        ({"scopes": [1]}, "scopes is a list of strings"),
        ({"redirect_uris": []}, "redirect_uris is missing"),
        ({"redirect_uris": ["/callback"]}, "/callback is not an absolute URL"),
        ({"redirect_uris": ["http://app.example/#"]}, None),
        ({"redirect_uris": ["http://app.example/#top"]}, "without a fragment"),
        ({"client_secret": "s"}, "client_secret has no use"),
        ({"authentication": "private_key_jwt"}, "either jwks_uri or jwks"),
        ({"authentication": "private_key_jwt", "jwks": {}, "jwks_uri": "https://a.example/"}, "either jwks_uri"),
        ({"authentication": "private_key_jwt", "jwks": []}, "jwks is a JWK Set"),
        ({"jwks": {"keys": []}}, "either jwks_uri or jwks"),
        ({"grant_types": ["implicit"]}, "unknown grant_types: implicit"),
        ({"grant_types": ["client_credentials"]}, "needs a client that authenticates"),
        ({"refresh": "never"}, "refresh is one of rotate, keep, "),
        ({"client_uri": "http://app.example/"}, "unknown members: client_uri"),
    ],
)
async def test_a_wrong_registration_is_refused_and_told_why(
    ehr: Driver, changes: dict[str, Any], says: str | None
) -> None:
    answer = await ehr.http.post("/__clients", json=PUBLIC | changes)
    if says is None:
        assert answer.status_code == 201
    else:
        assert answer.status_code == 400
        assert says in answer.json()["error"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"client_id": "nobody"}, "client_id is not"),
        ({"patient": "nobody"}, "no such patient"),
        ({"encounter": "none"}, "no such encounter"),
        ({"user": "doctor"}, "an object with client_id, patient, encounter"),
    ],
)
async def test_a_launch_of_what_does_not_exist_is_refused(ehr: Driver, changes: dict[str, str], says: str) -> None:
    patient = (await ehr.tokens())["patient"]
    answer = await ehr.http.post("/__launch", json={"client_id": "app", "patient": patient} | changes)
    assert answer.status_code == 400
    assert says in answer.json()["error"]


@pytest.mark.parametrize("headers", [{"Origin": "http://127.0.0.1:9400"}, {"Sec-Fetch-Site": "cross-site"}])
async def test_web_pages_cannot_use_the_control_paths(ehr: Driver, headers: dict[str, str]) -> None:
    assert (await ehr.http.post("/__reset", headers=headers)).status_code == 403
    assert (await ehr.http.get("/__journal", headers=headers)).status_code == 403


async def test_control_requests_leave_no_trace(start: Start) -> None:
    async with start() as ehr:
        await ehr.counts()
        assert await journal(ehr) == []


async def journal(ehr: Driver, kind: str | None = None) -> list[dict[str, Any]]:
    answer = await ehr.http.get("/__journal", params={"kind": kind} if kind else {})
    return list(answer.json())


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
