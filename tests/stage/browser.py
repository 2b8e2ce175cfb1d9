"""A browser as far as OAuth needs one: it keeps cookies and follows redirects until they leave for an app."""

import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2

MOST_REDIRECTS = 12


def http_client(**options: Any) -> httpx2.AsyncClient:
    """Make a client for plain HTTP: to read what the world believes in for TLS takes longer than most tests."""
    return httpx2.AsyncClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), trust_env=False, **options)


@dataclass(frozen=True, slots=True)
class Landing:
    """Where the browser ended: at an app's URL that nobody serves, or at a page."""

    url: str
    status: int
    text: str

    @property
    def parameters(self) -> dict[str, str]:
        """The query of the URL."""
        return dict(parse_qsl(urlsplit(self.url).query))


class Browser:
    """One browser with its own cookies."""

    def __init__(self, *, stops_at: str) -> None:
        self._stops_at = stops_at
        self.http = http_client(timeout=10, headers={"Accept": "text/html"})
        self.seen: list[httpx2.Response] = []

    async def open(self, url: str) -> Landing:
        """Go to a URL and wherever it redirects."""
        for _ in range(MOST_REDIRECTS):
            if url.startswith(self._stops_at):
                return Landing(url, 0, "")
            response = await self.http.get(url)
            self.seen.append(response)
            if "location" not in response.headers:
                return Landing(url, response.status_code, response.text)
            url = str(response.url.join(response.headers["location"]))
        raise AssertionError(f"more than {MOST_REDIRECTS} redirects")

    async def close(self) -> None:
        """Close it."""
        await self.http.aclose()
