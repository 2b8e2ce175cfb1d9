"""The token endpoint: which grant, for which client, and what each answers (RFC 6749 §4.1.3, §4.4, §6)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sandbox.oauth import dpop, instances
from sandbox.oauth.answers import bend
from sandbox.oauth.clients import GRANT_TYPES, JWT_BEARER, Client
from sandbox.oauth.errors import OAuthError, invalid_grant, invalid_scope
from sandbox.oauth.id_tokens import claims_of, issue
from sandbox.oauth.ledger import Authorization
from sandbox.oauth.parameters import Parameters, required
from sandbox.oauth.presented import Presented
from sandbox.oauth.refreshing import check, rotates
from sandbox.oauth.scopes import REFRESH_SCOPES, grant, in_dialect, understood
from sandbox.oauth.server import AuthorizationServer
from sandbox.oauth.users import User

SYSTEM_LIFETIME = 300
"""Seconds a backend token lives at most (BS-05)."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One token request of a client that has proved who it is."""

    server: AuthorizationServer
    client: Client
    form: Parameters
    proof_key: str | None
    """The thumbprint of the DPoP key the answer is bound to."""


async def answer(server: AuthorizationServer, form: Parameters, presented: Presented) -> dict[str, Any]:
    """Return the token answer to a form and what came with it, or raise `OAuthError`."""
    client = await server.authenticate(form, presented, server.settings.token_endpoint)
    grant_type = required(form, "grant_type")
    offered = (*GRANT_TYPES, JWT_BEARER) if server.settings.dynamic_clients else GRANT_TYPES
    if grant_type not in offered:
        raise OAuthError("unsupported_grant_type", f"grant_type is one of {', '.join(offered)}")
    if grant_type not in client.grant_types:
        raise OAuthError("unauthorized_client", f"this client is not registered for {grant_type}")
    demand = Demand(server, client, form, _proof_key(server, client, presented))
    document = _GRANTS[grant_type](demand)
    for point in ("token.answer", f"token.{grant_type}.answer"):
        for struck in server.faults.all(point, client.client_id):
            document = bend(server.settings, document, struck)
    return document


def _proof_key(server: AuthorizationServer, client: Client, presented: Presented) -> str | None:
    """Return the thumbprint of the client's DPoP key, or None where tokens are to be had without (RFC 9449 §5)."""
    wanted = client.dpop_bound_access_tokens
    if not presented.proofs and wanted:
        raise dpop.invalid_proof("this client must send one with every token request")
    if presented.proofs and (wanted or server.settings.dpop):
        return server.proof_key(presented, client.client_id)
    return None


def _authorization_code(demand: Demand) -> dict[str, Any]:
    server, client, form = demand.server, demand.client, demand.form
    authorization = server.ledger.redeem_code(
        required(form, "code"), client.client_id, required(form, "redirect_uri"), required(form, "code_verifier")
    )
    _check_key(demand, authorization)
    if client.authentication == "none":
        authorization.proof_key = demand.proof_key
    document = _access(demand, authorization, authorization.scopes, server.settings.access_token_lifetime)
    if _may_refresh(demand, authorization) and not _withheld(demand):
        document["refresh_token"] = server.ledger.issue_refresh(authorization)
    if authorization.user and "openid" in authorization.scopes:
        document["id_token"] = _id_token(server, authorization, authorization.user)
    return document | _context(server, authorization)


def _refresh_token(demand: Demand) -> dict[str, Any]:
    server, client, form = demand.server, demand.client, demand.form
    value = required(form, "refresh_token")
    asked = tuple(form.get("scope", "").split())
    # Looked at before the token is spent: a refused request must not cost the client its refresh token.
    if known := server.ledger.refresh_token(value):
        check(server.settings, server.ledger, known.authorization, asked, server.clock())
        if client.authentication == "none":
            _check_key(demand, known.authorization)
    rule = client.refresh or server.settings.refresh
    rotate = rotates(rule, known) and not _withheld(demand)
    authorization = server.ledger.redeem_refresh(value, client.client_id, rotate=rotate)
    lifetime = server.settings.access_token_lifetime
    document = _access(demand, authorization, asked or authorization.scopes, lifetime)
    if rotate:
        document["refresh_token"] = server.ledger.issue_refresh(authorization)
    elif rule == "repeat":
        document["refresh_token"] = value
    if authorization.user and (struck := server.faults.next("token.refresh_id_token", client.client_id)):
        user = authorization.user
        document["id_token"] = _id_token(server, authorization, replace(user, sub=struck.parameters["sub"] or user.sub))
    return document | _context(server, authorization)


def _client_credentials(demand: Demand) -> dict[str, Any]:
    server, client = demand.server, demand.client
    asked = required(demand.form, "scope").split()
    granted = grant(understood(asked, server.settings), client.scopes)
    scopes = tuple(scope for scope in granted if scope.startswith("system/"))
    if not scopes:
        raise invalid_scope("nothing of this scope may be granted: system/ scopes within the registration (BS-08)")
    authorization = Authorization(client_id=client.client_id, scopes=scopes)
    return _access(demand, authorization, scopes, min(SYSTEM_LIFETIME, server.settings.access_token_lifetime))


def _jwt_bearer(demand: Demand) -> dict[str, Any]:
    server = demand.server
    authorization = instances.authorization_of(server, demand.client, required(demand.form, "assertion"))
    document = _access(demand, authorization, authorization.scopes, server.settings.access_token_lifetime)
    return document | _context(server, authorization)


_GRANTS: Mapping[str, Callable[[Demand], dict[str, Any]]] = {
    "authorization_code": _authorization_code,
    "refresh_token": _refresh_token,
    "client_credentials": _client_credentials,
    JWT_BEARER: _jwt_bearer,
}


def _access(demand: Demand, authorization: Authorization, scopes: tuple[str, ...], lifetime: float) -> dict[str, Any]:
    server, client_id = demand.server, authorization.client_id
    if struck := server.faults.next("token.lifetime", client_id):
        lifetime = struck.parameters["seconds"]
    form = server.form("token", client_id)
    return {
        "access_token": server.ledger.issue_access(authorization, scopes, lifetime, form, demand.proof_key),
        "token_type": "DPoP" if demand.proof_key else "Bearer",
        "expires_in": lifetime,
        "scope": " ".join(in_dialect(scopes, server.settings.scope_dialect)),
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
    return issue(server.signing_key, claims, server.faults.all("id_token", authorization.client_id))


def _check_key(demand: Demand, authorization: Authorization) -> None:
    if authorization.proof_key not in {None, demand.proof_key}:
        raise invalid_grant("this was issued for another DPoP key (RFC 9449 §5, §10)")


def _may_refresh(demand: Demand, authorization: Authorization) -> bool:
    """SC-12: a refresh token needs its scope, and a client registered to have one."""
    wanted = not {*REFRESH_SCOPES}.isdisjoint(authorization.scopes)
    rule = demand.client.refresh or demand.server.settings.refresh
    return wanted and rule != "none" and "refresh_token" in demand.client.grant_types


def _withheld(demand: Demand) -> bool:
    return demand.server.faults.next("token.refresh_token", demand.client.client_id) is not None
