"""`/oauth/token`: the journey of the grant type, for an app that has proved itself. Every refusal is audited."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker.apps import App
from broker.audit import AuditTrail
from broker.errors import BrokerError, InvalidRequest, UnsupportedGrantType
from broker.flows.backend_handle import BackendHandle
from broker.flows.check_dpop import CheckDpop
from broker.flows.exchange_code import ExchangeCode
from broker.flows.exchange_handle import GRANT_TYPE as TOKEN_EXCHANGE
from broker.flows.exchange_handle import ExchangeHandle
from broker.flows.mint_trail import MintTrail
from broker.flows.rotate_handle import RotateHandle
from broker.handles import Confirmation
from broker.limits import Arrival

_IDENTIFYING: Final = frozenset({"client_id", "client_secret", "client_assertion"})


@dataclass(frozen=True, slots=True)
class Token:
    """One way in for every grant type."""

    exchange_code: ExchangeCode
    rotate_handle: RotateHandle
    backend_handle: BackendHandle
    exchange_handle: ExchangeHandle
    check_dpop: CheckDpop
    audit: AuditTrail

    async def __call__(
        self, app: App, form: Mapping[str, str], arrival: Arrival, *, request_id: str, proofs: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return the token response; `proofs` are the DPoP headers. Raises a `BrokerError` with its OAuth code."""
        trail = MintTrail(self.audit, app, request_id)
        try:
            jkt = await self.check_dpop.at_token_endpoint(app, proofs)
            return await self._by_grant_type(app, form, arrival, trail, Confirmation(jkt, arrival.x5t))
        except BrokerError as error:
            trail.refused(error)
            raise

    async def with_client_id(self, form: Mapping[str, str], authorization: str | None) -> Mapping[str, str]:
        """Add the `client_id` to a refresh that says nothing of who it is from, if its refresh handle does.

        SMART App Launch names no `client_id` among the parameters of a public app's refresh, and its JavaScript library
        sends none. What an app must prove is not taken from anywhere.
        """
        if form.get("grant_type") != "refresh_token" or authorization is not None or _IDENTIFYING & form.keys():
            return form
        app_id = await self.rotate_handle.public_app_of(form.get("refresh_token", ""))
        return form if app_id is None else {**form, "client_id": app_id}

    async def _by_grant_type(
        self, app: App, form: Mapping[str, str], arrival: Arrival, trail: MintTrail, proven: Confirmation
    ) -> dict[str, Any]:
        match form.get("grant_type"):
            case "authorization_code":
                return await self.exchange_code(app, form, trail, proven=proven)
            case "refresh_token":
                return await self.rotate_handle(app, form, arrival, trail, proven=proven)
            case "client_credentials":
                return await self.backend_handle(app, form, trail, proven=proven)
            case grant_type if grant_type == TOKEN_EXCHANGE:
                return await self.exchange_handle(app, form, arrival, trail, proven=proven)
            case None:
                raise InvalidRequest("grant_type is missing", public="grant_type is required.")
            case _:
                raise UnsupportedGrantType("a grant_type that is not offered")
