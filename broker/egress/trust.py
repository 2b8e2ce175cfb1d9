"""TLS with each host: whose certificates are believed there, and who the broker is (TK-08, OA-19)."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import httpx2 as httpx

from broker.egress.addresses import host_name
from broker.egress.connecting import Connections
from broker.errors import EhrUnreachable


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Who the broker is in a TLS handshake (RFC 8705): PEM files, read again when they have changed."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class HostTls:
    """How TLS with a host is done otherwise than with the rest."""

    authorities: Path | None = None
    """PEM file of the certificates that are believed there, in place of all others."""
    identity: ClientCertificate | None = None
    """What the broker shows there, unless a request has something else to show."""


_LIKE_THE_REST: Final = HostTls()
_Stamp: TypeAlias = tuple[tuple[int, int, int], ...]
"""What files were when they were read: when they were changed, their sizes and inodes."""


@dataclass(frozen=True, slots=True)
class Secured:
    """What does TLS in one way."""

    context: ssl.SSLContext
    client: httpx.AsyncClient
    """Opens a connection for each request."""
    stamp: _Stamp = ()


class Trust:
    """Knows how TLS is done with each host, by its files as they are."""

    def __init__(self, connections: Connections, default: ssl.SSLContext | None, hosts: Mapping[str, HostTls]) -> None:
        self._connections = connections
        self._authorities = b"".join(default.get_ca_certs(binary_form=True)) if default else b""
        self._default = self._secured(default or ssl.create_default_context())
        self._hosts = {host_name(host): tls for host, tls in hosts.items()}
        self._made: dict[HostTls, Secured] = {}

    async def close(self) -> None:
        """Close the clients."""
        for secured in (self._default, *self._made.values()):
            await secured.client.aclose()

    def of(self, host: str, identity: ClientCertificate | None = None) -> Secured:
        """Return how TLS is done with a host, showing `identity`, or what is shown there in any case.

        Raises `EhrUnreachable` for files that cannot be used.
        """
        tls = self._hosts.get(host_name(host), _LIKE_THE_REST)
        if identity is not None:
            tls = HostTls(tls.authorities, identity)
        if tls == _LIKE_THE_REST:
            return self._default
        known, stamp = self._made.get(tls), _stamp(tls)
        if known is None or known.stamp != stamp:  # whoever holds the former one goes on with it
            known = self._made[tls] = self._secured(self._context(tls), stamp)
        return known

    def _context(self, tls: HostTls) -> ssl.SSLContext:
        inherited = self._authorities if tls.authorities is None else b""
        with _usable("ca_file"):
            context = ssl.create_default_context(cafile=tls.authorities, cadata=inherited or None)
        if tls.identity is not None:
            with _usable("the client certificate"):
                context.load_cert_chain(tls.identity.certificate, tls.identity.key)
        return context

    def _secured(self, context: ssl.SSLContext, stamp: _Stamp = ()) -> Secured:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.keylog_filename = None  # type: ignore[assignment]  # `SSLKEYLOGFILE` would let others read along
        return Secured(context, self._connections.client(context), stamp)


def _stamp(tls: HostTls) -> _Stamp:
    with _usable("ca_file"):
        stamps = [] if tls.authorities is None else [tls.authorities.stat()]
    with _usable("the client certificate"):
        shown = () if tls.identity is None else (tls.identity.certificate, tls.identity.key)
        stamps += [file.stat() for file in shown]
    return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stamps)


@contextmanager
def _usable(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ssl.SSLError, ValueError) as error:
        raise EhrUnreachable(f"{what} cannot be used ({type(error).__name__})", ours=True) from None
