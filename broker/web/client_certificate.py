"""The certificate that an app showed to a declared proxy, which ends TLS and passes it on (RFC 8705, OA-25).

Two ways of writing it are read: RFC 9440's (DER in base64) and nginx's `$ssl_client_escaped_cert` (URL-encoded PEM).
The header is believed from declared proxies alone, by the address of the connection itself, not by `X-Forwarded-For`;
from anybody else it is a forgery, and the request is refused. Where no header is declared, none is read, and no app can
authenticate by certificate.
"""

import base64
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_to_bytes

from cryptography.x509 import Certificate, InvalidVersion, load_der_x509_certificate, load_pem_x509_certificates
from starlette.types import Scope

from broker.errors import InvalidRequest
from broker.settings.deployment import CertificateHeader
from broker.web.forwarded import PEER, is_declared

_FORGED: Final = "a client certificate header from an address that is no declared proxy (OA-25)"
_SEVERAL: Final = "two client certificate headers"
_UNREADABLE: Final = "the declared proxy's client certificate header cannot be read"

Report = Callable[[str, str], None]
"""Writes an audit record of a refusal: its cause and the request's id."""


class ClientCertificates:
    """Reads the certificate header, where there is one declared."""

    def __init__(self, header: CertificateHeader | None, report: Report) -> None:
        self._header = header
        self._name = header.name.lower().encode() if header else b""
        self.report = report

    def forgery(self, scope: Scope) -> str | None:
        """Return what is wrong when somebody other than a declared proxy sends the header, or it comes twice."""
        values = self._values(scope)
        if not values or (len(values) == 1 and self._is_declared(scope.get(PEER))):
            return None
        return _SEVERAL if self._is_declared(scope.get(PEER)) else _FORGED

    def read(self, scope: Scope, request_id: str) -> Certificate | None:
        """Return what the app showed, in a request that is no forgery. Raises `InvalidRequest` if it is unreadable."""
        values = self._values(scope)
        if not values or not values[0]:
            return None
        try:
            return _parse(values[0])
        except (ValueError, InvalidVersion):
            self.report(_UNREADABLE, request_id)
            raise InvalidRequest(_UNREADABLE) from None

    def _values(self, scope: Scope) -> list[bytes]:
        if self._header is None:
            return []
        return [value.strip() for name, value in scope["headers"] if name == self._name]

    def _is_declared(self, peer: tuple[str, int] | None) -> bool:
        return self._header is not None and peer is not None and is_declared(peer[0], self._header.proxies)


def _parse(value: bytes) -> Certificate:
    if value[:1] == b":" and value[-1:] == b":" and len(value) > 2:
        return load_der_x509_certificate(base64.b64decode(value[1:-1], validate=True))
    (certificate,) = load_pem_x509_certificates(unquote_to_bytes(value))
    return certificate
