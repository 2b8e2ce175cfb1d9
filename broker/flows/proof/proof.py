"""What a request brings to prove whose it is, as it came: nothing of it is believed yet."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from cryptography.x509 import Certificate

from broker.ehr.unverified import unverified_claims
from broker.errors import InvalidClient, InvalidRequest
from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class Proof:
    """A request to an endpoint of `/oauth`."""

    form: Mapping[str, str] = field(repr=False)
    authorization: str | None = field(repr=False)
    """The `Authorization` header."""
    certificate: Certificate | None
    """What the app showed in the TLS handshake, as the declared proxy says."""
    endpoint: str
    """The URL of the endpoint."""

    @property
    def assertion(self) -> str | None:
        """The client assertion (RFC 7521 §4.2)."""
        return self.form.get("client_assertion")

    def claimed(self) -> tuple[str, str | None]:
        """Return who the request says it is from, and the secret of HTTP Basic. Raises `InvalidClient`.

        Raises `InvalidRequest` where it proves itself in two ways.
        """
        if self.authorization is None:
            return self.form.get("client_id") or self._subject(), None
        if self.assertion is not None or "client_secret" in self.form:
            raise InvalidRequest("two ways of authenticating in one request (RFC 6749 §2.3)")
        client_id, secret = _basic(self.authorization)
        if self.form.get("client_id", client_id) != client_id:
            raise InvalidClient("client_id is not the one that authenticates (OA-12)")
        return client_id, secret

    def _subject(self) -> str:
        """Return whom an assertion names, to find the key that must have signed it."""
        if self.assertion is None:
            return ""
        subject = (unverified_claims(Secret(self.assertion)) or {}).get("sub")
        if not isinstance(subject, str):
            raise InvalidClient("the assertion is not a JWT with a subject")
        return subject


def _basic(authorization: str) -> tuple[str, str]:
    """Read HTTP Basic; both parts are form-encoded (RFC 6749 §2.3.1)."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        client_id, separator, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        separator = client_id = secret = ""
    if scheme.lower() != "basic" or not separator:
        raise InvalidClient("the Authorization header is not HTTP Basic")
    return unquote_plus(client_id), unquote_plus(secret)
