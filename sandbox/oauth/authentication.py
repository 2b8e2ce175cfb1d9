"""Is this the client it says it is? One method per client, the registered one, and only one per request (TK-06)."""

import base64
import re
import secrets
from collections.abc import Callable, Mapping
from urllib.parse import unquote_plus

from sandbox.oauth.assertions import ALGORITHMS, TYPE, Replays, UnverifiedAssertion, verify
from sandbox.oauth.certificates import has_subject, is_published
from sandbox.oauth.clients import Client
from sandbox.oauth.errors import OAuthError, invalid_client, invalid_request
from sandbox.oauth.key_sets import KeySets
from sandbox.oauth.parameters import Parameters
from sandbox.oauth.presented import Presented
from sandbox.settings import EncodingRule, Settings

_BY_CERTIFICATE = frozenset({"tls_client_auth", "self_signed_tls_client_auth"})
_FORM_ENCODED = re.compile(r"(?:[A-Za-z0-9*._~+-]|%[0-9A-Fa-f]{2})*")


def claimed_client_id(form: Parameters, authorization: str | None) -> str | None:
    """Return whom a request says it is from, before anything is proved: for the journal and the faults."""
    try:
        return _claimed(form, authorization)
    except OAuthError:
        return None


class ClientAuthentication:
    """Authenticates clients at every endpoint that wants it."""

    def __init__(
        self, settings: Callable[[], Settings], clients: Mapping[str, Client], key_sets: KeySets, replays: Replays
    ) -> None:
        self._settings = settings
        self._clients = clients
        self._key_sets = key_sets
        self.replays = replays

    async def authenticate(self, form: Parameters, presented: Presented, endpoint: str, now: float) -> Client:
        """Return the client, or raise `OAuthError`: invalid_client, or invalid_request for two methods at once.

        `endpoint` is the URL the request is for, without regard to mTLS; `now` is in seconds.
        """
        client = self._client(form, presented.authorization)
        if form.get("client_id", client.client_id) != client.client_id:
            raise invalid_client("client_id is not the client that authenticated (OA-12)")
        method = _method(form, presented.authorization)
        if method == "none" and presented.certificate and client.authentication in _BY_CERTIFICATE:
            method = client.authentication
        if method != client.authentication:
            raise invalid_client(f"this client is registered for {client.authentication}, and used {method}")
        _check_body(client, form)
        if method == "client_secret_basic":
            _check_secret(
                client,
                *_decoded(client.basic_encoding or self._settings().basic_encoding, presented.authorization or ""),
            )
        elif method == "client_secret_post":
            _check_secret(client, client.client_id, form["client_secret"])
        elif method == "private_key_jwt":
            await self._check_assertion(client, form, endpoint, now)
        elif presented.certificate and method in _BY_CERTIFICATE:
            await self._check_certificate(client, presented.certificate)
        return client

    def _client(self, form: Parameters, authorization: str | None) -> Client:
        claimed = _claimed(form, authorization) or ""
        # Until the client is known it is not known either how it writes its id.
        written = _basic(authorization)[0] if authorization is not None else claimed
        client = self._clients.get(claimed) or self._clients.get(written)
        if client is None:
            raise invalid_client("the client is unknown")
        return client

    async def _check_assertion(self, client: Client, form: Parameters, endpoint: str, now: float) -> None:
        if form.get("client_assertion_type") != TYPE:
            raise invalid_client(f"client_assertion_type must be {TYPE} (CA-08)")
        assertion = UnverifiedAssertion.read(form["client_assertion"])
        registered = client.token_endpoint_auth_signing_alg
        verify(
            assertion,
            client_id=client.client_id,
            key_set=await self._key_sets.of(client, assertion.kid),
            jwks_uri=client.jwks_uri,
            algorithms=(registered,) if registered else ALGORITHMS,
            audiences=self._audiences(client, endpoint),
            now=now,
        )
        self.replays.use(assertion, now)

    def _audiences(self, client: Client, endpoint: str) -> tuple[str, ...]:
        settings = self._settings()
        if client.assertion_aud == "token_endpoint":
            # Clients often reuse the token endpoint as audience; RFC 7523 §3 leaves the choice to the server.
            return (endpoint, settings.token_endpoint)
        return (settings.issuer if client.assertion_aud == "issuer" else client.assertion_aud,)

    async def _check_certificate(self, client: Client, certificate: bytes) -> None:
        if client.tls_client_auth_subject_dn is not None:
            known = has_subject(certificate, client.tls_client_auth_subject_dn)
        else:
            known = is_published(certificate, await self._key_sets.of(client, kid=""))
        if not known:
            raise invalid_client("the certificate is not the one this client registered (RFC 8705 §2)")


def _claimed(form: Parameters, authorization: str | None) -> str | None:
    if authorization is not None:
        return unquote_plus(_basic(authorization)[0])
    if "client_assertion" in form:
        return UnverifiedAssertion.read(form["client_assertion"]).client_id
    return form.get("client_id")


def _method(form: Parameters, authorization: str | None) -> str:
    used = [
        method
        for method, is_used in (
            ("client_secret_basic", authorization is not None),
            ("client_secret_post", "client_secret" in form),
            ("private_key_jwt", "client_assertion" in form),
        )
        if is_used
    ]
    if len(used) > 1:
        raise invalid_request(f"more than one client authentication: {', '.join(used)}")
    return used[0] if used else "none"


def _basic(authorization: str) -> tuple[str, str]:
    """Return id and secret as they were written."""
    scheme, _, credentials = authorization.partition(" ")
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True).decode()
    except ValueError:
        decoded = ""
    client_id, separator, secret = decoded.partition(":")
    if scheme.lower() != "basic" or not separator:
        raise invalid_client("the Authorization header is not Basic credentials")
    return client_id, secret


def _decoded(encoding: EncodingRule, authorization: str) -> tuple[str, str]:
    """Return id and secret; form-encoded before Base64, as RFC 6749 §2.3.1 and Epic want, or not at all (Q1, EP-13)."""
    written = _basic(authorization)
    if encoding == "raw":
        return written
    if not all(_FORM_ENCODED.fullmatch(part) for part in written):
        raise invalid_client("id and secret must be form-encoded before Base64 (RFC 6749 §2.3.1)")
    return unquote_plus(written[0]), unquote_plus(written[1])


def _check_secret(client: Client, client_id: str, secret: str) -> None:
    right = client.client_secret and secrets.compare_digest(client.client_secret.encode(), secret.encode())
    if not right or client_id != client.client_id:
        raise invalid_client("the client secret is not right")


def _check_body(client: Client, form: Parameters) -> None:
    """Refuse a body that names the client, or does not, against its registration (Q2, TK-04)."""
    rule, named = client.client_id_in_body, "client_id" in form
    refreshing = form.get("grant_type") == "refresh_token"
    if not named and (rule == "always" or (rule == "refresh" and refreshing)):
        raise invalid_client("client_id is missing from the body")
    if named and rule == "never":
        raise invalid_client("client_id may not be in the body")
