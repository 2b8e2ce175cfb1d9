"""An EHR that repeats every secret it is sent, in bodies, headers and errors, as badly written servers do (HB-07)."""

import asyncio
import base64
import json
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route


@dataclass
class EchoingEhr:
    """Its origin, and every secret it was sent or gave."""

    origin: str
    told: list[str] = field(default_factory=list)
    refuses: bool = False
    """Whether the token endpoint says no from now on."""

    @property
    def fhir_base(self) -> str:
        """The FHIR base URL."""
        return f"{self.origin}/fhir"

    def mint(self, kind: str) -> str:
        """Make a secret that the search will know."""
        self.told.append(f"canary-{kind}-{secrets.token_urlsafe(24)}")
        return self.told[-1]

    async def configuration(self, _request: Request) -> Response:
        """Say where to authorize."""
        endpoints = {f"{name}_endpoint": f"{self.origin}/{name}" for name in ("authorization", "token", "revocation")}
        return JSONResponse({**endpoints, "capabilities": [], "code_challenge_methods_supported": ["S256"]})

    async def authorize(self, request: Request) -> Response:
        """Approve, and send the code back with words of its own."""
        asked = request.query_params
        answer = {"code": self.mint("code"), "state": asked["state"], "note": f"your state was {asked['state']}"}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(answer)}", 302)

    async def token(self, request: Request) -> Response:
        """Answer with every parameter beside the tokens, or refuse with every parameter in the error."""
        form = {name: str(value) for name, value in (await request.form()).items()}
        self.told += [form[name] for name in ("code", "code_verifier", "refresh_token", "token") if name in form]
        if "authorization" in request.headers:
            self.told += base64.b64decode(request.headers["authorization"].partition(" ")[2]).decode().split(":")[1:]
        echo = json.dumps({**form, "headers": dict(request.headers)})
        if self.refuses:
            refusal = {"error": "invalid_request", "error_description": echo, "error_uri": f"urn:{echo}"}
            return JSONResponse(refusal, 400, {"X-Echo": self.told[-1], "WWW-Authenticate": f'Bearer "{echo[:99]}"'})
        tokens = {"access_token": self.mint("at"), "refresh_token": self.mint("rt"), "token_type": "Bearer"}
        context = {"patient": "echoed-patient-7", "scope": "patient/*.rs offline_access", "echo": echo}
        return JSONResponse({**tokens, **context, "expires_in": 3600})

    async def fhir(self, request: Request) -> Response:
        """Repeat the token in the status, the headers and the body, cut in two where a chunk ends."""
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        outcome = {"resourceType": "OperationOutcome", "issue": [{"diagnostics": f"you sent {token}, and {token}"}]}
        body = json.dumps(outcome).encode()
        half = body.index(token.encode()) + len(token) // 2 if token else len(body) // 2

        async def chunks() -> AsyncIterator[bytes]:
            yield body[:half]
            await asyncio.sleep(0.02)
            yield body[half:]

        echoes = ("ETag", "X-Request-Id", "Content-Location", "Location", "WWW-Authenticate", "X-Token", "Set-Cookie")
        headers = dict.fromkeys(echoes, f"{self.fhir_base}/Patient/{token}")
        status = int(request.query_params.get("_count", "200"))
        return StreamingResponse(chunks(), status, headers, "application/fhir+json")

    def application(self) -> Starlette:
        """Return the whole as ASGI."""
        anything = ["GET", "POST", "PUT", "DELETE"]
        return Starlette(
            routes=[
                Route("/fhir/.well-known/smart-configuration", self.configuration),
                Route("/fhir/{path:path}", self.fhir, methods=anything),
                Route("/authorization", self.authorize),
                Route("/token", self.token, methods=["POST"]),
                Route("/revocation", self.token, methods=["POST"]),
            ]
        )


@asynccontextmanager
async def running_echo() -> AsyncIterator[EchoingEhr]:
    """Serve it on a free port until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    ehr = EchoingEhr(f"http://127.0.0.1:{listener.getsockname()[1]}")
    config = uvicorn.Config(ehr.application(), log_config=None, access_log=False, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110  # uvicorn says it in no other way
        await asyncio.sleep(0.005)
    try:
        yield ehr
    finally:
        server.should_exit = True
        await serving
        listener.close()
