"""Everything that can go wrong on demand: the table of faults, and which of them are armed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

FOREVER = -1
"""The number of times of a fault that stays armed until it is deleted or everything is reset."""


class FaultError(ValueError):
    """A fault that cannot be armed; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that can go wrong: where it strikes, what it does, its parameters and their defaults."""

    name: str
    point: str
    effect: str
    says: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    times: int = 1


def _error(status: int, error: str, **more: Any) -> dict[str, Any]:
    return {"status": status, "error": error, "error_description": "a fault was armed", **more}


FAULTS = (
    Fault("token_500", "token", "oauth_error", "500, not processed", _error(500, "server_error")),
    Fault("token_503", "token", "oauth_error", "503 with Retry-After, not processed",
          _error(503, "temporarily_unavailable", retry_after=1)),
    Fault("token_429", "token", "oauth_error", "429 with Retry-After, not processed",
          _error(429, "slow_down", retry_after=1)),
    Fault("token_html", "token", "html", "200 with an HTML page, not processed", {"status": 200}),
    Fault("token_invalid_grant", "token", "oauth_error", "invalid_grant, not processed", _error(400, "invalid_grant")),
    Fault("token_invalid_client", "token", "oauth_error", "invalid_client, not processed",
          _error(401, "invalid_client")),
    Fault("token_drop_before", "token", "drop_before", "connection closed, not processed"),
    Fault("token_drop", "token", "drop", "processed, then the connection is closed without an answer"),
    Fault("token_timeout", "token", "silence", "processed, then no answer for some seconds", {"seconds": 30}),
    Fault("token_hold", "token", "hold", "processed, then answered after some seconds", {"seconds": 1}),
    Fault("token_delay", "token.delay", "delay", "processed only after some seconds", {"seconds": 1}),
    Fault("token_no_expires_in", "token.answer", "edit", "answer without expires_in",
          {"set": {}, "drop": ["expires_in"]}),
    Fault("token_expires_in_string", "token.answer", "text", "expires_in as a string", {"member": "expires_in"}),
    Fault("token_no_scope", "token.answer", "edit", "answer without scope", {"set": {}, "drop": ["scope"]}),
    Fault("token_scope", "token.answer", "scope", "answer with this scope", {"scope": ""}),
    Fault("token_members", "token.answer", "edit", "answer with members set or dropped", {"set": {}, "drop": []}),
    Fault("token_no_refresh_token", "token.refresh_token", "withhold", "no new refresh token; an old one stays good"),
    Fault("token_refresh_id_token", "token.refresh_id_token", "identify",
          "a refresh gives an id_token too, of this sub or the user's", {"sub": ""}),
    Fault("token_size", "token.size", "size", "an access token of this many random bytes", {"bytes": 6000}),
    Fault("token_lifetime", "token.lifetime", "lifetime", "access tokens live for this many seconds",
          {"seconds": 60}, FOREVER),
    Fault("id_token_bad_nonce", "id_token", "claim", "another nonce", {"claim": "nonce", "value": "not-the-nonce"}),
    Fault("id_token_bad_audience", "id_token", "claim", "another aud", {"claim": "aud", "value": "another-client"}),
    Fault("id_token_bad_issuer", "id_token", "claim", "another iss",
          {"claim": "iss", "value": "https://issuer.invalid"}),
    Fault("id_token_expired", "id_token", "claim", "an exp long past", {"claim": "exp", "value": 1}),
    Fault("id_token_bad_signature", "id_token", "forge", "signed with a key that is not published"),
    Fault("discovery_404", "smart_configuration", "outcome", "smart-configuration is missing", {"status": 404}),
    Fault("discovery_500", "smart_configuration", "outcome", "smart-configuration fails", {"status": 500}),
    Fault("discovery_html", "smart_configuration", "html", "smart-configuration is a web page", {"status": 200}),
    Fault("discovery_drop", "smart_configuration", "drop_before", "connection closed instead of smart-configuration"),
    Fault("discovery_delay", "smart_configuration.delay", "delay", "smart-configuration takes some seconds",
          {"seconds": 1}),
    Fault("discovery_members", "smart_configuration.answer", "edit", "smart-configuration with members set or dropped",
          {"set": {}, "drop": []}),
    Fault("metadata_html", "metadata", "html", "the CapabilityStatement is a web page", {"status": 200}),
    Fault("metadata_500", "metadata", "outcome", "the CapabilityStatement fails", {"status": 500}),
    Fault("fhir_401", "fhir", "outcome", "401 whatever the token", {"status": 401}),
    Fault("fhir_401_all", "fhir", "outcome", "401 to everything", {"status": 401}, FOREVER),
    Fault("fhir_403", "fhir", "outcome", "403 insufficient_scope", {"status": 403}),
    Fault("fhir_429", "fhir", "outcome", "429 with Retry-After", {"status": 429, "retry_after": 1}),
    Fault("fhir_500", "fhir", "outcome", "500", {"status": 500}),
    Fault("fhir_html", "fhir", "html", "a web page instead of FHIR", {"status": 200}),
    Fault("fhir_redirect", "fhir", "redirect", "302 to another server",
          {"status": 302, "location": "https://elsewhere.invalid/"}),
    Fault("fhir_drop", "fhir", "drop_before", "connection closed, not processed"),
    Fault("fhir_drop_mid_body", "fhir", "truncate", "connection closed half-way through the body"),
    Fault("fhir_delay", "fhir.delay", "delay", "processed only after some seconds", {"seconds": 1}),
    Fault("authorize_error", "authorize", "refuse", "redirect back with an error",
          {"error": "access_denied", "error_description": "a fault was armed", "error_uri": ""}),
    Fault("authorize_auto_approve", "authorize.pages", "skip", "no pages; this patient, or the first", {"patient": ""}),
    Fault("authorize_wrong_state", "authorize.answer", "edit", "redirect back with another state",
          {"set": {"state": "not-the-state"}, "drop": []}),
    Fault("authorize_wrong_iss", "authorize.answer", "edit", "redirect back with another iss (RFC 9207)",
          {"set": {"iss": "https://issuer.invalid"}, "drop": []}),
    Fault("authorize_no_iss", "authorize.answer", "edit", "redirect back without iss", {"set": {}, "drop": ["iss"]}),
    Fault("jwks_down", "jwks", "html", "the id_token keys cannot be fetched", {"status": 503}),
)  # fmt: skip
_BY_NAME = {fault.name: fault for fault in FAULTS}


@dataclass(slots=True)
class Armed:
    """A fault that waits to strike, for one client or for any."""

    fault: Fault
    left: int
    client_id: str | None
    parameters: Mapping[str, Any]
    struck: int = 0

    def matches(self, point: str, client_id: str | None) -> bool:
        """Say whether it would strike here and now."""
        return self.left != 0 and self.fault.point == point and self.client_id in {None, client_id}

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "name": self.fault.name,
            "left": self.left,
            "struck": self.struck,
            "client_id": self.client_id,
            **self.parameters,
        }


class Faults:
    """The armed faults, in the order they were armed."""

    def __init__(self) -> None:
        self._armed: list[Armed] = []

    def arm(self, document: Any) -> Armed:
        """Arm what `{name, times?, client_id?, …parameters}` asks for, or raise `FaultError`."""
        if not isinstance(document, dict) or document.get("name") not in _BY_NAME:
            raise FaultError(f"name is one of {', '.join(sorted(_BY_NAME))}")
        fault = _BY_NAME[document["name"]]
        given = {name: value for name, value in document.items() if name not in {"name", "times", "client_id"}}
        for name, value in given.items():
            if name not in fault.parameters:
                raise FaultError(f"{fault.name} takes {', '.join(fault.parameters) or 'no parameters'}, not {name}")
            if not _same_type(value, fault.parameters[name]):
                raise FaultError(f"{name} must be like {fault.parameters[name]!r}")
        times, client_id = document.get("times", fault.times), document.get("client_id")
        if type(times) is not int or (times < 1 and times != FOREVER):
            raise FaultError(f"times is a positive number, or {FOREVER} for until it is deleted")
        if not isinstance(client_id, str | None):
            raise FaultError("client_id is a string")
        armed = Armed(fault, times, client_id, {**fault.parameters, **given})
        self._armed.append(armed)
        return armed

    def next(self, point: str, client_id: str | None = None) -> Armed | None:
        """Let the first fault waiting at this point strike, and return it."""
        return next(self._strike(point, client_id), None)

    def all(self, point: str, client_id: str | None = None) -> list[Armed]:
        """Let every fault waiting at this point strike once, and return them."""
        return list(self._strike(point, client_id))

    def listing(self) -> list[dict[str, Any]]:
        """Return the faults still waiting, as JSON."""
        return [armed.document() for armed in self._armed if armed.left != 0]

    def clear(self) -> None:
        """Disarm everything."""
        self._armed.clear()

    def _strike(self, point: str, client_id: str | None) -> Iterator[Armed]:
        for armed in self._armed:
            if armed.matches(point, client_id):
                armed.struck += 1
                armed.left -= armed.left > 0
                yield armed


def edit(document: Mapping[str, Any], struck: Armed) -> dict[str, Any]:
    """Return a document with the members an `edit` fault sets and without those it drops."""
    kept = {name: value for name, value in document.items() if name not in struck.parameters["drop"]}
    return {**kept, **struck.parameters["set"]}


def _same_type(value: Any, default: Any) -> bool:
    number = (int, float)
    if isinstance(default, number):
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, type(default))
