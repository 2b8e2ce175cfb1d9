"""Token requests to an EHR and what its answers mean (TK-*, TR-*, RF-*, BS-*)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from authlib.oauth2.rfc6749.parameters import prepare_token_request

from broker.egress import Answer, Egress
from broker.ehr.client_auth import Authenticate
from broker.ehr.discovery import parse_json_object
from broker.errors import EhrAnswerUnreadable, EhrMisbehaved, EhrRefused, EhrUnreachable
from broker.secret import Secret

DEFAULT_LIFETIME_SECONDS: Final = 300.0
"""Q8: what an answer without `expires_in` is taken to live."""
_LONGEST_LIFETIME_SECONDS: Final = 7 * 86_400.0
_LONGEST_TOKEN: Final = 64 * 1024
_OAUTH_ERRORS: Final = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    }
)


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """A token response, checked."""

    access_token: Secret
    refresh_token: Secret | None
    id_token: Secret | None
    lifetime: float
    """Seconds."""
    scope: str | None
    """None when the EHR left it out: then it is what was asked for (Q4)."""
    members: Mapping[str, Any] = field(repr=False)
    """Everything but the tokens: launch context and vendor extensions (TR-06)."""


class TokenEndpoint:
    """Sends token requests. Never retries: only the caller knows what may be sent twice."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    async def exchange_code(
        self,
        url: str,
        authenticate: Authenticate,
        *,
        code: Secret,
        redirect_uri: str,
        code_verifier: Secret,
        timeout: float,
    ) -> TokenAnswer:
        """`grant_type=authorization_code` (TK-02)."""
        body = prepare_token_request(
            "authorization_code", redirect_uri=redirect_uri, code=code.reveal(), code_verifier=code_verifier.reveal()
        )
        return await self._request(url, authenticate, body, timeout)

    async def refresh(
        self, url: str, authenticate: Authenticate, *, refresh_token: Secret, timeout: float
    ) -> TokenAnswer:
        """`grant_type=refresh_token`, without `scope` (RF-01, RF-02)."""
        body = prepare_token_request("refresh_token", refresh_token=refresh_token.reveal())
        return await self._request(url, authenticate, body, timeout)

    async def client_credentials(
        self, url: str, authenticate: Authenticate, *, scope: str, timeout: float
    ) -> TokenAnswer:
        """`grant_type=client_credentials` with `scope`, always (BS-03)."""
        return await self._request(url, authenticate, prepare_token_request("client_credentials", scope=scope), timeout)

    async def revoke(self, url: str, authenticate: Authenticate, *, token: Secret, hint: str, timeout: float) -> int:
        """Ask the EHR to revoke a token (RFC 7009); returns the status."""
        body = urlencode({"token": token.reveal(), "token_type_hint": hint})
        return (await self._post(url, authenticate, body, timeout)).status

    async def _request(self, url: str, authenticate: Authenticate, body: str, timeout: float) -> TokenAnswer:
        return parse_answer(await self._post(url, authenticate, body, timeout))

    async def _post(self, url: str, authenticate: Authenticate, body: str, timeout: float) -> Answer:
        proof = authenticate(url)
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
            **proof.headers,
        }
        content = "&".join(filter(None, (body, urlencode(proof.fields)))).encode()
        return await self._egress.fetch("POST", url, headers=headers, content=content, timeout=timeout)


def parse_answer(answer: Answer) -> TokenAnswer:
    """Read a token response by content, not by its label (OA-04).

    Raises `EhrRefused` for an OAuth error, `EhrUnreachable` for "later" (429, 5xx), `EhrAnswerUnreadable` for a success
    that cannot be used, and `EhrMisbehaved` for the rest. A page with status 200 is of the rest: it is what gateways
    and captive portals answer instead of the token endpoint, so nothing was processed.
    """
    document = parse_json_object(answer.body)
    error = document.get("error") if document is not None else None
    later = answer.status == 429 or answer.status >= 500
    if isinstance(error, str) and error and (error in _OAUTH_ERRORS or not later):
        named, uri = error if error in _OAUTH_ERRORS else "unknown_error", (document or {}).get("error_uri")
        raise EhrRefused(
            f"the token endpoint answered {named} (status {answer.status})",
            error=named,
            error_uri=uri if isinstance(uri, str) else None,
        )
    if later:
        raise EhrUnreachable(f"the token endpoint answered with status {answer.status}")
    if 200 <= answer.status < 300 and not answer.body.lstrip().startswith(b"<"):
        return _parse_success(document or {})
    raise EhrMisbehaved(f"the token endpoint answered status {answer.status} without a JSON object (OA-04)")


def _parse_success(document: dict[str, Any]) -> TokenAnswer:
    access_token = _token(document, "access_token")
    if access_token is None:
        raise EhrAnswerUnreadable("the token response has no access_token (TR-01)")
    if str(document.get("token_type", "Bearer")).lower() != "bearer":
        raise EhrAnswerUnreadable("the token response has a token_type other than Bearer (TR-02)")
    scope = document.get("scope")
    secret = ("access_token", "refresh_token", "id_token")
    return TokenAnswer(
        access_token=access_token,
        refresh_token=_token(document, "refresh_token"),
        id_token=_token(document, "id_token"),
        lifetime=parse_lifetime(document.get("expires_in")),
        scope=scope if isinstance(scope, str) else None,
        members={name: value for name, value in document.items() if name not in secret},
    )


def parse_lifetime(value: object) -> float:
    """Return seconds from `expires_in`: a number, a number in a string, or absent (spec §21 case 1)."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,20}", value.strip()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        return DEFAULT_LIFETIME_SECONDS
    return float(min(value, _LONGEST_LIFETIME_SECONDS))


def _token(document: Mapping[str, Any], name: str) -> Secret | None:
    value = document.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > _LONGEST_TOKEN or not value.isascii() or not value.isprintable():
        raise EhrAnswerUnreadable(
            f"{name} is not a token: not printable ASCII text of at most {_LONGEST_TOKEN} characters"
        )
    return Secret(value)
