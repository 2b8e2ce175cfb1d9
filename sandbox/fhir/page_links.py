"""How vendors write the link to another page of a search: HAPI names no type, Epic and Oracle do (PX-07)."""

from collections.abc import Mapping
from urllib.parse import urlencode

from sandbox.settings import PageLinks

_BY_TYPE: Mapping[PageLinks, tuple[str, dict[str, str]]] = {
    "session-id": ("sessionID", {}),
    "page-context": ("-pageContext", {"-pageDirection": "NEXT"}),
}
"""The parameter that holds all there is to know, and what stands beside it."""


def write(style: PageLinks, type_: str, id_: str, offset: int, count: int) -> str:
    """Return what follows the FHIR base in the link to a page."""
    if style == "opaque":
        return f"?{urlencode({'_getpages': id_, '_getpagesoffset': offset, '_count': count})}"
    name, beside = _BY_TYPE[style]
    return f"/{type_}?{urlencode({name: f'{id_}~{offset}~{count}', **beside})}"


def read(pairs: Mapping[str, str]) -> Mapping[str, str] | None:
    """Return the parameters of a page link as HAPI writes them, or None when they are not those of one."""
    if "_getpages" in pairs:
        return pairs
    value = next((pairs[name] for name, _ in _BY_TYPE.values() if name in pairs), None)
    if value is None:
        return None
    id_, _, rest = value.partition("~")
    offset, _, count = rest.partition("~")
    return {"_getpages": id_, "_getpagesoffset": offset or "0", "_count": count or "0"}
