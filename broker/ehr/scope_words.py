"""Scopes in the words of one EHR: its dialect, and types in place of `*` where it knows no wildcard (Q9, OR-06)."""

from typing import Final

from broker.clock import Clock
from broker.egress import Egress
from broker.ehr.endpoints import Endpoints, parse_json_object
from broker.ehr.site import Site
from broker.errors import EhrAnswerLost, EhrMisbehaved, EhrUnreachable
from broker.scopes import Rendered, Scopes, choose_dialect, expand_wildcards, render

CACHE_SECONDS: Final = 3600.0
_TIMEOUT_SECONDS: Final = 10.0
_STATEMENT_BYTES: Final = 16 << 20


class ScopeWords:
    """Says scopes as an EHR understands them, and remembers for an hour which types it has."""

    def __init__(self, egress: Egress, clock: Clock) -> None:
        self._egress = egress
        self._clock = clock
        self._types: dict[str, tuple[float, tuple[str, ...]]] = {}

    async def say(self, scopes: Scopes, site: Site, endpoints: Endpoints) -> Rendered:
        """Return the `scope` to ask with, and what of it is wider than meant. Raises `EhrError`, `InvalidScope`."""
        if site.profile.expand_wildcards and any(scope.type == "*" for scope in scopes.resources):
            scopes = expand_wildcards(scopes, await self._known_types(site))
        return render(scopes, choose_dialect(site.profile.scope_dialect, endpoints.capabilities))

    async def _known_types(self, site: Site) -> tuple[str, ...]:
        until, types = self._types.get(site.key, (0.0, ()))
        if until <= self._clock():
            types = await self._ask(site)
            self._types[site.key] = (self._clock() + CACHE_SECONDS, types)
        return types

    async def _ask(self, site: Site) -> tuple[str, ...]:
        headers = site.headers(site.profile.fhir_accept)
        url = f"{site.fhir_base}/metadata"
        try:
            answer = await self._egress.fetch(
                "GET", url, headers=headers, timeout=_TIMEOUT_SECONDS, limit=_STATEMENT_BYTES
            )
        except EhrAnswerLost as lost:  # a GET can be sent again; it must not be taken for a lost token answer (RF-05)
            raise EhrUnreachable(f"metadata: {lost.detail}") from None
        if answer.status == 429 or answer.status >= 500:
            raise EhrUnreachable(f"metadata was answered with status {answer.status}")
        statement = parse_json_object(answer.body) if answer.status == 200 else None
        if not (types := _listed(statement or {})):
            raise EhrMisbehaved("metadata lists no types, so a wildcard scope cannot be asked for (OR-06)")
        return types


def _listed(statement: dict[str, object]) -> tuple[str, ...]:
    """Return the types of a CapabilityStatement, each once."""
    rests = statement.get("rest")
    parts = [part for part in rests if isinstance(part, dict)] if isinstance(rests, list) else []
    resources = [one for part in parts if isinstance(part.get("resource"), list) for one in part["resource"]]
    types = (one.get("type") for one in resources if isinstance(one, dict))
    return tuple(dict.fromkeys(type_ for type_ in types if isinstance(type_, str)))
