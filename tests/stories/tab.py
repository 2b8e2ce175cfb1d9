"""A browser's tab that does what the broker's own pages do: keep and find proofs, and post forms (AL-14, AL-22)."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

import httpx2

from tests.stage import Browser
from tests.stage.browser import MOST_REDIRECTS, Landing


@dataclass
class Page(HTMLParser):
    """What of a page its script works with."""

    main: dict[str, str] = field(default_factory=dict)
    link: str | None = None
    action: str | None = None
    fields: dict[str, str] = field(default_factory=dict)
    looks_in_tab: bool = False

    @classmethod
    def read(cls, text: str) -> "Page":
        page = cls()
        HTMLParser.__init__(page)
        page.feed(text)
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "main":
            self.main = given
        elif given.get("id") == "next":
            self.link, self.action = given.get("href"), given.get("action")
        elif tag == "input":
            self.fields[given["name"]] = given["value"]
            self.looks_in_tab |= given.get("id") == "found"


class Tab(Browser):
    """One tab. Without cookies it has its session storage alone, as in a frame of another site."""

    def __init__(self, *, stops_at: str, cookies: bool = True, scripts: bool = True) -> None:
        super().__init__(stops_at=stops_at)
        self.cookies = cookies
        self.scripts = scripts
        self.storage: dict[str, str] = {}

    async def open(self, url: str) -> Landing:
        """Go to a URL and wherever redirects and pages lead."""
        form: dict[str, str] = {}
        for _ in range(MOST_REDIRECTS):
            if url.startswith(self._stops_at):
                return Landing(url, 0, "")
            response = await self._send(url, form)
            if (following := self._next(response)) is None:
                return Landing(url, response.status_code, response.text)
            url, form = following
        raise AssertionError(f"more than {MOST_REDIRECTS} steps")

    async def _send(self, url: str, form: dict[str, str]) -> httpx2.Response:
        if not self.cookies:
            self.http.cookies.clear()
        if form:
            origin = str(self.seen[-1].url.copy_with(raw_path=b"/")).rstrip("/")
            response = await self.http.post(url, data=form, headers={"Origin": origin})
        else:
            response = await self.http.get(url)
        self.seen.append(response)
        return response

    def _next(self, response: httpx2.Response) -> tuple[str, dict[str, str]] | None:
        if "location" in response.headers:
            return str(response.url.join(response.headers["location"])), {}
        page = Page.read(response.text)
        if not self.scripts or "sha256-" not in response.headers.get("content-security-policy", ""):
            return None
        if page.looks_in_tab:
            page.fields["tab_key"] = self.storage.pop(page.main["data-name"], "none")
            return str(response.url.copy_with(query=None)), page.fields
        if "data-key" in page.main:
            self.storage[page.main["data-name"]] = page.main["data-key"]
        return (page.link, {}) if page.link else (str(page.action), page.fields)
