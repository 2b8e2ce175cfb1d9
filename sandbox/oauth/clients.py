"""Who may ask: the registered clients."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, get_args
from urllib.parse import urlsplit

from sandbox.oauth.certificates import is_name
from sandbox.settings import EncodingRule, RefreshRule

Authentication = Literal[
    "none", "client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth",
    "self_signed_tls_client_auth",
]  # fmt: skip
IdInBody = Literal["optional", "refresh", "always", "never"]
SigningAlgorithm = Literal["RS256", "RS384", "ES384"]

GRANT_TYPES = ("authorization_code", "refresh_token", "client_credentials")
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
"""The grant of dynamic clients, which register themselves (EP-17, OA-14)."""
_WITH_KEYS = frozenset({"private_key_jwt", "self_signed_tls_client_auth"})


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
    refresh: RefreshRule | None = None
    """`rotate`: each refresh gives a new refresh token; `keep`: the first stays (EP-16); `repeat`: it stays and is
    sent again; `sometimes`: every second refresh gives a new one; `none`: never one; None: as the settings say."""
    basic_encoding: EncodingRule | None = None
    """Whether `client_secret_basic` sends id and secret form-encoded, as Epic wants it, or as they are (Q1, EP-13);
    None: as the settings say."""
    client_id_in_body: IdInBody = "optional"
    """When a token request must, or must not, name the client in its body too (Q2)."""
    assertion_aud: str = "token_endpoint"
    """The `aud` of client assertions: `token_endpoint` (CA-05), `issuer`, or this very text (Q3)."""
    token_endpoint_auth_signing_alg: SigningAlgorithm | None = None
    """The only algorithm of client assertions; None: RS384 and ES384 (CA-09). RS256 is Epic's."""
    tls_client_auth_subject_dn: str | None = None
    """The subject of its certificate as RFC 4514 writes it, for `tls_client_auth` (RFC 8705 §2.1.2)."""
    dpop_bound_access_tokens: bool = False
    """Every token request must carry a DPoP proof (RFC 9449 §5.2)."""

    @classmethod
    def parse(cls, document: Any, new_secret: str) -> Self:
        """Return the client a JSON document describes; `new_secret` is its secret where one is needed and not given.

        Raises `RegistrationError`.
        """
        if not isinstance(document, dict):
            raise RegistrationError("a client is a JSON object")
        known = sorted(member.name for member in fields(cls))
        if unknown := sorted(set(document) - set(known)):
            raise RegistrationError(f"unknown members: {', '.join(unknown)}; known are {', '.join(known)}")
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
            refresh=_one_of(document, "refresh", (*get_args(RefreshRule), None)),
            basic_encoding=_one_of(document, "basic_encoding", (*get_args(EncodingRule), None)),
            client_id_in_body=_one_of(document, "client_id_in_body", get_args(IdInBody), "optional"),
            assertion_aud=_text(document, "assertion_aud") or "token_endpoint",
            token_endpoint_auth_signing_alg=_one_of(
                document, "token_endpoint_auth_signing_alg", (*get_args(SigningAlgorithm), None)
            ),
            tls_client_auth_subject_dn=_text(document, "tls_client_auth_subject_dn"),
            dpop_bound_access_tokens=_one_of(document, "dpop_bound_access_tokens", (False, True), default=False),
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
        if "authorization_code" in self.grant_types and not self.redirect_uris:
            yield "redirect_uris is missing: authorization_code needs at least one"
        if "client_credentials" in self.grant_types and self.authentication == "none":
            yield "client_credentials needs a client that authenticates (BS-01)"
        yield from self._credential_faults()
        for url in filter(None, (*self.redirect_uris, self.launch_uri, self.jwks_uri)):
            if not urlsplit(url).scheme or urlsplit(url).fragment:
                yield f"{url} is not an absolute URL without a fragment (OA-06)"

    def _credential_faults(self) -> Iterator[str]:
        if sum(key is not None for key in (self.jwks_uri, self.jwks)) != (self.authentication in _WITH_KEYS):
            yield f"{' and '.join(sorted(_WITH_KEYS))} need either jwks_uri or jwks; nothing else takes one (OA-15)"
        if self.jwks is not None and not isinstance(self.jwks, dict):
            yield "jwks is a JWK Set: an object with keys"
        if (self.tls_client_auth_subject_dn is not None) != (self.authentication == "tls_client_auth"):
            yield "tls_client_auth needs tls_client_auth_subject_dn; nothing else takes one"
        if not is_name(self.tls_client_auth_subject_dn or ""):
            yield "tls_client_auth_subject_dn is not a distinguished name as RFC 4514 writes it"

    def registration(self) -> dict[str, Any]:
        """Return the client as JSON, without its secret and keys."""
        shown = {member.name: getattr(self, member.name) for member in fields(self) if member.repr}
        return {**shown, "grant_types": sorted(self.grant_types)}


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


def _one_of(document: Mapping[str, Any], name: str, choices: tuple[Any, ...], default: Any = None) -> Any:
    value = document.get(name, default)
    if value not in choices:
        known = ", ".join(str(choice) for choice in choices if choice is not None)
        raise RegistrationError(f"{name} is one of {known}")
    return value
