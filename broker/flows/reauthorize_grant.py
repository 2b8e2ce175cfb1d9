"""Give an existing grant the tokens of a new authorization of the same person; its id and its handles stay.

The tokens that it had are deleted here and not revoked at the EHR: some EHRs would end the new ones with them.
"""

from dataclasses import dataclass
from functools import partial

from broker.audit import Outcome
from broker.errors import AccessDenied, NotFound
from broker.grants import Grant, Grants, Terms, TokenSet
from broker.grants.reauthorizing import Reauthorizing
from broker.grants.same_person import same_terms
from broker.launches import Reauthorizes
from broker.refresh.insisting import insist
from broker.refresh.trail import RefreshTrail

_ENDED = "This access was ended meanwhile, or the link was used. Nothing was changed."


@dataclass(frozen=True, slots=True)
class ReauthorizeGrant:
    """The last step of a launch that a link began."""

    grants: Grants
    reauthorizing: Reauthorizing
    trail: RefreshTrail

    async def require_same(self, again: Reauthorizes, answered: Terms) -> None:
        """Raises `AccessDenied` where it is about somebody else: then nothing of the grant is changed."""
        grant = await self._read(again)
        try:
            same_terms(grant.terms, answered)
        except AccessDenied as error:
            self._record(grant, "denied", error.detail)
            raise

    async def __call__(self, again: Reauthorizes, answered: Terms, tokens: TokenSet) -> Grant:
        """Return the grant with its new generation.

        Held against the grant once more, as it is when it is written. Raises `AccessDenied`, `Unavailable`.
        """
        while True:
            grant = await self._read(again)
            seal = partial(
                self.grants.seal,
                grant.tag,
                _fitting(grant, answered, tokens),
                tokens,
                generation=grant.generation + 1,
                created_at=grant.created_at,
                used_at=grant.used_at,
            )
            following = await insist(seal)
            narrower = "" if grant.terms.scopes.narrows(following.grant.terms.scopes) else ", with less scope"
            self._record(grant, "allowed", f"authorized again: generation {following.grant.generation}{narrower}")
            said = await insist(partial(self.reauthorizing, grant, following, link=again.link))
            if said == "ok":
                return following.grant
            self._record(grant, "failed", f"the store said {said}")
            if said != "stale":
                raise AccessDenied(f"grant {grant.tag} or its link is {said}", public=_ENDED)

    async def _read(self, again: Reauthorizes) -> Grant:
        try:
            return await self.grants.read(again.tag)
        except NotFound:
            raise AccessDenied(f"grant {again.tag} is gone", public=_ENDED) from None

    def _record(self, grant: Grant, outcome: Outcome, reason: str) -> None:
        self.trail.record(grant, outcome, reason, event="grant.reauthorize")


def _fitting(grant: Grant, answered: Terms, tokens: TokenSet) -> Terms:
    """Hold a new authorization against the grant. Raises `AccessDenied`."""
    if grant.state == "revoked":
        raise AccessDenied(f"grant {grant.tag} is revoked", public=_ENDED)
    lasting = tokens.refresh_token is not None or tokens.dynamic_client is not None
    if grant.state == "active" and grant.refreshable and not lasting:
        raise AccessDenied("the EHR gave no refresh token, and the grant works with the one it has", public=_ENDED)
    return same_terms(grant.terms, answered)
