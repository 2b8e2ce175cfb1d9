"""What proves that a caller is an app: the tables for it, and which keys of `[[app]]` belong to which method."""

import base64
import hashlib
import re
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Final, Literal

from cryptography import x509
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)

from broker.settings.fields import Identifier, Table

AppAuthentication = Literal[
    "none",
    "client_secret_basic",
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
    "workload_identity",
]
PROOFS: Final[Mapping[AppAuthentication, tuple[str, ...]]] = {
    "none": (),
    "client_secret_basic": ("secret",),
    "private_key_jwt": ("jwks", "jwks_uri"),
    "tls_client_auth": ("tls_client_auth_subject_dn", "tls_client_auth_san_dns", "tls_client_auth_san_uri"),
    "self_signed_tls_client_auth": ("certificate_thumbprints", "jwks"),
    "workload_identity": ("workload",),
}
"""The keys of `[[app]]` of which each method needs exactly one."""
CERTIFICATE_METHODS: Final = frozenset({"tls_client_auth", "self_signed_tls_client_auth"})
MOST_SECRETS: Final = 2
"""One in use and its successor."""
MOST_SECRET_DAYS: Final = 400
SOON_DAYS: Final = 14
"""From then on an operator is reminded of a secret that expires."""
_CHECKED_ELSEWHERE: Final = frozenset({"iss", "sub", "aud", "exp", "iat", "nbf"})
_SEPARATOR: Final = re.compile(r"([/:])")


def _moment(value: object) -> datetime:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a time needs its zone: write Z behind it for UTC")
        return value
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    raise ValueError("must be a date or time of TOML, without quotes: expires = 2027-02-01")


def _distinguished_name(text: str) -> str:
    try:
        canonical = x509.Name.from_rfc4514_string(text).rfc4514_string()
    except ValueError:
        raise ValueError("is not a distinguished name as RFC 4514 writes it, such as CN=etl,O=Acme") from None
    if canonical != text:
        raise ValueError(f"must be written as it is compared: {canonical!r}")
    return text


def _public_keys(jwks: dict[str, Any]) -> dict[str, Any]:
    keys = jwks.get("keys")
    is_public = isinstance(keys, list) and all(
        isinstance(key, dict) and key.get("kty") in {"RSA", "EC"} and "d" not in key for key in keys
    )
    if not is_public or not keys:
        raise ValueError("must be a JWK Set of public RSA or EC keys; a private key never stands in this file")
    return jwks


PublicKeys = Annotated[dict[str, Any], AfterValidator(_public_keys)]
Moment = Annotated[datetime, BeforeValidator(_moment)]
DistinguishedName = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_distinguished_name)]
DnsName = Annotated[str, Field(pattern=r"^[a-z0-9_-]+(\.[a-z0-9_-]+)*$", max_length=253)]
Thumbprint = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]


def misfit(method: AppAuthentication, given: Collection[str]) -> str | None:
    """Return what is wrong with the keys of an app that prove something, given those that it has; None if they fit."""
    wanted = PROOFS[method]
    foreign = sorted({key for keys in PROOFS.values() for key in keys} & set(given) - set(wanted))
    if foreign:
        return f"{' and '.join(foreign)} does not go with authentication = {method!r}"
    if wanted and len(set(wanted) & set(given)) != 1:
        return f"authentication = {method!r} needs {'exactly one of ' if wanted[1:] else ''}{', '.join(wanted)}"
    return None


def thumbprints(jwks: Mapping[str, Any]) -> frozenset[str]:
    """Return the `x5t#S256` of the certificates that a JWK Set names or holds (RFC 8705 §2.2.2, RFC 7517 §4.7)."""
    named = {key["x5t#S256"] for key in jwks.get("keys", ()) if isinstance(key.get("x5t#S256"), str)}
    chains = [chain for key in jwks.get("keys", ()) if isinstance(chain := key.get("x5c"), list)]
    own = {chain[0] for chain in chains if chain and isinstance(chain[0], str)}
    return frozenset(named | {thumbprint(base64.b64decode(certificate, validate=True)) for certificate in own})


def thumbprint(der: bytes) -> str:
    """Return the `x5t#S256` of a certificate (RFC 8705 §3.1)."""
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


class AppSecret(Table):
    """`[[app.secret]]`: one of at most two secrets, as `broker apps secret` prints it."""

    id: Identifier | None = None
    hash: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    """Only generated 256-bit secrets exist, so one round of SHA-256 is enough."""
    expires: Moment
    """A date is the beginning of that day, UTC."""

    @property
    def name(self) -> str:
        """What listings and audit records call it."""
        return self.id or self.hash[7:15]

    @property
    def expires_at(self) -> float:
        """Seconds since 1970."""
        return self.expires.timestamp()


class Workload(Table):
    """`[app.workload]`: which tokens of a trusted issuer are this app's."""

    issuer: Identifier
    """The id of an `[[issuer]]`."""
    subject: str = Field(min_length=1, max_length=512)
    wildcard: bool = False
    """Whether a `*` in `subject` stands for any one segment between `/` and `:`."""
    claims: dict[str, StrictStr | StrictBool | StrictInt] = Field(default_factory=dict)
    """Further claims that must have exactly these values."""

    @field_validator("claims")
    @classmethod
    def _further(cls, claims: dict[str, str | bool | int]) -> dict[str, str | bool | int]:
        if known := sorted(_CHECKED_ELSEWHERE & claims.keys()):
            raise ValueError(f"{', '.join(known)}: checked by [[issuer]] and subject already")
        return claims

    @model_validator(mode="after")
    def _bounded(self) -> "Workload":
        segments = _SEPARATOR.split(self.subject)
        if not self.wildcard and "*" in self.subject:
            raise ValueError("subject holds a *. Fix: name one subject, or set wildcard = true and mean it")
        partly = any("*" in segment and segment != "*" for segment in segments)
        if self.wildcard and (segments[0] == "*" or "*" not in segments or partly):
            raise ValueError("with wildcard = true a * stands for one whole segment of subject, and not for the first")
        return self

    def covers(self, subject: str) -> bool:
        """Whether a token's `sub` is meant."""
        if not self.wildcard:
            return subject == self.subject
        wanted, given = _SEPARATOR.split(self.subject), _SEPARATOR.split(subject)
        return len(wanted) == len(given) and all(
            bool(other) if segment == "*" else segment == other for segment, other in zip(wanted, given, strict=True)
        )
