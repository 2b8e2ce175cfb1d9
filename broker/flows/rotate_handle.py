"""`grant_type=refresh_token`: a refresh handle is traded for a new handle and a new refresh handle (RFC 9700 §4.14)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.apps import App
from broker.errors import InvalidGrant, InvalidHandle, InvalidRequest, NotFound
from broker.flows.arriving import require_arrived
from broker.flows.binding import keep_binding
from broker.flows.issue_handle import IssueHandle
from broker.flows.mint_trail import MintTrail
from broker.flows.scope_text import read_narrowed
from broker.grants import Grants
from broker.handles import UNBOUND, Confirmation, Handles
from broker.limits import Arrival


@dataclass(frozen=True, slots=True)
class RotateHandle:
    """A refresh handle works once; a second use means that somebody else has it, and ends its whole family.

    Unless the app's settings have a `refresh_grace`, and the first answer may have been lost (RFC 9700 §4.14.2).
    """

    handles: Handles
    grants: Grants
    issue_handle: IssueHandle

    async def __call__(
        self, app: App, form: Mapping[str, str], arrival: Arrival, trail: MintTrail, *, proven: Confirmation = UNBOUND
    ) -> dict[str, Any]:
        """Return the token response. Raises `InvalidGrant`; `InvalidScope` for more than was given (RF-11).

        From outside the network of its policy a public app gets nothing, and its refresh handle stays as it is.
        """
        if not form.get("refresh_token"):
            raise InvalidRequest("refresh_token is missing", public="refresh_token is required.")
        spent = await self.handles.find_refresh(form["refresh_token"])
        if spent.app != app.id:
            raise InvalidGrant("the refresh handle was issued to another app")
        keep_binding(app, Confirmation(spent.jkt), proven)
        scopes = read_narrowed(form.get("scope"), spent.scopes)
        try:
            grant = await self.grants.read(spent.tag)
        except NotFound:
            raise InvalidGrant("the grant is gone") from None
        grant.require_usable()
        try:
            require_arrived(app, app.allowance(grant.terms.ehr, grant.terms.flow).limits, arrival)
        except InvalidHandle as error:
            raise InvalidGrant(error.detail) from None
        return await self.issue_handle(
            app, grant, scopes, family=spent.family, trail=trail, spends=spent, proven=proven
        )

    async def public_app_of(self, refresh_handle: str) -> str | None:
        """Return the app that a refresh handle was issued to, if that is one that has nothing to prove itself by."""
        try:
            held = await self.handles.find_refresh(refresh_handle)
        except InvalidGrant:
            return None
        app = self.issue_handle.directory.app(held.app)
        return app.id if app and app.settings.authentication == "none" else None
