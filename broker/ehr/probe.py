"""Look at a server from outside, as an operator does before writing an `[[ehr]]` block. Nothing secret is sent.

Values in, values out: every request goes through the egress, and what a server says is read by the same rules as when
it is used. What differs from a profile is put into words that name the setting.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from broker.clock import Clock
from broker.egress import ANSWER_BYTES, Answer, Egress, Handshake
from broker.ehr.endpoints import Endpoints, parse_json_object, parse_oauth_uris, parse_smart_configuration
from broker.ehr.issuer_keys import parse_jwks
from broker.errors import EhrError, EhrMisbehaved
from broker.origins import origin

_TIMEOUT_SECONDS: Final = 10.0
_STATEMENT_BYTES: Final = 16 << 20
_FHIR_JSON: Final = "application/fhir+json"


@dataclass(frozen=True, slots=True)
class Sight:
    """Everything that was seen. What could not be read is None, and `problems` says why."""

    fhir_base: str
    endpoints: Endpoints | None
    statement: Mapping[str, Any] | None = field(repr=False)
    """The CapabilityStatement."""
    unasked_type: str
    """Media type of the CapabilityStatement when no Accept is sent (EP-09)."""
    openid_place: str | None
    """Where the openid-configuration is: `append` or `insert` (Q6)."""
    openid_issuer: str | None
    usable_keys: int
    """Keys in the issuer's JWK Set that id_tokens can be verified with."""
    handshake: Handshake | None
    clock_offset: float | None
    """Seconds that the server's clock is ahead."""
    redirects: bool
    """Whether the FHIR base answers with a redirect, which is never followed with a token (PX-05)."""
    problems: tuple[str, ...] = ()


class Probe:
    """Looks at one server."""

    def __init__(self, egress: Egress, clock: Clock) -> None:
        self._egress = egress
        self._clock = clock

    async def __call__(self, fhir_base: str) -> Sight:
        """Read all that can be read. What fails is a problem in the answer, not an error."""
        problems: list[str] = []
        document = await self._document(f"{fhir_base}/.well-known/smart-configuration", "application/json", problems)
        statement = await self._document(f"{fhir_base}/metadata", _FHIR_JSON, problems)
        unasked = await self._fetch(f"{fhir_base}/metadata", {"Accept": "*/*"}, [])
        endpoints = _endpoints(document, statement, fhir_base, problems)
        place, configuration = await self._openid(endpoints, fhir_base)
        keys = await self._keys(endpoints, configuration, problems)
        return Sight(
            fhir_base=fhir_base,
            endpoints=endpoints,
            statement=statement if statement and statement.get("resourceType") == "CapabilityStatement" else None,
            unasked_type=_media_type(unasked),
            openid_place=place,
            openid_issuer=_text((configuration or {}).get("issuer")),
            usable_keys=keys,
            handshake=await self._handshake(fhir_base, problems),
            clock_offset=self._offset(unasked),
            redirects=unasked is not None and 300 <= unasked.status < 400,
            problems=tuple(problems),
        )

    async def _fetch(self, url: str, headers: Mapping[str, str], problems: list[str]) -> Answer | None:
        limit = _STATEMENT_BYTES if url.endswith("/metadata") else ANSWER_BYTES
        try:
            return await self._egress.fetch("GET", url, headers=headers, timeout=_TIMEOUT_SECONDS, limit=limit)
        except EhrError as error:
            problems.append(f"{_path(url)}: {error.detail}")
            return None

    async def _document(self, url: str, accept: str, problems: list[str]) -> dict[str, Any] | None:
        answer = await self._fetch(url, {"Accept": accept}, problems)
        if answer is None:
            return None
        document = await asyncio.to_thread(parse_json_object, answer.body) if answer.status == 200 else None
        if document is None:
            problems.append(f"{_path(url)}: status {answer.status}, and no JSON object (DS-14)")
        return document

    async def _openid(self, endpoints: Endpoints | None, fhir_base: str) -> tuple[str | None, dict[str, Any] | None]:
        issuer = (endpoints.issuer if endpoints else None) or fhir_base
        if not origin(issuer):
            return None, None
        parts, name = urlsplit(issuer), "/.well-known/openid-configuration"
        places = {
            "append": f"{issuer.rstrip('/')}{name}",
            "insert": f"{parts.scheme}://{parts.netloc}{name}{parts.path.rstrip('/')}",
        }
        for place, url in places.items():
            if (document := await self._document(url, "application/json", [])) is not None:
                return place, document
        return None, None

    async def _keys(
        self, endpoints: Endpoints | None, configuration: Mapping[str, Any] | None, problems: list[str]
    ) -> int:
        jwks_uri = _text((configuration or {}).get("jwks_uri")) or (endpoints.jwks_uri if endpoints else None)
        if jwks_uri is None:
            return 0
        try:
            return len(parse_jwks(await self._document(jwks_uri, "application/json", problems)).keys)
        except EhrMisbehaved as error:
            problems.append(error.detail)
            return 0

    async def _handshake(self, fhir_base: str, problems: list[str]) -> Handshake | None:
        if not fhir_base.startswith("https://"):
            return None
        try:
            return await self._egress.handshake(fhir_base, timeout=_TIMEOUT_SECONDS)
        except EhrError as error:
            problems.append(f"TLS: {error.detail}")
            return None

    def _offset(self, answer: Answer | None) -> float | None:
        try:
            return parsedate_to_datetime(answer.headers["date"]).timestamp() - self._clock() if answer else None
        except (KeyError, ValueError, TypeError):
            return None


def _endpoints(
    document: Mapping[str, Any] | None, statement: Mapping[str, Any] | None, fhir_base: str, problems: list[str]
) -> Endpoints | None:
    try:
        if document is not None and "token_endpoint" in document:
            return parse_smart_configuration(document, fhir_base)
        found = parse_oauth_uris(statement or {}, fhir_base)
    except EhrMisbehaved as error:
        problems.append(error.detail)
        return None
    if found is None:
        problems.append("neither smart-configuration nor metadata names a token endpoint (DS-03, DS-11)")
    return found


def _path(url: str) -> str:
    return urlsplit(url).path if origin(url) else "a URL that cannot be read"


def _media_type(answer: Answer | None) -> str:
    found = answer.headers.get("content-type", "").partition(";")[0].strip().lower() if answer else ""
    return found if re.fullmatch(r"[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60}", found) else "none"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value and value.isprintable() else None
