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
from sandbox.oauth.scopes import grant
from sandbox.oauth.server import AuthorizationServer
from sandbox.oauth.users import User

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


def read(server: AuthorizationServer, parameters: Parameters) -> AuthorizationRequest:
    """Return the checked request.

    Raises `OAuthError` when the client or its redirect URI is not certain, so that nothing may be sent there (AL-05,
    AL-20), and `RedirectedError` for everything else.
    """
    client = server.clients.get(required(parameters, "client_id"))
    if client is None:
        raise invalid_request("client_id is not registered here")
    redirect_uri = required(parameters, "redirect_uri")
    if redirect_uri not in client.redirect_uris:
        raise invalid_request("redirect_uri is not exactly one of those registered")
    if struck := server.faults.next("authorize", client.client_id):
        raise RedirectedError(answer(server, client, redirect_uri, parameters.get("state"), struck.parameters))
    try:
        return _checked(server, client, redirect_uri, parameters)
    except OAuthError as error:
        refusal = {"error": error.error, "error_description": error.description}
        raise RedirectedError(answer(server, client, redirect_uri, parameters.get("state"), refusal)) from error


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
        refresh_ends_at=server.clock() + lasting,
    )
    code = server.ledger.issue_code(
        authorization, request.redirect_uri, request.code_challenge, server.settings.code_lifetime
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


def _checked(
    server: AuthorizationServer, client: Client, redirect_uri: str, parameters: Parameters
) -> AuthorizationRequest:
    if required(parameters, "response_type") != "code":
        raise OAuthError("unsupported_response_type", "response_type must be code")
    if "authorization_code" not in client.grant_types:
        raise OAuthError("unauthorized_client", "this client is not registered for authorization_code")
    state = required(parameters, "state")
    _check_audience(server, required(parameters, "aud"))
    if parameters.get("code_challenge_method") != "S256":
        raise invalid_request("code_challenge_method must be S256 (AL-12)")
    code_challenge = required(parameters, "code_challenge")
    if not _S256.fullmatch(code_challenge):
        raise invalid_request("code_challenge is not a base64url SHA-256")
    asked = required(parameters, "scope").split()
    scopes = grant(asked, client.scopes)
    if not scopes:
        raise invalid_scope("nothing of this scope may be granted to this client")
    if ("launch" in parameters) != ("launch" in asked):
        raise invalid_request("the launch parameter and the launch scope go together (AL-06, AL-07)")
    # Last, because it is used up.
    launch = server.ledger.redeem_launch(parameters["launch"], client.client_id) if "launch" in parameters else None
    return AuthorizationRequest(
        client=client,
        redirect_uri=redirect_uri,
        state=state,
        scopes=scopes,
        code_challenge=code_challenge,
        nonce=parameters.get("nonce"),
        login_hint=parameters.get("login_hint", ""),
        launch=launch,
    )


def _check_audience(server: AuthorizationServer, aud: str) -> None:
    given = aud.removesuffix("/") if server.settings.lenient_aud else aud
    if given != server.settings.fhir_base:
        raise invalid_request(f"aud must be {server.settings.fhir_base} (AL-11)")
