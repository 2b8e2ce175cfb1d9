"""Introspection (RFC 7662) and revocation (RFC 7009): a client may ask about its own tokens and end them."""

from typing import Any

from sandbox.oauth.errors import OAuthError, invalid_client
from sandbox.oauth.ledger import Authorization
from sandbox.oauth.parameters import Parameters, required
from sandbox.oauth.presented import Presented
from sandbox.oauth.server import AuthorizationServer

INACTIVE = {"active": False}
"""All that is said about a token that is not good, or not the asker's (IN-04)."""


async def introspect(server: AuthorizationServer, form: Parameters, presented: Presented) -> dict[str, Any]:
    """Return what a token is good for (IN-01…IN-03), or raise `OAuthError`."""
    asker = await _asker(server, form, presented)
    value = required(form, "token")
    if access := server.ledger.access_token(value):
        if access.authorization.client_id != asker:
            return INACTIVE
        described = _described(server, access.authorization, access.scopes)
        described |= {"iat": int(access.issued_at), "exp": int(access.expires_at), "token_type": "Bearer"}
        if access.proof_key:
            described |= {"token_type": "DPoP", "cnf": {"jkt": access.proof_key}}
        return described
    refresh = server.ledger.refresh_token(value)
    if refresh and refresh.authorization.client_id == asker:
        return _described(server, refresh.authorization, refresh.authorization.scopes)
    return INACTIVE


async def revoke(server: AuthorizationServer, form: Parameters, presented: Presented) -> None:
    """End a token of the client, or raise `OAuthError`; an unknown token is no error (IN-06)."""
    client = await server.authenticate(form, presented, server.settings.revocation_endpoint)
    value = required(form, "token")
    token = server.ledger.access_token(value) or server.ledger.refresh_token(value)
    if token is None:
        return
    if token.authorization.client_id != client.client_id:
        raise OAuthError("unauthorized_client", "the token was issued to another client (RFC 7009 §2.1)")
    server.ledger.revoke(value, family=server.settings.revocation == "family")


async def _asker(server: AuthorizationServer, form: Parameters, presented: Presented) -> str:
    """Return the id of the client that asks: by a live access token (IN-03, EP-20), or by authenticating."""
    rule = server.settings.introspection
    if presented.token("bearer") is not None and rule != "client":
        if access := server.access(presented.authorization):
            return access.client_id
        raise OAuthError("invalid_token", "the bearer token is not good", 401)
    if rule == "bearer":
        raise OAuthError("invalid_token", "a bearer token is needed", 401)
    client = await server.authenticate(form, presented, server.settings.introspection_endpoint)
    if client.authentication == "none":
        raise invalid_client("a public client introspects with a bearer token")
    return client.client_id


def _described(server: AuthorizationServer, authorization: Authorization, scopes: tuple[str, ...]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "active": True,
        "scope": " ".join(scopes),
        "client_id": authorization.client_id,
    }
    if authorization.patient:
        document["patient"] = authorization.patient
    if authorization.encounter:
        document["encounter"] = authorization.encounter
    if (user := authorization.user) and "openid" in authorization.scopes:
        document |= {"iss": server.settings.issuer, "sub": user.sub}
        document["fhirUser"] = f"{server.settings.fhir_base}/{user.fhir_user}"
    return document
