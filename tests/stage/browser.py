"""A browser as far as OAuth needs one: it keeps cookies and follows redirects until they leave for an app."""

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

import httpx2

MOST_REDIRECTS = 12


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
        self.http = httpx2.AsyncClient(trust_env=False, timeout=10, headers={"Accept": "text/html"})
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
