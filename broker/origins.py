"""The origin of a URL: which scheme, host and port it leads to."""

import re
from typing import Final
from urllib.parse import urlsplit

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_AUTHORITY: Final = re.compile(r"[A-Za-z0-9._\-\[\]:]+")


def origin(url: str) -> str:
    """Return the origin of an http(s) URL as browsers write it (RFC 6454 §6.2): `https://host` or `https://host:8443`.

    Equal for equal places. Empty for what is no such URL, and for one in which readers of URLs find different hosts:
    with a user name, a backslash, blanks, control characters, or a host that is not ASCII.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    readable = " " not in url and url.isprintable() and _AUTHORITY.fullmatch(parts.netloc)
    if parts.scheme not in _DEFAULT_PORTS or not host or not readable:
        return ""
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + (f":{port}" if port not in {None, _DEFAULT_PORTS[parts.scheme]} else "")
