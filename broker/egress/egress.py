"""Send requests and read answers; every wait and every answer has a limit."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final
from urllib.parse import SplitResult
from weakref import WeakValueDictionary

import httpx2 as httpx

from broker.egress.addresses import AllowedHosts
from broker.egress.connecting import Connections, Handshake, Resolve, system_resolve
from broker.egress.packing import is_unpackable, packing_of, stays_packed, unpacked
from broker.egress.trust import ClientCertificate, HostTls, Trust
from broker.egress.upstream import MOST_CONNECTIONS, POOL_SECONDS, Upstream, body_of, dialling, exchange
from broker.egress.urls import require_callable
from broker.errors import EhrAnswerLost, EhrAnswerUnreadable, EhrMisbehaved, EhrUnreachable
from broker.origins import origin

CONNECT_SECONDS: Final = 5.0
ANSWER_BYTES: Final = 1 << 20
"""Most that a document fetched whole may be: metadata, key sets, token answers."""
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


def _nothing_to_close() -> None:
    """Whoever gave the answer closes it."""


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """An answer whose body is still arriving."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]
    """Raises `EhrAnswerLost` when the body breaks off."""
    is_packed: bool = False
    """The body is packed, because that was asked for; one that was packed unasked is unpacked."""
    whole: bytes | None = None
    """The body, where it arrived with the head; `chunks` gives nothing then."""
    close: Callable[[], None] = _nothing_to_close
    """Ends the exchange: what has not arrived by then never does."""

    def closing(self, then: Callable[[], None]) -> "StreamedAnswer":
        """Return the answer, with something more to do when it is closed."""

        def close() -> None:
            try:
                self.close()
            finally:
                then()

        return replace(self, close=close)


