"""What the broker as an authorization server can truthfully say it does, for one EHR or all of them. Pure.

What nobody is registered for is not offered, and what an EHR says it cannot do is not promised in its name (DS-16).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from broker.apps import Allowance, App
from broker.flows.exchange_handle import GRANT_TYPE as TOKEN_EXCHANGE

_CLIENTS: Final = {
    "none": "client-public",
    "client_secret_basic": "client-confidential-symmetric",
    "private_key_jwt": "client-confidential-asymmetric",
}
"""SMART has no word for the others."""
_UNREGISTERED: Final = frozenset({"workload_identity"})
"""Ways of the broker that are no method name of OAuth's registry (RFC 8414 §2)."""
_REFRESH: Final = {"offline_access": "permission-offline", "online_access": "permission-online"}
_CONTEXTS: Final = {"launch/patient": "context-standalone-patient", "launch/encounter": "context-standalone-encounter"}
_ONLY_IF_KNOWN: Final = frozenset(
    {"context-banner", "context-style", "context-ehr-encounter", "context-standalone-encounter"}
)
"""Not promised of an EHR that lists no capabilities."""
_AT_EHR: Final = (
    frozenset({"launch-ehr", "launch-standalone", "sso-openid-connect", "context-ehr-patient"})
    | {*_REFRESH.values(), *_CONTEXTS.values(), "permission-patient", "permission-user"}
    | _ONLY_IF_KNOWN
)
"""Capabilities that the EHR must have, too; the others are the broker's own."""


@dataclass(frozen=True, slots=True)
class Use:
    """An app's way to one EHR."""

    app: App
    allowance: Allowance

    @property
    def launches(self) -> bool:
        """Whether it is by App Launch, not by Backend Services."""
        return self.allowance.registration.flow == "launch"

    @property
    def words(self) -> Collection[str]:
        """The context, identity and refresh scopes that the app may have there."""
        return self.allowance.scopes.others

    @property
    def levels(self) -> set[str]:
        """The levels of the resource scopes that it may have there."""
        return {scope.level for scope in self.allowance.scopes.resources}


def capabilities(uses: Iterable[Use], at_ehr: Collection[str] | None) -> list[str]:
    """Return SMART's capability words that hold; `at_ehr` are the EHR's own, None where it lists none."""
    possible = {word for use in uses for word in _of_use(use)}
    if any(use.launches for use in uses):
        possible |= {"authorize-post", "context-banner", "context-style"}
    missing = _ONLY_IF_KNOWN if at_ehr is None else _AT_EHR.difference(at_ehr)
    return sorted(possible - missing)


def _of_use(use: Use) -> set[str]:
    words = {"permission-v1", "permission-v2"}
    if (client := _CLIENTS.get(use.app.settings.authentication)) is not None:
        words.add(client)
    if not use.launches:
        return words
    words |= {"launch-standalone"} | {f"permission-{level}" for level in use.levels & {"patient", "user"}}
    words |= {capability for word, capability in (_REFRESH | _CONTEXTS).items() if word in use.words}
    if "openid" in use.words:
        words.add("sso-openid-connect")
    if use.allowance.registration.app == use.app.id:
        words |= {"launch-ehr", "context-ehr-patient", "context-ehr-encounter"}
    return words


def grant_types(uses: Collection[Use]) -> list[str]:
    """Return the values of `grant_type` that some app can use."""
    launching = [use for use in uses if use.launches]
    refreshing = any(_REFRESH.keys() & set(use.words) for use in launching)
    return [
        *(["authorization_code"] if launching else []),
        *(["refresh_token"] if refreshing else []),
        *(["client_credentials"] if len(launching) < len(uses) else []),
        *([TOKEN_EXCHANGE] if uses else []),
    ]


def authentication_methods(uses: Iterable[Use]) -> list[str]:
    """Return how those apps authenticate, `none` included, in OAuth's own names (RFC 8414 §2)."""
    return sorted({use.app.settings.authentication for use in uses} - _UNREGISTERED)


def binds_certificates(uses: Iterable[Use]) -> bool:
    """Whether handles of some app are bound to its certificate (RFC 8705 §3.3)."""
    return any(use.app.settings.certificate_bound for use in uses)


def scopes(uses: Iterable[Use], *, identity: bool) -> list[str]:
    """Return every scope that some app may have, `openid` only where it is kept; not exhaustive for any one (DS-08)."""
    words = {word for use in uses for word in str(use.allowance.scopes).split()}
    return sorted(words if identity else words - {"openid"})
