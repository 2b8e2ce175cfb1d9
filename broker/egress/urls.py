"""Which URLs are called: absolute ones, https, in which every reader of URLs finds the same host (TK-08, DS-15). Pure.

A host that could be read in two ways is refused rather than read: percent-encoded, not ASCII, an address in anything
but its usual form (`127.1`, `0x7f.1`, `2130706433`), a user name before it, a backslash, tab or fragment after it.
"""

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from broker.egress.addresses import LOOPBACK_HOSTS, AllowedHosts, literal
from broker.errors import EhrMisbehaved

_PLAIN: Final = re.compile(r"[!-\"$-\[\]-~]+")
"""Visible ASCII without `#`, after which nothing is sent, and without the backslash that some take for a slash."""
_AUTHORITY: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_NAME: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_][a-z0-9_-]{0,62})*\.?")
_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
"""Ends in a number, so it is an address to whoever knows its short, octal and hexadecimal forms (WHATWG URL §3.5)."""


def require_callable(url: str, allowed: AllowedHosts) -> SplitResult:
    """Return the parts of a URL that may be called, as far as it can be told before its host is looked up.

    Raises `EhrMisbehaved`, which does not quote it: it may hold a password.
    """
    if not _PLAIN.fullmatch(url):
        raise EhrMisbehaved("the URL holds a blank, backslash, fragment, control character or one that is not ASCII")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise EhrMisbehaved("the URL cannot be read") from None
    if "@" in parts.netloc:
        raise EhrMisbehaved("the URL holds a user name, which would be sent as a second authentication (TK-06)")
    host = parts.hostname or ""
    is_open = parts.scheme == "http" and host in LOOPBACK_HOSTS and allowed.loopback
    if not host or not (parts.scheme == "https" or is_open):
        raise EhrMisbehaved("the URL is not https (TK-08, DS-15)")
    if not _AUTHORITY.fullmatch(parts.netloc) or port == 0:
        raise EhrMisbehaved("the URL has a host or port that can be read in more than one way (DS-15)")
    if (refusal := _host_refusal(host, allowed)) is not None:
        raise EhrMisbehaved(refusal)
    return parts


def _host_refusal(host: str, allowed: AllowedHosts) -> str | None:
    if ":" not in host and not _NUMBER.fullmatch(host):
        return None if _NAME.fullmatch(host) else "the URL's host is not a name (DS-15)"
    address = literal(host)
    return (
        "the URL's host is an address in an unusual form (DS-15)" if address is None else allowed.refusal(host, address)
    )
