"""The token endpoint's three grants, and what each answers (RFC 6749 §4.1.3, §4.4, §6)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sandbox.faults import Armed, edit
from sandbox.oauth.clients import Client
from sandbox.oauth.errors import OAuthError, invalid_scope
from sandbox.oauth.id_tokens import claims_of
from sandbox.oauth.ledger import Authorization
from sandbox.oauth.parameters import Parameters, required
from sandbox.oauth.scopes import REFRESH_SCOPES, grant
from sandbox.oauth.server import AuthorizationServer
from sandbox.oauth.users import User

TOKEN_BYTES = 32
"""Random bytes of an access token, unless a fault asks for more (EP-19)."""
SYSTEM_LIFETIME = 300
"""Seconds a backend token lives at most (BS-05)."""


async def answer(server: AuthorizationServer, form: Parameters, authorization: str | None) -> dict[str, Any]:
    """Return the token answer to a form and its Authorization header, or raise `OAuthError`."""
    client = await server.authentication.authenticate(
        form, authorization, (server.settings.token_endpoint,), server.clock()
    )
    grant_type = required(form, "grant_type")
    if grant_type not in _GRANTS:
        raise OAuthError("unsupported_grant_type", f"grant_type is one of {', '.join(_GRANTS)}")
    if grant_type not in client.grant_types:
        raise OAuthError("unauthorized_client", f"this client is not registered for {grant_type}")
    document = _GRANTS[grant_type](server, client, form)
    for struck in server.faults.all("token.answer", client.client_id):
        document = _EDITS[struck.fault.effect](document, struck)
    return document


def _authorization_code(server: AuthorizationServer, client: Client, form: Parameters) -> dict[str, Any]:
    authorization = server.ledger.redeem_code(
        required(form, "code"), client.client_id, required(form, "redirect_uri"), required(form, "code_verifier")
    )
    document = _access(server, authorization, authorization.scopes, server.settings.access_token_lifetime)
    if _may_refresh(client, authorization) and not _withheld(server, client):
        document["refresh_token"] = server.ledger.issue_refresh(authorization)
    if authorization.user and "openid" in authorization.scopes:
        document["id_token"] = _id_token(server, authorization, authorization.user)
    return document | _context(server, authorization)


def _refresh_token(server: AuthorizationServer, client: Client, form: Parameters) -> dict[str, Any]:
    value = required(form, "refresh_token")
    asked = tuple(form.get("scope", "").split())
    known = server.ledger.refresh_token(value)
    # Looked at before the token is spent: a refused scope must not cost the client its refresh token.
    if known and not {*asked} <= {*known.authorization.scopes}:
        raise invalid_scope("scope is wider than what was granted (RF-11)")
    rotate = client.refresh == "rotate" and not _withheld(server, client)
    authorization = server.ledger.redeem_refresh(value, client.client_id, rotate=rotate)
    document = _access(server, authorization, asked or authorization.scopes, server.settings.access_token_lifetime)
    if rotate:
        document["refresh_token"] = server.ledger.issue_refresh(authorization)
    if authorization.user and (struck := server.faults.next("token.refresh_id_token", client.client_id)):
        user = authorization.user
        document["id_token"] = _id_token(server, authorization, replace(user, sub=struck.parameters["sub"] or user.sub))
    return document | _context(server, authorization)


def _client_credentials(server: AuthorizationServer, client: Client, form: Parameters) -> dict[str, Any]:
    asked = required(form, "scope").split()
    scopes = tuple(scope for scope in grant(asked, client.scopes) if scope.startswith("system/"))
    if not scopes:
        raise invalid_scope("nothing of this scope may be granted: system/ scopes within the registration (BS-08)")
    authorization = Authorization(client_id=client.client_id, scopes=scopes)
    return _access(server, authorization, scopes, min(SYSTEM_LIFETIME, server.settings.access_token_lifetime))


_GRANTS: Mapping[str, Callable[[AuthorizationServer, Client, Parameters], dict[str, Any]]] = {
    "authorization_code": _authorization_code,
    "refresh_token": _refresh_token,
    "client_credentials": _client_credentials,
}


def _access(
    server: AuthorizationServer, authorization: Authorization, scopes: tuple[str, ...], lifetime: float
) -> dict[str, Any]:
    if struck := server.faults.next("token.lifetime", authorization.client_id):
        lifetime = struck.parameters["seconds"]
    struck = server.faults.next("token.size", authorization.client_id)
    size = struck.parameters["bytes"] if struck else TOKEN_BYTES
    return {
        "access_token": server.ledger.issue_access(authorization, scopes, lifetime, size),
        "token_type": "Bearer",
        "expires_in": lifetime,
        "scope": " ".join(scopes),
    }


def _context(server: AuthorizationServer, authorization: Authorization) -> dict[str, Any]:
    """Return the launch context: what Epic sends, one vendor member included (CX-01…CX-09, EP-14)."""
    context: dict[str, Any] = {
        "need_patient_banner": not authorization.from_ehr,
        "smart_style_url": server.settings.smart_style_url,
    }
    if authorization.patient:
        context |= {"patient": authorization.patient, "__epic.dstu2.patient": f"T{authorization.patient}"}
    if authorization.encounter:
        context["encounter"] = authorization.encounter
    return context


def _id_token(server: AuthorizationServer, authorization: Authorization, user: User) -> str:
    claims = claims_of(server.settings, authorization, user, server.clock())
    sign = server.signing_key.sign
    for struck in server.faults.all("id_token", authorization.client_id):
        if struck.fault.effect == "forge":
            sign = server.signing_key.forge
        else:
            claims[struck.parameters["claim"]] = struck.parameters["value"]
    return sign(claims)


def _may_refresh(client: Client, authorization: Authorization) -> bool:
    """SC-12: a refresh token needs its scope, and a client registered to have one."""
    wanted = not {*REFRESH_SCOPES}.isdisjoint(authorization.scopes)
    return wanted and client.refresh != "none" and "refresh_token" in client.grant_types


def _withheld(server: AuthorizationServer, client: Client) -> bool:
    return server.faults.next("token.refresh_token", client.client_id) is not None


def _as_text(document: Mapping[str, Any], struck: Armed) -> dict[str, Any]:
    member = struck.parameters["member"]
    return {**document, member: str(document.get(member))}


def _with_scope(document: Mapping[str, Any], struck: Armed) -> dict[str, Any]:
    return {**document, "scope": struck.parameters["scope"]}


_EDITS: Mapping[str, Callable[[Mapping[str, Any], Armed], dict[str, Any]]] = {
    "edit": edit,
    "text": _as_text,
    "scope": _with_scope,
}
