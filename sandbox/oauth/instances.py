"""Dynamic clients, Epic's way to offline access on a device: an app registers an instance of itself (EP-17, RFC 7591).

The user approves `system/DynamicClient.register`; the access token opens the registration endpoint once; the instance
then trades assertions signed with its own key for access tokens, without the user (OA-14, RFC 7523 §2.1).
"""

import json
from typing import Any

from sandbox.oauth.assertions import UnverifiedAssertion, verify
from sandbox.oauth.clients import JWT_BEARER, Client
from sandbox.oauth.errors import OAuthError
from sandbox.oauth.ledger import Authorization
from sandbox.oauth.presented import Presented
from sandbox.oauth.server import AuthorizationServer

SCOPE = "system/DynamicClient.register"


def register(server: AuthorizationServer, presented: Presented, body: bytes) -> dict[str, Any]:
    """Return the registration of a new instance, or raise `OAuthError`."""
    value = presented.token("bearer") or ""
    token = server.ledger.access_token(value)
    if token is None or SCOPE not in token.scopes:
        raise OAuthError("invalid_token", None, 401)
    parent = token.authorization
    key_set = _key_set(body, parent.client_id)
    server.ledger.revoke(value, family=False)
    client_id = f"{parent.client_id}-{server.entropy(12).hex()}"
    scopes = tuple(scope for scope in token.scopes if scope != SCOPE)
    client = Client(
        client_id=client_id,
        client_name=parent.client_id,
        authentication="none",
        jwks=key_set,
        scopes=scopes,
        grant_types=frozenset({JWT_BEARER}),
    )
    server.clients[client_id] = client
    server.instances[client_id] = Authorization(
        client_id=client_id, scopes=scopes, patient=parent.patient, encounter=parent.encounter, user=parent.user
    )
    return {
        "client_id": client_id,
        "client_id_issued_at": int(server.clock()),
        "software_id": parent.client_id,
        "jwks": key_set,
        "token_endpoint_auth_method": "none",
        "grant_types": [JWT_BEARER],
        "scope": " ".join(scopes),
    }


def authorization_of(server: AuthorizationServer, client: Client, compact: str) -> Authorization:
    """Return what an instance was registered with, or raise `OAuthError` (invalid_grant, for whatever reason)."""
    authorization = server.instances.get(client.client_id)
    try:
        assertion = UnverifiedAssertion.read(compact)
        verify(
            assertion,
            client_id=client.client_id,
            key_set=client.jwks or {},
            jwks_uri=None,
            algorithms=("RS256", "RS384", "ES384"),
            audiences=(server.settings.token_endpoint,),
            now=server.clock(),
        )
        server.authentication.replays.use(assertion, server.clock())
    except OAuthError as error:
        raise OAuthError("invalid_grant", None) from error
    if authorization is None or authorization.ended:
        raise OAuthError("invalid_grant", None)
    return authorization


def _key_set(body: bytes, software_id: str) -> dict[str, Any]:
    """Return the key set of `{software_id, jwks}`, or raise `OAuthError` as Epic says no: without a reason."""
    try:
        document = json.loads(body)
        keys = document["jwks"]["keys"]
        good = document["software_id"] == software_id and all(key["kid"] and "d" not in key for key in keys)
    except (ValueError, LookupError, TypeError):
        raise OAuthError("invalid_request", None) from None
    if not good or not keys:
        raise OAuthError("invalid_client_metadata", None)
    return {"keys": keys}
