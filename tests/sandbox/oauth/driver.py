"""A client and its user, as the tests need them: every step of a journey is one call."""

import base64
import hashlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2

ORIGIN = "http://127.0.0.1:9400"
FHIR_BASE = f"{ORIGIN}/api/FHIR/R4"
CALLBACK = "http://app.example/callback"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
SCOPES = "launch launch/patient launch/encounter openid fhirUser offline_access online_access patient/*.rs"


@dataclass(slots=True)
class Now:
    """A clock that moves when it is told to."""

    seconds: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass(slots=True)
class Driver:
    """One registered client of one sandbox."""

    http: httpx2.AsyncClient
    now: Now
    client_id: str = "app"
    secret: str = ""

    async def register(self, client_id: str = "app", **members: Any) -> dict[str, Any]:
        document = {
            "client_id": client_id,
            "authentication": "client_secret_basic",
            "redirect_uris": [CALLBACK],
            "launch_uri": "http://app.example/launch",
            "scopes": SCOPES,
        }
        answer = await self.http.post("/__clients", json=document | members)
        assert answer.status_code == 201, answer.text
        self.client_id = client_id
        self.secret = answer.json().get("client_secret", "")
        return dict(answer.json())

    def request(self, **changes: str | None) -> dict[str, str]:
        """Return the parameters of an authorization request, with these changed, or left out when None."""
        parameters: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": CALLBACK,
            "scope": "launch/patient openid fhirUser offline_access patient/Observation.rs",
            "state": "the-state",
            "nonce": "the-nonce",
            "aud": FHIR_BASE,
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        }
        return {name: value for name, value in {**parameters, **changes}.items() if value is not None}

    async def authorize(self, **changes: str | None) -> httpx2.Response:
        return await self.http.get("/oauth2/authorize", params=self.request(**changes))

    async def code(self, **changes: str | None) -> str:
        return redirected(await self.authorize(**changes))["code"]

    async def token(self, **form: str) -> httpx2.Response:
        return await self.http.post("/oauth2/token", data=form, auth=(self.client_id, self.secret))

    async def exchange(self, code: str, /, **changes: str) -> httpx2.Response:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
        return await self.token(**{**form, **changes})

    async def tokens(self, **changes: str | None) -> dict[str, Any]:
        answer = await self.exchange(await self.code(**changes))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def refresh(self, refresh_token: str, **more: str) -> httpx2.Response:
        return await self.token(grant_type="refresh_token", refresh_token=refresh_token, **more)

    async def fhir(self, access_token: str, path: str) -> httpx2.Response:
        return await self.http.get(f"/api/FHIR/R4/{path}", headers={"Authorization": f"Bearer {access_token}"})

    async def arm(self, name: str, **parameters: Any) -> None:
        answer = await self.http.post("/__faults", json={"name": name, **parameters})
        assert answer.status_code == 201, answer.text

    async def counts(self) -> dict[str, int]:
        return dict((await self.http.get("/__counts")).json())

    async def launch(self, **chosen: str) -> str:
        answer = await self.http.post("/__launch", json={"client_id": self.client_id, **chosen})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["launch"])


def redirected(answer: httpx2.Response) -> dict[str, str]:
    """Return what a redirect to the client's callback carries."""
    assert answer.status_code == 303, answer.text
    url = urlsplit(answer.headers["location"])
    assert f"{url.scheme}://{url.netloc}{url.path}" == CALLBACK
    return dict(parse_qsl(url.query))
