"""Open a connection to an address that was looked at, and to no other (DS-15).

A name is resolved once, here, when a connection opens; every address it has must be allowed; and the connection goes to
one of these addresses, not to the name again, so that a name that changes its mind (DNS rebinding) gains nothing. TLS
goes on to check the name.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from ipaddress import ip_address
from typing import Any, Final, TypeAlias

import httpcore2 as httpcore
import httpx2 as httpx

from broker import __version__
from broker.egress.addresses import Address, AllowedHosts
from broker.errors import EhrMisbehaved, EhrUnreachable
from broker.single_flight import SingleFlight

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Returns every address of a host, the best first. Raises `OSError`."""
_MOST_ADDRESSES: Final = 4
"""How many of a host's addresses are tried."""
_RESOLVED_NOT_SECONDS: Final = 2.0
"""How long a host is taken to have no address after its lookup failed."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """What TLS with a server came to."""

    version: str
    """Such as `TLSv1.3`."""
    certificate_ends: float
    """Seconds since the epoch."""


async def system_resolve(host: str, port: int) -> Sequence[Address]:
    """Ask the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(address[0]) for *_, address in found]


class Lookups:
    """Looks up a host once at a time: one that is not answered occupies one thread of the resolver, and not all.

    A lookup cannot be called off, so it goes on when nobody waits for it any more, and who comes then waits for it.
    """

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._running: SingleFlight[Sequence[Address]] = SingleFlight()
        self._failed: dict[str, float] = {}
        """Until when, by the loop's clock."""

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """Return every address of a host. Raises `OSError`, and `ValueError` for what is no name of a host."""
        if self._failed.get(host, 0.0) > asyncio.get_running_loop().time():
            raise OSError("the host was not found a moment ago")
        return await self._running.run(host, lambda: self._look_up(host, port))

    async def _look_up(self, host: str, port: int) -> Sequence[Address]:
        try:
            return await self._resolve(host, port)
        except OSError:
            now = asyncio.get_running_loop().time()
            self._failed = {name: until for name, until in self._failed.items() if until > now}
            self._failed[host] = now + _RESOLVED_NOT_SECONDS
            raise


class CheckedConnections(httpcore.AsyncNetworkBackend):
    """Connects where it is allowed to."""

    def __init__(self, allowed: AllowedHosts, resolve: Resolve) -> None:
        self._allowed = allowed
        self._lookups = Lookups(resolve)
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect within `timeout` seconds. Raises `EhrMisbehaved` for an address that is not allowed."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + (timeout or 0)
        addresses = await self._found(host, port, timeout)
        for left in range(len(addresses), 0, -1):
            share = (give_up - loop.time()) / left if timeout is not None else None
            try:
                return await self._network.connect_tcp(
                    str(addresses[-left]), port, share, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if left == 1:
                    raise
        raise httpcore.ConnectError("the host has no address")

    async def addresses(self, host: str, port: int, timeout: float) -> Sequence[Address]:
        """Return where a host may be connected to, within `timeout` seconds.

        Raises `EhrUnreachable`, and `EhrMisbehaved` for an address that is not allowed.
        """
        try:
            return await self._found(host, port, timeout)
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            raise EhrUnreachable(f"no connection ({type(error).__name__})") from None

    async def _found(self, host: str, port: int, timeout: float | None) -> Sequence[Address]:
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._lookups.resolve(host, port)
        except TimeoutError:
            raise httpcore.ConnectTimeout("the host was not resolved in time") from None
        except (OSError, ValueError):  # a label of 64 letters, or none, is a `UnicodeError`
            raise httpcore.ConnectError("the host cannot be resolved") from None
        for address in addresses:
            if (refusal := self._allowed.refusal(host, address)) is not None:
                raise EhrMisbehaved(refusal)
        return list(dict.fromkeys(addresses))[:_MOST_ADDRESSES]


class Connections:
    """Makes clients that connect where it is allowed to, and nowhere else."""

    def __init__(self, allowed: AllowedHosts, resolve: Resolve) -> None:
        self.checked = CheckedConnections(allowed, resolve)

    async def handshake(self, host: str, port: int, context: ssl.SSLContext, *, timeout: float) -> Handshake:
        """Agree on TLS, send nothing, and close. Raises `EhrUnreachable`, `EhrMisbehaved`."""
        try:
            stream = await self.checked.connect_tcp(host, port, timeout)
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            raise EhrUnreachable(f"no connection ({type(error).__name__})") from None
        try:
            stream = await stream.start_tls(context, host, timeout)
            agreed = stream.get_extra_info("ssl_object")
            return Handshake(agreed.version(), ssl.cert_time_to_seconds(agreed.getpeercert()["notAfter"]))
        except (httpcore.ConnectError, httpcore.ConnectTimeout):
            raise EhrMisbehaved("the certificate does not verify, or no TLS version is shared (TK-08)") from None
        finally:
            await stream.aclose()

    def client(self, context: ssl.SSLContext) -> httpx.AsyncClient:
        """Return a client that opens a connection for each request; who uses it bounds how many."""
        transport = httpx.AsyncHTTPTransport(verify=context, trust_env=False)
        transport._pool = httpcore.AsyncConnectionPool(  # noqa: SLF001  # there is no public way to a network backend
            ssl_context=context,
            max_connections=None,
            max_keepalive_connections=0,
            network_backend=self.checked,
        )
        client = httpx.AsyncClient(
            transport=transport,
            headers={"User-Agent": f"smart-token-broker/{__version__}", "Accept-Encoding": "identity"},
            trust_env=False,
            follow_redirects=False,
        )
        client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        return client
