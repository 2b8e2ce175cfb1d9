"""Workload identity: a token that a trusted issuer gave the app's workload stands for the app (RFC 7523 §3, OA-26).

Kubernetes, CI systems and clouds give a workload one token for its whole life, and it is presented many times, so its
`jti` is not remembered. What bounds it instead: its own issuer and keys, one audience that is this broker's alone, the
subject and claims that `[app.workload]` names, and the time between `iat` and `exp`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from broker.apps import App
from broker.clock import Clock
from broker.ehr.client_auth import JWT_BEARER
from broker.errors import InvalidClient
from broker.flows.proof.key_sets import KeySets, KeySource
from broker.flows.proof.proof import Proof
from broker.flows.proof.signed_jwt import check_times, is_time, read_header, verify
from broker.settings import IssuerSettings
from broker.settings.proof import Workload

JWT_SPIFFE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
STALE_SECONDS: Final = 3600.0
"""How long the keys of an issuer that cannot be reached are used past their time: its outage is not ours at once."""


class WorkloadIdentity:
    """Checks tokens of trusted issuers."""

    def __init__(self, issuers: Iterable[IssuerSettings], key_sets: KeySets, clock: Clock) -> None:
        self._issuers = {issuer.id: issuer for issuer in issuers}
        self._key_sets = key_sets
        self._clock = clock

    async def check(self, app: App, proof: Proof) -> None:
        """Raises `InvalidClient`."""
        workload, token = app.settings.workload, proof.assertion
        if token is None or proof.form.get("client_assertion_type") not in {JWT_BEARER, JWT_SPIFFE}:
            raise InvalidClient("client_assertion or client_assertion_type is missing, or of another type (CA-08)")
        issuer = self._issuers.get(workload.issuer) if workload else None
        if workload is None or issuer is None or proof.form.get("client_id") != app.id:
            raise InvalidClient("client_id is missing: a workload's token does not name its app")
        header = read_header(token, issuer.algorithms)
        claims = await verify(token, header, await self._key_sets.key(_source(issuer), header.kid))
        check_claims(claims, issuer, workload, now=self._clock())


def check_claims(claims: Mapping[str, Any], issuer: IssuerSettings, workload: Workload, *, now: float) -> None:
    """Raises `InvalidClient` unless the token is this workload's, for this broker, and in its time."""
    subject, audience = claims.get("sub"), claims.get("aud")
    if issuer.issuer is not None and claims.get("iss") != issuer.issuer:
        raise InvalidClient(f"the token's iss is not the one of issuer {issuer.id}")
    if audience not in (issuer.audience, [issuer.audience]):
        raise InvalidClient(f"the token's aud is not the one of issuer {issuer.id}, or not alone (OA-26)")
    if not isinstance(subject, str) or not workload.covers(subject):
        raise InvalidClient("the token's sub is not the app's workload")
    for name, value in workload.claims.items():
        if type(claims.get(name)) is not type(value) or claims[name] != value:  # 1 is not true
            raise InvalidClient("a claim of the token is not as [app.workload] wants it")
    exp, issued = check_times(claims, now=now, longest=issuer.max_lifetime), claims.get("iat")
    if not is_time(issued) or exp - issued > issuer.max_lifetime:
        raise InvalidClient(f"the token has no iat, or lives longer than {issuer.max_lifetime} s")


def _source(issuer: IssuerSettings) -> KeySource:
    return KeySource(
        f"issuer {issuer.id}",
        jwks=issuer.jwks,
        file=issuer.jwks_file,
        uri=issuer.jwks_uri,
        issuer=issuer.discovered_at,
        stale_seconds=STALE_SECONDS,
    )
