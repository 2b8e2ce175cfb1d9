"""An app written by somebody who knows SMART and nothing of the broker."""

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx2

from tests.stage.browser import Browser, Landing

ORIGIN = "http://127.0.0.1:1"
REDIRECT_URI = f"{ORIGIN}/callback"
LAUNCH_URI = f"{ORIGIN}/launch"
SCOPE = "launch/patient openid fhirUser offline_access patient/*.rs"


@dataclass
class App:
    """A client of the broker with a browser at hand."""

    base: str
    """The FHIR base URL it was configured with."""
    client_id: str = "growth-chart"
    auth: tuple[str, str] | None = None
    redirect_uri: str = REDIRECT_URI
    http: httpx2.AsyncClient = field(default_factory=lambda: httpx2.AsyncClient(trust_env=False, timeout=30))
    browser: Browser = field(default_factory=lambda: Browser(stops_at=ORIGIN))
    verifier: str = ""
    answers: list[httpx2.Response] = field(default_factory=list)

    async def endpoints(self) -> dict[str, str]:
        """Read the SMART configuration."""
        return dict((await self.http.get(f"{self.base}/.well-known/smart-configuration")).json())

    async def authorize(self, *, scope: str = SCOPE, launch: str | None = None, **changes: str | None) -> Landing:
        """Send the browser to the authorization endpoint; `changes` replace or (None) remove parameters."""
        self.verifier = secrets.token_urlsafe(32)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()
        parameters: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": scope,
            "state": "app-state",
            "aud": self.base,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "launch": launch,
            **changes,
        }
        query = urlencode({name: value for name, value in parameters.items() if value is not None})
        endpoint = self.base.rpartition("/fhir/")[0] + "/oauth/authorize"
        return await self.browser.open(f"{endpoint}?{query}")

    async def token(self, **form: str) -> httpx2.Response:
        """Ask the token endpoint."""
        endpoint = self.base.rpartition("/fhir/")[0] + "/oauth/token"
        if self.auth is None:
            form.setdefault("client_id", self.client_id)
        answer = await self.http.post(endpoint, data=form, auth=self.auth or httpx2.USE_CLIENT_DEFAULT)
        self.answers.append(answer)
        return answer

    async def exchange(self, landing: Landing) -> dict[str, Any]:
        """Trade the code that the browser brought."""
        assert "code" in landing.parameters, landing
        answer = await self.token(
            grant_type="authorization_code",
            code=landing.parameters["code"],
            redirect_uri=self.redirect_uri,
            code_verifier=self.verifier,
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def standalone(self, *, scope: str = SCOPE) -> dict[str, Any]:
        """Run a standalone launch to its token response."""
        return await self.exchange(await self.authorize(scope=scope))

    async def launched(
        self, launch_url: str, *, scope: str = SCOPE.replace("launch/patient", "launch")
    ) -> dict[str, Any]:
        """Run an EHR launch, from the EHR's launch URL to the token response."""
        landing = await self.browser.open(launch_url)
        assert landing.url.startswith(LAUNCH_URI), landing
        assert landing.parameters["iss"] == self.base
        return await self.exchange(await self.authorize(scope=scope, launch=landing.parameters["launch"]))

    async def fhir(self, handle: str, path: str, *, method: str = "GET", **options: Any) -> httpx2.Response:
        """Call FHIR."""
        headers = {"Authorization": f"Bearer {handle}", **options.pop("headers", {})}
        answer = await self.http.request(method, f"{self.base}/{path}", headers=headers, **options)
        self.answers.append(answer)
        return answer

    async def close(self) -> None:
        """Close its connections."""
        await self.http.aclose()
        await self.browser.close()
