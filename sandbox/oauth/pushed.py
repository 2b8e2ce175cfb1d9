"""Authorization requests that clients sent ahead, away from the browser (RFC 9126, OA-22)."""

from collections.abc import Callable
from dataclasses import dataclass

from sandbox.marks import Entropy, mint
from sandbox.oauth.errors import invalid_request
from sandbox.oauth.parameters import Parameters

LIFETIME = 60
"""Seconds."""
PREFIX = "urn:ietf:params:oauth:request_uri:"


@dataclass(frozen=True, slots=True)
class _Pushed:
    client_id: str
    parameters: Parameters
    expires_at: float


class PushedRequests:
    """The requests under way, each good for its client, once."""

    def __init__(self, clock: Callable[[], float], entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy
        self._waiting: dict[str, _Pushed] = {}

    def keep(self, client_id: str, parameters: Parameters) -> str:
        """Return the `request_uri` that stands for these parameters from now on."""
        request_uri = f"{PREFIX}{mint('request', self._entropy)}"
        self._waiting[request_uri] = _Pushed(client_id, parameters, self._clock() + LIFETIME)
        return request_uri

    def redeem(self, request_uri: str, client_id: str) -> Parameters:
        """Return the parameters and forget them, or raise `OAuthError` (invalid_request)."""
        pushed = self._waiting.get(request_uri)
        if pushed is None or pushed.client_id != client_id:
            raise invalid_request("request_uri was not issued to this client, or was already used")
        del self._waiting[request_uri]
        if pushed.expires_at <= self._clock():
            raise invalid_request("request_uri has expired")
        return pushed.parameters