class Egress:
    """Sends requests. One per process; close it at the end.

    `hosts` are those with which TLS is done otherwise than with the rest.
    """

    def __init__(
        self,
        *,
        allow_loopback_http: bool = False,
        allow_private_hosts: Collection[str] = (),
        certificates: ssl.SSLContext | None = None,
        hosts: Mapping[str, HostTls] = MappingProxyType({}),
        resolve: Resolve = system_resolve,
    ) -> None:
        self._allowed = AllowedHosts.of(allow_private_hosts, loopback=allow_loopback_http)
        self._connections = Connections(self._allowed, resolve)
        # A pooled connection that the EHR just closed makes "was it processed?" unanswerable, so requests that must
        # not be sent twice (token requests) each open their own.
        self._trust = Trust(self._connections, certificates, hosts)
        self._places: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        """What bounds those requests instead, one for each origin that has any: an EHR that does not answer fills its
        own places, and no other's."""
        self._bases: dict[str, tuple[SplitResult, Upstream]] = {}
        self._upstreams: dict[str, Upstream] = {}
        """One for each origin, so that an EHR that is slow, or slowly sent to, keeps nobody from another."""

    async def close(self) -> None:
        """Close all connections."""
        await self._trust.close()
        for upstream in self._upstreams.values():
            upstream.close()

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        content: bytes | None = None,
        timeout: float,
        limit: int = ANSWER_BYTES,
        identity: ClientCertificate | None = None,
    ) -> Answer:
        """Send one request and read the whole answer, within `timeout` seconds and `limit` bytes.

        `identity` is what the broker shows in the TLS handshake, instead of what it shows that host in any case.

        Raises `EhrUnreachable` when it certainly was not processed, `EhrAnswerLost` when it may have been,
        `EhrMisbehaved` for an oversized answer or a URL that may not be called.
        """
        client = self._trust.of(require_callable(url, self._allowed).hostname or "", identity).client
        try:
            async with (
                asyncio.timeout(timeout),
                self._place(url, min(POOL_SECONDS, timeout / 2)),
                self._send(client, method, url, headers, content, timeout) as it,
            ):
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
        is_kept: bool = True,
    ) -> AsyncIterator[StreamedAnswer]:
        """Send one request and give the answer as it arrives; `timeout` seconds is the longest silence.

        Where the URL is from outside and its origin one of any number, the connection is not kept (`is_kept`). A gzip
        body stays packed where `headers` ask for it.

        Raises like `fetch`.
        """
        place = require_callable(url, self._allowed)
        target = f"{place.path or '/'}{f'?{place.query}' if place.query else ''}"
        upstream = self._upstream(place) if is_kept else self._new_upstream(place)
        answer = await _streamed(upstream, method, target, place.netloc, headers, content, timeout)
        try:
            yield answer
        finally:
            answer.close()
            if not is_kept:
                upstream.close()

    async def send(
        self,
        method: str,
        base: str,
        below: str,
        *,
        headers: Mapping[str, str],
        content: bytes | AsyncIterator[bytes] | None = None,
        timeout: float,
    ) -> StreamedAnswer:
        """Send one request to what is `below` a base URL, such as `/Patient?name=x`; whoever gets the answer closes it.

        Bases are configured, so what is known of one is kept. Raises like `fetch`.
        """
        known = self._bases.get(base)
        if known is None:
            found = require_callable(base, self._allowed)
            known = self._bases[base] = found, self._upstream(found)
        place, upstream = known
        target = f"{place.path}{below}" or "/"
        return await _streamed(upstream, method, target, place.netloc, headers, content, timeout, at_once=True)

    async def handshake(self, url: str, *, timeout: float) -> Handshake:
        """Open a connection to an https URL's host, within `timeout` seconds, and tell what was agreed.

        Raises like `fetch`, and `EhrMisbehaved` for a URL without TLS.
        """
        parts = require_callable(url, self._allowed)
        if parts.scheme != "https" or parts.hostname is None:
            raise EhrMisbehaved("the URL is not https (TK-08)")
        context = self._trust.of(parts.hostname).context
        return await self._connections.handshake(parts.hostname, parts.port or 443, context, timeout=timeout)

    @asynccontextmanager
    async def _place(self, url: str, patience: float) -> AsyncIterator[None]:
        """Take one of the places for requests to an origin; raises `EhrUnreachable` after `patience` seconds."""
        place = self._places.setdefault(origin(url), asyncio.Semaphore(MOST_CONNECTIONS))
        try:
            async with asyncio.timeout(patience):
                await place.acquire()
        except TimeoutError:
            raise EhrUnreachable("too many requests wait for the EHR's answer", ours=True) from None
        try:
            yield
        finally:
            place.release()

    def _upstream(self, url: SplitResult) -> Upstream:
        """Return the connections to the URL's origin, however it is spelt. Those are configured: there are so many."""
        place = origin(url.geturl())
        if place not in self._upstreams:
            self._upstreams[place] = self._new_upstream(url)
        return self._upstreams[place]

    def _new_upstream(self, url: SplitResult) -> Upstream:
        is_tls, host = url.scheme == "https", url.hostname or ""
        tls = (lambda: self._trust.of(host).context) if is_tls else None
        return Upstream(dialling(self._connections.checked, host, url.port or (443 if is_tls else 80), tls))

    @asynccontextmanager
    async def _send(
        self,
        client: httpx.AsyncClient,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | None,
        timeout: float,
    ) -> AsyncIterator[StreamedAnswer]:
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

    def require_callable(self, url: str) -> None:
        """Raises `EhrMisbehaved` for a URL that would never be called, whatever its host resolves to."""
        require_callable(url, self._allowed)


async def _streamed(
    upstream: Upstream,
    method: str,
    target: str,
    host: str,
    headers: Mapping[str, str],
    content: bytes | AsyncIterator[bytes] | None,
    timeout: float,
    *,
    at_once: bool = False,
) -> StreamedAnswer:
    """Send one request; whoever gets the answer closes it. With `at_once` a body that is here is given whole."""
    asked = {"accept-encoding": "identity", **headers}
    status, got, connection = await exchange(upstream, method, target, host, asked, content, timeout)
    stays, whole = stays_packed(headers, got), None
    if at_once and packing_of(got) == "identity":
        whole = connection.whole()
    chunks = body_of(connection) if stays or not is_unpackable(got) else unpacked(body_of(connection))
    return StreamedAnswer(status, got, chunks, stays, whole, lambda: upstream.give_back(connection))


async def _read(response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.aiter_bytes():
            yield chunk
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise EhrAnswerLost(f"the answer broke off ({type(error).__name__})") from None
