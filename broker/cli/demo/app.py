"""The demo's app: a page per patient, by the unmodified Python `fhirclient`, which knows nothing of a broker."""

import asyncio
import html
import secrets
from dataclasses import dataclass, field
from typing import Any, Final

import requests
from fhirclient.client import FHIRClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

_SCOPE: Final = "offline_access patient/*.rs"
_COOKIE: Final = "growth_chart"
_PAGE: Final = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Growth chart</title><style>
body{{font:16px/1.5 system-ui,sans-serif;color:#1b2733;background:#f4f6f8;margin:0}}
main{{max-width:44rem;margin:2rem auto;background:#fff;border:1px solid #d9e0e6;border-radius:10px;padding:1.5rem 2rem}}
h1{{font-size:1.4rem;margin:.2rem 0}}table{{border-collapse:collapse;width:100%;margin-top:1rem}}
th,td{{text-align:left;padding:.35rem .5rem;border-bottom:1px solid #e6ebef}}small{{color:#5b6b79}}
code{{background:#eef2f5;border-radius:4px;padding:.1rem .35rem}}a{{color:#0b62a3}}</style></head><body><main>{body}
</main></body></html>"""


@dataclass
class GrowthChart:
    """The app. It keeps one `fhirclient` for each browser session."""

    fhir_base: str
    url: str
    sessions: dict[str, FHIRClient] = field(default_factory=dict)
    received: list[bytes] = field(default_factory=list)
    """Every answer the app ever got, for the demo's search."""

    def application(self) -> Starlette:
        """Build the ASGI application."""
        return Starlette(
            routes=[
                Route("/", self.start),
                Route("/launch", self.launch),
                Route("/callback", self.callback),
                Route("/patient", self.patient),
            ]
        )

    async def start(self, _: Request) -> Response:
        """Begin a standalone launch."""
        return await self._authorize(None)

    async def launch(self, request: Request) -> Response:
        """Begin an EHR launch: `iss` and `launch`, from whoever the app takes for its EHR."""
        if request.query_params.get("iss") != self.fhir_base:
            return HTMLResponse("unknown iss", 400)
        return await self._authorize(request.query_params.get("launch"))

    async def _authorize(self, launch: str | None) -> Response:
        settings = {
            "app_id": "growth-chart",
            "api_base": self.fhir_base,
            "redirect_uri": f"{self.url}/callback",
            "scope": _SCOPE,
            "launch_token": launch,
        }
        smart = FHIRClient(settings=settings)
        smart.server.session.hooks["response"].append(self._remember)
        await asyncio.to_thread(smart.prepare)
        session = secrets.token_urlsafe()
        self.sessions[session] = smart
        response = RedirectResponse(smart.authorize_url, 303)
        response.set_cookie(_COOKIE, session, httponly=True, samesite="lax")
        return response

    async def callback(self, request: Request) -> Response:
        """Finish the launch and show the patient."""
        smart = self.sessions.get(request.cookies.get(_COOKIE, ""))
        if smart is None:
            return HTMLResponse("no session", 400)
        await asyncio.to_thread(smart.handle_callback, str(request.url))
        return RedirectResponse("/patient", 303)

    async def patient(self, request: Request) -> Response:
        """Show the patient in context and a few observations."""
        smart = self.sessions.get(request.cookies.get(_COOKIE, ""))
        if smart is None:
            return RedirectResponse("/", 303)
        return HTMLResponse(await asyncio.to_thread(self._render, smart))

    def _render(self, smart: FHIRClient) -> str:
        patient = smart.patient
        vitals = smart.server.request_json(f"Observation?patient={smart.patient_id}&category=vital-signs&_count=8")
        rows = "".join(_row(entry["resource"]) for entry in vitals.get("entry", []))
        holds = str(smart.server.auth.access_token)
        name = html.escape(smart.human_name(patient.name[0]))
        body = (
            f"<small>Growth chart · through the token broker</small><h1>{name}</h1>"
            f"<p>Born {html.escape(patient.birthDate.isostring)}, {html.escape(patient.gender)}. "
            f"This app holds <code>{html.escape(holds[:10])}…</code>, a handle; the EHR's token never came here.</p>"
            f"<table><tr><th>Vital sign</th><th>Value</th><th>Date</th></tr>{rows}</table>"
        )
        return _PAGE.format(body=body)

    def _remember(self, response: requests.Response, *_: Any, **__: Any) -> None:
        headers = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
        self.received.append(headers.encode() + b"\n\n" + response.content)


def _row(observation: dict[str, Any]) -> str:
    quantity = observation.get("valueQuantity", {})
    shown = f"{quantity.get('value', '')} {quantity.get('unit', '')}".strip() or "see components"
    cells = (observation["code"].get("text", "?"), shown, observation.get("effectiveDateTime", "")[:10])
    return "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>"
