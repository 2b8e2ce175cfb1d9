"""`grant_type=refresh_token`: a refresh handle is traded for a new handle and a new refresh handle (RFC 9700 §4.14)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.apps import App
from broker.errors import InvalidGrant, InvalidRequest, InvalidScope, NotFound
from broker.flows.issue_handle import IssueHandle
from broker.flows.scope_text import read_requested
from broker.grants import Grants
from broker.handles import Handles
from broker.scopes import Scopes


@dataclass(frozen=True, slots=True)
class RotateHandle:
    """A refresh handle works once; a second use means that somebody else has it, and ends its whole family."""

    handles: Handles
    grants: Grants
    issue_handle: IssueHandle

    async def __call__(self, app: App, form: Mapping[str, str], *, request_id: str) -> dict[str, Any]:
        """Return the token response. Raises `InvalidGrant`; `InvalidScope` for more than was given (RF-11)."""
        if not form.get("refresh_token"):
            raise InvalidRequest("refresh_token is missing", public="refresh_token is required.")
        spent = await self.handles.find_refresh(form["refresh_token"])
        if spent.app != app.id:
            raise InvalidGrant("the refresh handle was issued to another app")
        scopes = _narrowed(spent.scopes, form.get("scope"))
        try:
            grant = await self.grants.read(spent.tag)
        except NotFound:
            raise InvalidGrant("the grant is gone") from None
        return await self.issue_handle(app, grant, scopes, family=spent.family, request_id=request_id, spends=spent)


def _narrowed(given: Scopes, asked: str | None) -> Scopes:
    if asked is None:
        return given
    wanted = read_requested(asked)
    if not wanted or not wanted.narrows(given):
        raise InvalidScope("the refresh asks for more than the original scope (RF-02)")
    return wanted
