"""Search results kept behind opaque ids, as HAPI does: a next link need not name a type (PX-07)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sandbox.fhir.outcome import FhirError, bad_request, outcome
from sandbox.fhir.page_links import write
from sandbox.fhir.query import DEFAULT_COUNT, MAX_COUNT, Query
from sandbox.fhir.repository import Key, Repository
from sandbox.fhir.rights import Rights
from sandbox.fhir.search import included
from sandbox.population.elements import Resource
from sandbox.settings import PageLinks

KEPT_SESSIONS = 1000


@dataclass(frozen=True, slots=True)
class Session:
    """One search's matches, in order."""

    query: Query
    keys: tuple[Key, ...]
    owner: tuple[str, str | None]
    """Client and launch patient: nobody else can turn these pages."""
    letter: str = "s"
    """What the scopes must still allow for each match when its page is turned."""


def owner_of(rights: Rights) -> tuple[str, str | None]:
    """Whose session a search with these rights starts."""
    return rights.access.client_id, rights.access.patient


class Paging:
    """The open sessions; the oldest is forgotten when there are too many."""

    def __init__(
        self,
        repository: Repository,
        base_url: Callable[[], str],
        new_id: Callable[[], str],
        *,
        style: Callable[[], PageLinks] = lambda: "opaque",
    ) -> None:
        self._repository = repository
        self._base_url = base_url
        self._new_id = new_id
        self._style = style
        self._sessions: dict[str, Session] = {}

    def first_page(self, session: Session, self_url: str, rights: Rights) -> Resource:
        """Return the Bundle that answers a search; the session is kept when there are more pages."""
        count = session.query.count
        links = [_link("self", self_url)]
        if session.query.total_only:
            return _searchset(session, links)
        if len(session.keys) > count:
            links.append(self._page_link("next", session, self._keep(session), count, count))
        return _searchset(session, links, _warnings(session.query) + self._entries(session, 0, count, rights))

    def page(self, pairs: Mapping[str, str], rights: Rights) -> Resource:
        """Return the Bundle behind a page link; raises FhirError 400 for a bad number, 410 when the session is gone."""
        id_ = pairs["_getpages"]
        session = self._sessions.get(id_)
        if session is None or session.owner != owner_of(rights):
            raise FhirError(410, "not-found", "The paging session is gone; search again.")
        offset = _number(pairs, "_getpagesoffset", 0)
        count = min(_number(pairs, "_count", DEFAULT_COUNT) or DEFAULT_COUNT, MAX_COUNT)
        links = [self._page_link("self", session, id_, offset, count)]
        if offset + count < len(session.keys):
            links.append(self._page_link("next", session, id_, offset + count, count))
        if offset > 0:
            links.append(self._page_link("previous", session, id_, max(0, offset - count), count))
        return _searchset(session, links, self._entries(session, offset, count, rights))

    def _keep(self, session: Session) -> str:
        if len(self._sessions) >= KEPT_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        id_ = self._new_id()
        self._sessions[id_] = session
        return id_

    def _entries(self, session: Session, offset: int, count: int, rights: Rights) -> list[Resource]:
        kept = (self._repository.get(key) for key in session.keys[offset : offset + count])
        found = [resource for resource in kept if resource and rights.allow(session.letter, resource)]
        others = included(session.query, found, self._repository, rights)
        return [self._entry(resource, "match") for resource in found] + [self._entry(r, "include") for r in others]

    def _entry(self, resource: Resource, mode: str) -> Resource:
        url = f"{self._base_url()}/{resource['resourceType']}/{resource['id']}"
        return {"fullUrl": url, "resource": resource, "search": {"mode": mode}}

    def _page_link(self, relation: str, session: Session, id_: str, offset: int, count: int) -> Resource:
        return _link(relation, self._base_url() + write(self._style(), session.query.type, id_, offset, count))


def _searchset(session: Session, links: list[Resource], entries: list[Resource] | None = None) -> Resource:
    bundle = {"resourceType": "Bundle", "type": "searchset", "total": len(session.keys), "link": links}
    return {**bundle, "entry": entries} if entries else bundle


def _link(relation: str, url: str) -> Resource:
    return {"relation": relation, "url": url}


def _warnings(query: Query) -> list[Resource]:
    if not query.ignored:
        return []
    text = f"Ignored, because {query.type} is not searched by it: {', '.join(query.ignored)}."
    return [{"resource": outcome("warning", "not-supported", text), "search": {"mode": "outcome"}}]


def _number(pairs: Mapping[str, str], name: str, default: int) -> int:
    text = pairs.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > len("1000000"):
        raise bad_request(f"{name} must be a whole number, not '{text}'.", "value")
    return int(text)
