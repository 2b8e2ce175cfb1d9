"""The way out: every request the broker sends goes through here, and httpx2 is imported nowhere else.

Spelled out although most are the library's defaults: no redirects are followed, no proxy or netrc is taken from the
environment, no cookies are kept, certificates and host names are checked, plain http goes only to loopback and only if
allowed, and every wait and every answer has a limit.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Final
from urllib.parse import urlsplit

import httpx2 as httpx

from broker import __version__
from broker.errors import EhrAnswerLost, EhrAnswerUnreadable, EhrMisbehaved, EhrUnreachable

CONNECT_SECONDS: Final = 5.0
POOL_SECONDS: Final = 2.0
"""How long a request waits for one of the connections to be free."""
ANSWER_BYTES: Final = 1 << 20
"""Most that a document fetched whole may be: metadata, key sets, token answers."""
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. It is not printed: bodies of token endpoints hold tokens."""

    status: int
    headers: Mapping[str, str]
    """Names are compared without case (DS-12)."""
    body: bytes

    def __repr__(self) -> str:
        return f"Answer({self.status}, {len(self.body)} bytes)"


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """An answer whose body is still arriving."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]
    """Raises `EhrAnswerLost` when the body breaks off."""


class Egress:
    """Sends requests. One per process; close it at the end."""

    def __init__(self, *, allow_loopback_http: bool = False, certificates: ssl.SSLContext | None = None) -> None:
        self._allow_loopback_http = allow_loopback_http
        context = certificates or ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A pooled connection that the EHR just closed makes "was it processed?" unanswerable, so requests that must
        # not be sent twice (token requests) each open their own.
        self._single = _client(context, keep_alive=0)
        self._context = context
        self._pools: dict[str, httpx.AsyncClient] = {}
        """One for each origin, so that an EHR that is slow, or slowly sent to, keeps nobody from another."""

    async def close(self) -> None:
        """Close all connections."""
        await self._single.aclose()
        for pool in self._pools.values():
            await pool.aclose()

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        content: bytes | None = None,
        timeout: float,
        limit: int = ANSWER_BYTES,
    ) -> Answer:
        """Send one request and read the whole answer, within `timeout` seconds and `limit` bytes.

        Raises `EhrUnreachable` when it certainly was not processed, `EhrAnswerLost` when it may have been,
        `EhrMisbehaved` for an oversized answer or a URL that may not be called.
        """
        try:
            async with asyncio.timeout(timeout), self._send(self._single, method, url, headers, content, timeout) as it:
                body = bytearray()
                async for chunk in it.chunks:
                    body += chunk
                    if len(body) > limit:
                        raise EhrAnswerUnreadable(f"an answer of more than {limit} bytes")
                return Answer(it.status, it.headers, bytes(body))
        except TimeoutError:
            raise EhrAnswerLost(f"no answer within {timeout:g} s") from None

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        content: bytes | AsyncIterator[bytes] | None = None,
        timeout: float,
    ) -> AsyncIterator[StreamedAnswer]:
        """Send one request and give the answer as it arrives; `timeout` seconds is the longest silence.

        Raises like `fetch`.
        """
        async with self._send(self._pool(url), method, url, headers, content, timeout) as answer:
            yield answer

    def _pool(self, url: str) -> httpx.AsyncClient:
        """Return the connections to the URL's origin. FHIR bases are configured, so there are only so many."""
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        if origin not in self._pools:
            self._pools[origin] = _client(self._context, keep_alive=100)
        return self._pools[origin]

    @asynccontextmanager
    async def _send(
        self,
        client: httpx.AsyncClient,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | AsyncIterator[bytes] | None,
        timeout: float,
    ) -> AsyncIterator[StreamedAnswer]:
        self._require_callable(url)
        try:
            request = client.build_request(
                method,
                url,
                headers=dict(headers),
                content=content,
                # Below the limit of `fetch`, so that "never connected" is not mistaken for "answer lost".
                timeout=httpx.Timeout(
                    timeout, connect=min(CONNECT_SECONDS, timeout / 2), pool=min(POOL_SECONDS, timeout / 2)
                ),
            )
            response = await client.send(request, stream=True, follow_redirects=False)
        except _NOT_SENT as error:
            raise EhrUnreachable(f"no connection ({type(error).__name__})") from None
        except httpx.TransportError as error:
            raise EhrAnswerLost(f"no answer ({type(error).__name__})") from None
        except (httpx.InvalidURL, httpx.HTTPError) as error:
            raise EhrMisbehaved(f"the request could not be made ({type(error).__name__})") from None
        try:
            yield StreamedAnswer(response.status_code, response.headers, _read(response))
        finally:
            await response.aclose()

    def _require_callable(self, url: str) -> None:
        try:
            parts = urlsplit(url)
        except ValueError:
            raise EhrMisbehaved("the URL cannot be read") from None
        if "@" in parts.netloc:
            raise EhrMisbehaved("the URL holds a user name, which would be sent as a second authentication (TK-06)")
        if parts.scheme == "https" and parts.hostname:
            return
        if parts.scheme == "http" and parts.hostname in _LOOPBACK and self._allow_loopback_http:
            return
        raise EhrMisbehaved("the URL is not https (TK-08, DS-15)")


async def _read(response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.aiter_bytes():
            yield chunk
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise EhrAnswerLost(f"the answer broke off ({type(error).__name__})") from None


def _client(context: ssl.SSLContext, *, keep_alive: int) -> httpx.AsyncClient:
    client = httpx.AsyncClient(
        headers={"User-Agent": f"smart-token-broker/{__version__}", "Accept-Encoding": "identity"},
        verify=context,
        trust_env=False,
        follow_redirects=False,
        limits=httpx.Limits(max_connections=200, max_keepalive_connections=keep_alive, keepalive_expiry=15.0),
    )
    client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return client
