"""The authorization request: is it one we answer, and if so with what (AL-03…AL-12, RFC 6749 §4.1.1)."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from sandbox.faults import edit
from sandbox.oauth.clients import Client
from sandbox.oauth.errors import OAuthError, invalid_request, invalid_scope
from sandbox.oauth.ledger import Authorization, Launch
from sandbox.oauth.parameters import Parameters, required
from sandbox.oauth.scopes import grant, understood
from sandbox.oauth.server import AuthorizationServer
from sandbox.oauth.users import User
from sandbox.settings import AudRule, Settings

_S256 = re.compile(r"[A-Za-z0-9_-]{43}")


class RedirectedError(Exception):
    """A refusal the client learns of by redirect (RFC 6749 §4.1.2.1); `url` is where to."""

    def __init__(self, url: str) -> None:
        super().__init__("the authorization request was refused")
        self.url = url


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRequest:
    """A request that passed every check. `scopes` is what will be granted: asked ∩ registered."""

    client: Client
    redirect_uri: str
    state: str
    scopes: tuple[str, ...]
    code_challenge: str
    nonce: str | None
    login_hint: str
    launch: Launch | None
    proof_key: str | None
    """The thumbprint of the DPoP key the code is for (RFC 9449 §10)."""


def read(server: AuthorizationServer, parameters: Parameters, *, posted: bool) -> AuthorizationRequest:
    """Return the checked request; `posted` says that it came as a form.

    Raises `OAuthError` when the client or its redirect URI is not certain, so that nothing may be sent there (AL-05,
    AL-20), and `RedirectedError` for everything else.
    """
    client = server.clients.get(required(parameters, "client_id"))
    if client is None:
        raise invalid_request("client_id is not registered here")
    if pushed := "request_uri" in parameters:
        parameters = server.pushed.redeem(parameters["request_uri"], client.client_id)
    redirect_uri = _redirect_uri(client, parameters)
    if struck := server.faults.next("authorize", client.client_id):
        raise RedirectedError(answer(server, client, redirect_uri, parameters.get("state"), struck.parameters))
    try:
        if server.settings.pushed_requests == "required" and not pushed:
            raise invalid_request("authorization requests must be pushed first (RFC 9126 §4)")
        if posted and server.settings.refuse_standalone_post and "launch" not in parameters:
            raise invalid_request("authorization requests may be posted in an EHR launch only (EP-11)")
        scopes = _checked(server, client, parameters)
        # Last, because it is used up.
        launch = server.ledger.redeem_launch(parameters["launch"], client.client_id) if "launch" in parameters else None
        return AuthorizationRequest(
            client=client,
            redirect_uri=redirect_uri,
            state=parameters["state"],
            scopes=scopes,
            code_challenge=parameters["code_challenge"],
            nonce=parameters.get("nonce"),
            login_hint=parameters.get("login_hint", ""),
            launch=launch,
            proof_key=parameters.get("dpop_jkt"),
        )
    except OAuthError as error:
        refusal = {"error": error.error, "error_description": error.description}
        raise RedirectedError(answer(server, client, redirect_uri, parameters.get("state"), refusal)) from error


def push(server: AuthorizationServer, client: Client, parameters: Parameters) -> str:
    """Return the `request_uri` of a request that was sent ahead, or raise `OAuthError` (RFC 9126 §2)."""
    if "request_uri" in parameters:
        raise invalid_request("request_uri may not be pushed (RFC 9126 §2.1)")
    _redirect_uri(client, parameters)
    _checked(server, client, parameters)
    return server.pushed.keep(client.client_id, {**parameters, "client_id": client.client_id})


def approve(
    server: AuthorizationServer, request: AuthorizationRequest, user: User, patient: str | None, encounter: str | None
) -> str:
    """Return the redirect that hands the client its code (AL step 4)."""
    # Offline access lasts until it is revoked, online access as long as the user's session (RF-10).
    lasting = math.inf if "offline_access" in request.scopes else server.settings.session_lifetime
    authorization = Authorization(
        client_id=request.client.client_id,
        scopes=request.scopes,
        patient=patient,
        encounter=encounter,
        user=user,
        nonce=request.nonce,
        from_ehr=request.launch is not None,
        proof_key=request.proof_key,
        refresh_ends_at=server.clock() + lasting,
    )
    code = server.ledger.issue_code(
        authorization,
        request.redirect_uri,
        request.code_challenge,
        server.settings.code_lifetime,
        server.form("code", request.client.client_id),
    )
    return answer(server, request.client, request.redirect_uri, request.state, {"code": code})


def deny(server: AuthorizationServer, request: AuthorizationRequest) -> str:
    """Return the redirect that tells the client the user said no."""
    refusal = {"error": "access_denied", "error_description": "the user did not approve"}
    return answer(server, request.client, request.redirect_uri, request.state, refusal)


def answer(
    server: AuthorizationServer, client: Client, redirect_uri: str, state: str | None, members: Mapping[str, Any]
) -> str:
    """Return the redirect URI with an answer in its query; `iss` goes with it only when advertised (RFC 9207)."""
    document = {**members, "state": state}
    if server.settings.response_iss:
        document["iss"] = server.settings.issuer
    for struck in server.faults.all("authorize.answer", client.client_id):
        document = edit(document, struck)
    query = urlencode({name: value for name, value in document.items() if value})
    return f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{query}"


def _redirect_uri(client: Client, parameters: Parameters) -> str:
    redirect_uri = required(parameters, "redirect_uri")
    if redirect_uri not in client.redirect_uris:
        raise invalid_request("redirect_uri is not exactly one of those registered")
    return redirect_uri


def _checked(server: AuthorizationServer, client: Client, parameters: Parameters) -> tuple[str, ...]:
    """Return the scopes that will be granted when the request is otherwise as it should be."""
    if required(parameters, "response_type") != "code":
        raise OAuthError("unsupported_response_type", "response_type must be code")
    if "authorization_code" not in client.grant_types:
        raise OAuthError("unauthorized_client", "this client is not registered for authorization_code")
    required(parameters, "state")
    _check_audience(server.settings, parameters.get("aud"))
    if parameters.get("code_challenge_method") != "S256":
        raise invalid_request("code_challenge_method must be S256 (AL-12)")
    if not _S256.fullmatch(required(parameters, "code_challenge")):
        raise invalid_request("code_challenge is not a base64url SHA-256")
    asked = required(parameters, "scope").split()
    scopes = grant(understood(asked, server.settings), client.scopes)
    if not scopes:
        raise invalid_scope("nothing of this scope may be granted to this client")
    if ("launch" in parameters) != ("launch" in asked):
        raise invalid_request("the launch parameter and the launch scope go together (AL-06, AL-07)")
    return scopes


def _check_audience(settings: Settings, aud: str | None) -> None:
    base = settings.fhir_base
    accepted: Mapping[AudRule, set[str | None]] = {
        "exact": {base},
        "slash-optional": {base, f"{base}/"},
        "slash-required": {f"{base}/"},
        "optional": {base, None},
        "refused": {None},
    }
    if aud not in accepted[settings.aud]:
        raise invalid_request(f"aud is not what this server wants: {base}, {settings.aud} (AL-11, Q7)")
