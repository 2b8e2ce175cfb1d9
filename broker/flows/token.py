"""`/oauth/token`: authenticate the app, then the journey of its grant type. Every refusal is audited with its cause."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.apps import App
from broker.audit import AuditRecord, AuditTrail
from broker.errors import BrokerError, InvalidRequest, Refusal, UnsupportedGrantType
from broker.flows.authenticate_app import AuthenticateApp
from broker.flows.backend_handle import BackendHandle
from broker.flows.exchange_code import ExchangeCode
from broker.flows.rotate_handle import RotateHandle


@dataclass(frozen=True, slots=True)
class Token:
    """One way in for every grant type."""

    authenticate_app: AuthenticateApp
    exchange_code: ExchangeCode
    rotate_handle: RotateHandle
    backend_handle: BackendHandle
    audit: AuditTrail

    async def __call__(
        self, form: Mapping[str, str], authorization: str | None, *, audience: str, request_id: str
    ) -> dict[str, Any]:
        """Return the token response. Raises a `BrokerError` with its OAuth code."""
        app = await self.authenticate_app(form, authorization, audience=audience, request_id=request_id)
        try:
            return await self._by_grant_type(app, form, request_id)
        except BrokerError as error:
            self.audit.record(
                AuditRecord(
                    event="handle.mint",
                    outcome="denied" if isinstance(error, Refusal) else "failed",
                    app=app.id,
                    reason=error.detail,
                    request_id=request_id,
                )
            )
            raise

    async def _by_grant_type(self, app: App, form: Mapping[str, str], request_id: str) -> dict[str, Any]:
        match form.get("grant_type"):
            case "authorization_code":
                return await self.exchange_code(app, form, request_id=request_id)
            case "refresh_token":
                return await self.rotate_handle(app, form, request_id=request_id)
            case "client_credentials":
                return await self.backend_handle(app, form, request_id=request_id)
            case None:
                raise InvalidRequest("grant_type is missing", public="grant_type is required.")
            case _:
                raise UnsupportedGrantType("a grant_type that is not offered")
