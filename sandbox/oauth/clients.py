"""Who may ask: the registered clients."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args
from urllib.parse import urlsplit

Authentication = Literal["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]
Refresh = Literal["rotate", "keep", "none"]

GRANT_TYPES = ("authorization_code", "refresh_token", "client_credentials")
_MEMBERS = frozenset({
    "authentication", "client_id", "client_name", "client_secret", "grant_types", "jwks", "jwks_uri", "launch_uri",
    "redirect_uris", "refresh", "scopes",
})  # fmt: skip


class RegistrationError(ValueError):
    """A client document that cannot be registered; the text says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One registered client (RFC 7591 §2, cut to what the sandbox honours)."""

    client_id: str
    client_name: str
    authentication: Authentication
    client_secret: str | None = field(default=None, repr=False)
    jwks_uri: str | None = None
    jwks: Mapping[str, Any] | None = field(default=None, repr=False)
    redirect_uris: tuple[str, ...] = ()
    launch_uri: str | None = None
    scopes: tuple[str, ...] = ()
    """The most this client can ever be granted."""
    grant_types: frozenset[str] = frozenset(GRANT_TYPES[:2])
    refresh: Refresh = "rotate"
    """`rotate`: each refresh gives a new refresh token; `keep`: the first stays (EP-16); `none`: never one."""

    @classmethod
    def parse(cls, document: Any, new_secret: str) -> Self:
        """Return the client a JSON document describes; `new_secret` is its secret where one is needed and not given.

        Raises `RegistrationError`.
        """
        if not isinstance(document, dict):
            raise RegistrationError("a client is a JSON object")
        if unknown := sorted(set(document) - _MEMBERS):
            raise RegistrationError(f"unknown members: {', '.join(unknown)}; known are {', '.join(sorted(_MEMBERS))}")
        authentication = _one_of(document, "authentication", get_args(Authentication))
        secret = _text(document, "client_secret")
        if authentication.startswith("client_secret"):
            secret = secret or new_secret
        elif secret:
            raise RegistrationError(f"client_secret has no use with authentication {authentication}")
        client = cls(
            client_id=_text(document, "client_id") or "",
            client_name=_text(document, "client_name") or _text(document, "client_id") or "",
            authentication=authentication,
            client_secret=secret,
            jwks_uri=_text(document, "jwks_uri"),
            jwks=document.get("jwks"),
            redirect_uris=_texts(document, "redirect_uris"),
            launch_uri=_text(document, "launch_uri"),
            scopes=_texts(document, "scopes"),
            grant_types=frozenset(_texts(document, "grant_types") or GRANT_TYPES[:2]),
            refresh=_one_of(document, "refresh", get_args(Refresh), "rotate"),
        )
        for fault in client.faults():
            raise RegistrationError(fault)
        return client

    def faults(self) -> Iterator[str]:
        """Say what keeps this client from being registered."""
        if not self.client_id:
            yield "client_id is missing"
        if not self.scopes:
            yield "scopes is missing: list the most this client may ever be granted"
        if unknown := sorted(self.grant_types - set(GRANT_TYPES)):
            yield f"unknown grant_types: {', '.join(unknown)}; known are {', '.join(GRANT_TYPES)}"
        if sum(key is not None for key in (self.jwks_uri, self.jwks)) != (self.authentication == "private_key_jwt"):
            yield "private_key_jwt needs either jwks_uri or jwks; no other authentication takes one (OA-15)"
        if self.jwks is not None and not isinstance(self.jwks, dict):
            yield "jwks is a JWK Set: an object with keys"
        if "authorization_code" in self.grant_types and not self.redirect_uris:
            yield "redirect_uris is missing: authorization_code needs at least one"
        if "client_credentials" in self.grant_types and self.authentication == "none":
            yield "client_credentials needs a client that authenticates (BS-01)"
        for url in filter(None, (*self.redirect_uris, self.launch_uri, self.jwks_uri)):
            if not urlsplit(url).scheme or urlsplit(url).fragment:
                yield f"{url} is not an absolute URL without a fragment (OA-06)"

    def registration(self) -> dict[str, Any]:
        """Return the client as JSON, without its secret."""
        return {
            "client_id": self.client_id,
            "client_name": self.client_name,
            "authentication": self.authentication,
            "jwks_uri": self.jwks_uri,
            "redirect_uris": list(self.redirect_uris),
            "launch_uri": self.launch_uri,
            "scopes": list(self.scopes),
            "grant_types": sorted(self.grant_types),
            "refresh": self.refresh,
        }


def _text(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    if value is None or (isinstance(value, str) and value):
        return value
    raise RegistrationError(f"{name} is a non-empty string")


def _texts(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return a list of strings; scopes may also be one string with spaces, as OAuth writes them."""
    value = document.get(name, [])
    if name == "scopes" and isinstance(value, str):
        value = value.split()
    if isinstance(value, list) and all(isinstance(item, str) and item for item in value):
        return tuple(value)
    raise RegistrationError(f"{name} is a list of strings")


def _one_of(document: Mapping[str, Any], name: str, choices: tuple[Any, ...], default: str | None = None) -> Any:
    value = document.get(name, default)
    if value not in choices:
        raise RegistrationError(f"{name} is one of {', '.join(choices)}")
    return value
