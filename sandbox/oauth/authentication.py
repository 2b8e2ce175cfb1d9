"""Is this the client it says it is? One method per client, the registered one, and only one per request (TK-06)."""

import base64
import secrets
from collections.abc import Mapping
from urllib.parse import unquote_plus

from sandbox.oauth.assertions import TYPE, Replays, UnverifiedAssertion, verify
from sandbox.oauth.clients import Client
from sandbox.oauth.errors import OAuthError, invalid_client, invalid_request
from sandbox.oauth.key_sets import KeySets
from sandbox.oauth.parameters import Parameters


def claimed_client_id(form: Parameters, authorization: str | None) -> str | None:
    """Return whom a request says it is from, before anything is proved: for the journal and the faults."""
    try:
        return _claimed(form, authorization)
    except OAuthError:
        return None


class ClientAuthentication:
    """Authenticates clients at the token, introspection and revocation endpoints."""

    def __init__(self, clients: Mapping[str, Client], key_sets: KeySets, replays: Replays) -> None:
        self._clients = clients
        self._key_sets = key_sets
        self._replays = replays

    async def authenticate(
        self, form: Parameters, authorization: str | None, audiences: tuple[str, ...], now: float
    ) -> Client:
        """Return the client, or raise `OAuthError`: invalid_client, or invalid_request for two methods at once.

        `audiences` are the URLs an assertion may be meant for; `now` is in seconds.
        """
        method = _method(form, authorization)
        client = self._clients.get(_claimed(form, authorization) or "")
        if client is None:
            raise invalid_client("the client is unknown")
        if form.get("client_id", client.client_id) != client.client_id:
            raise invalid_client("client_id is not the client that authenticated (OA-12)")
        if method != client.authentication:
            raise invalid_client(f"this client is registered for {client.authentication}, and used {method}")
        if method == "client_secret_basic":
            _check_secret(client, _basic(authorization or "")[1])
        elif method == "client_secret_post":
            _check_secret(client, form["client_secret"])
        elif method == "private_key_jwt":
            await self._check_assertion(client, form, audiences, now)
        return client

    async def _check_assertion(self, client: Client, form: Parameters, audiences: tuple[str, ...], now: float) -> None:
        if form.get("client_assertion_type") != TYPE:
            raise invalid_client(f"client_assertion_type must be {TYPE} (CA-08)")
        assertion = UnverifiedAssertion.read(form["client_assertion"])
        key_set = await self._key_sets.of(client, assertion.kid)
        verify(
            assertion,
            client_id=client.client_id,
            key_set=key_set,
            jwks_uri=client.jwks_uri,
            audiences=audiences,
            now=now,
        )
        self._replays.use(assertion, now)


def _claimed(form: Parameters, authorization: str | None) -> str | None:
    if authorization is not None:
        return _basic(authorization)[0]
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
    """Return id and secret; both were form-encoded before Base64, as RFC 6749 §2.3.1 and Epic want (EP-13)."""
    scheme, _, credentials = authorization.partition(" ")
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True).decode()
    except ValueError:
        decoded = ""
    client_id, separator, secret = decoded.partition(":")
    if scheme.lower() != "basic" or not separator:
        raise invalid_client("the Authorization header is not Basic credentials")
    return unquote_plus(client_id), unquote_plus(secret)


def _check_secret(client: Client, secret: str) -> None:
    if not client.client_secret or not secrets.compare_digest(client.client_secret.encode(), secret.encode()):
        raise invalid_client("the client secret is not right")
