"""The clients' JWK Sets, fetched from their URLs and kept as long as their Cache-Control allows (CA-09, CA-10).

Or longer, as some EHRs do (EP-06).
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from sandbox.journal import Journal
from sandbox.oauth.clients import Client
from sandbox.oauth.errors import invalid_client

LONGEST = 300
"""Seconds a set is kept at most, and where Cache-Control says nothing."""
LARGEST = 65_536
"""Bytes."""


@dataclass(frozen=True, slots=True)
class _Cached:
    key_set: Mapping[str, Any]
    fetched_at: float
    expires_at: float


class KeySets:
    """Key sets by URL."""

    def __init__(
        self, http: httpx2.AsyncClient, clock: Callable[[], float], journal: Journal, lag: Callable[[], int] = lambda: 0
    ) -> None:
        """`lag`: how many seconds a set is gone on with, whatever its header says and whichever key it lacks."""
        self._http = http
        self._lag = lag
        self._clock = clock
        self._journal = journal
        self._cache: dict[str, _Cached] = {}

    async def of(self, client: Client, kid: str) -> Mapping[str, Any]:
        """Return the client's key set; one from the cache that lacks `kid` is fetched once more.

        Raises `OAuthError` (invalid_client) when the URL cannot be read.
        """
        if client.jwks_uri is None:
            return client.jwks or {}
        cached = self._cache.get(client.jwks_uri)
        if cached and cached.fetched_at + self._lag() > self._clock():
            return cached.key_set
        if cached and cached.expires_at > self._clock() and _has(cached.key_set, kid):
            return cached.key_set
        return await self._fetch(client.jwks_uri)

    def clear(self) -> None:
        """Forget every fetched set."""
        self._cache.clear()

    async def _fetch(self, url: str) -> Mapping[str, Any]:
        self._journal.count("client_jwks_fetches")
        try:
            async with self._http.stream("GET", url, headers={"Accept": "application/json"}) as response:
                key_set = json.loads(await _body(response))
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise invalid_client(f"the JWK Set URL cannot be read ({type(error).__name__})") from error
        if not response.is_success or not isinstance(key_set, dict) or not isinstance(key_set.get("keys"), list):
            raise invalid_client(f"the JWK Set URL answered {response.status_code} without a JWK Set")
        lifetime = _lifetime(response.headers.get("cache-control", ""))
        self._cache[url] = _Cached(key_set, self._clock(), self._clock() + lifetime)
        return key_set


async def _body(response: httpx2.Response) -> bytes:
    body = b""
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > LARGEST:
            raise ValueError("the JWK Set is too large")
    return body


def _has(key_set: Mapping[str, Any], kid: str) -> bool:
    return any(isinstance(key, dict) and key.get("kid") == kid for key in key_set["keys"])


def _lifetime(cache_control: str) -> int:
    """Return the seconds an answer may be kept: what the header says, never longer than `LONGEST`."""
    if re.search(r"\bno-(store|cache)\b", cache_control, re.IGNORECASE):
        return 0
    max_age = re.search(r"\bmax-age\s*=\s*\"?(\d{1,9})", cache_control, re.IGNORECASE)
    return min(int(max_age[1]), LONGEST) if max_age else LONGEST
