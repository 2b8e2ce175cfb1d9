"""Apps that export: two of them, behind one registration, and what they do step by step."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import httpx2

from broker.credentials import APP_SECRET, mint
from tests.stage import App, BrokerStage, Sandbox
from tests.stage.broker import days_ahead

SCOPE = "system/*.rs"
ASYNC = {"Prefer": "respond-async", "Accept": "application/fhir+json"}
SECRET = mint(APP_SECRET, "", lambda count: hashlib.sha256(b"exports").digest()[:count]).reveal()
_APP = """
[[app]]
id = "{id}"
authentication = "client_secret_basic"
[[app.secret]]
hash = "{hash}"
expires = {expires}
[[app.access]]
registration = "sandbox-backend"
scopes = "{scopes}"
"""


def app_toml(id_: str, scopes: str = SCOPE) -> str:
    """Return the table of an app that may export."""
    hashed = "sha256:" + hashlib.sha256(SECRET.encode()).hexdigest()
    return _APP.format(id=id_, hash=hashed, expires=days_ahead(399), scopes=scopes)


APPS = app_toml("nightly") + app_toml("research")


@dataclass
class Exporter:
    """One app, with a handle of its own."""

    stage: BrokerStage
    app: App
    handle: str = ""

    async def renew(self, scope: str = SCOPE) -> None:
        """Get a handle."""
        answer = await self.app.token(grant_type="client_credentials", scope=scope, resource=self.app.base)
        assert answer.status_code == 200, answer.text
        self.handle = answer.json()["access_token"]

    async def kick_off(self, path: str = "$export", **options: Any) -> httpx2.Response:
        """Ask for an export."""
        headers = {**ASYNC, **options.pop("headers", {})}
        return await self.app.fhir(self.handle, path, headers=headers, **options)

    async def begun(self, path: str = "$export", **options: Any) -> str:
        """Begin an export and return its URL, relative to the FHIR base."""
        answer = await self.kick_off(path, **options)
        assert answer.status_code == 202, answer.text
        return self.path_of(answer.headers["content-location"])

    async def look(self, job: str) -> httpx2.Response:
        """Ask for a status as soon as that is welcome."""
        self.wait(10)
        return await self.app.fhir(self.handle, job)

    def wait(self, seconds: int) -> None:
        """Let time pass, at the broker and at the EHR."""
        self.stage.clock.advance(seconds)
        self.stage.sandbox.switch(clock_ahead=round(self.stage.clock.ahead))

    async def manifest(self, job: str) -> dict[str, Any]:
        """Return the manifest once it is there."""
        for _ in range(10):
            answer = await self.look(job)
            if answer.status_code == 200:
                return dict(answer.json())
            assert answer.status_code == 202, answer.text
        raise AssertionError("the export does not end")

    async def file(self, url: str, **headers: str) -> httpx2.Response:
        """Fetch a file of a manifest."""
        return await self.app.fhir(self.handle, self.path_of(url), headers=headers)

    async def exported(self, job: str) -> dict[str, list[dict[str, Any]]]:
        """Fetch all files; return their resources by type."""
        found: dict[str, list[dict[str, Any]]] = {}
        for entry in (await self.manifest(job))["output"]:
            answer = await self.file(entry["url"])
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"] == "application/fhir+ndjson"
            found.setdefault(entry["type"], []).extend(json.loads(line) for line in answer.text.splitlines())
        return found

    def path_of(self, url: str) -> str:
        """Return what follows the broker's FHIR base: everything an app is given lies below it."""
        assert url.startswith(f"{self.app.base}/"), url
        return url.removeprefix(f"{self.app.base}/")


async def exporter(stage: BrokerStage, client_id: str = "nightly", scope: str = SCOPE) -> Exporter:
    """Make one, with a handle."""
    made = Exporter(stage, App(stage.base, client_id, auth=(client_id, SECRET)))
    await made.renew(scope)
    return made


async def every_step(stage: BrokerStage) -> None:
    """Take exports from kick-off to their ends, one of them by way of the line; the EHR takes one at a time."""
    nightly, research = await exporter(stage), await exporter(stage, "research")
    first, second = [await each.begun("Patient/$export?_type=Patient") for each in (nightly, research)]
    assert (await research.look(second)).headers["x-progress"] == "in line"
    assert (await nightly.exported(first)).keys() == {"Patient"}
    assert (await nightly.app.fhir(nightly.handle, first, method="DELETE")).status_code == 202
    research.wait(121)
    assert "x-progress" not in (await research.look(second)).headers
    assert (await research.app.fhir(research.handle, second, method="DELETE")).status_code == 202
    for each in (nightly, research):
        await each.app.close()


def sent(sandbox: Sandbox) -> int:
    """Return how many requests arrived at the EHR's FHIR side and storage so far."""
    counts = sandbox.counts()
    return int(counts.get("fhir", 0)) + int(counts.get("storage", 0))


def with_token(sandbox: Sandbox, host: str) -> int:
    """Return how many requests brought a token to this host name."""
    return sum(
        entry["authorization"] and str(entry["headers"]["host"]).startswith(host) for entry in sandbox.journal("fhir")
    )
