"""What is true of every answer, whatever was asked."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from tests.fuzz.target import Target
from tests.stage.app import LAUNCH_URI, REDIRECT_URI

PUBLIC_DOCUMENTS: Final = re.compile(
    r"/fhir/[^/]+/(?:metadata|\.well-known/smart-configuration)|/jwks/[^/]+|/oauth/jwks|/\.well-known/[^/]+"
)
"""Anybody may read and keep these."""
PAGE: Final = "text/html; charset=utf-8"
_BY_CHANCE: Final = re.compile(r".{0,7}|[A-Za-z_/: .-]*", re.DOTALL)
"""What is short, or made of words, may stand in an answer without being an echo."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and the path that was asked."""

    path: str
    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes
    is_head: bool = False

    @property
    def text(self) -> str:
        """Everything that was sent back."""
        lines = [f"{name}: {value}" for name, value in self.headers.items()]
        return "\n".join([str(self.status), *lines, self.body.decode("utf-8", "replace")])


def assert_sound(answer: Answer, target: Target, told: Iterable[str] = ()) -> None:
    """No failure of the broker's, no secret, the dialect of its path, not to be stored, to nowhere unknown.

    `told` is what the caller said: a refusal repeats none of it (CB-05). What an EHR says on `/fhir` may.
    """
    assert answer.status < 500, answer.text
    assert not [secret for secret in target.secrets if secret in answer.text], answer.text
    assert answer.headers.get("x-content-type-options") == "nosniff", answer.text
    is_step = answer.status == 200 and answer.headers.get("content-type") == PAGE
    # What such a page posts has to come from the broker's origin, which the browser says no more of (CB-02).
    assert answer.headers.get("referrer-policy") == ("strict-origin" if is_step else "no-referrer"), answer.text
    if not (answer.status == 200 and PUBLIC_DOCUMENTS.fullmatch(answer.path)):
        assert "no-store" in answer.headers.get("cache-control", ""), answer.text
    if "location" in answer.headers:
        _assert_known_place(answer.headers["location"], target)
    if answer.status >= 400:
        if not answer.is_head:
            assert _is_in_dialect(answer), answer.text
        if not answer.path.startswith("/fhir/"):
            assert not [text for text in told if text in answer.text and not _BY_CHANCE.fullmatch(text)], answer.text


def _assert_known_place(location: str, target: Target) -> None:
    """A browser is sent to a registered URI of an app's or to the EHR's authorization endpoint, and nowhere else."""
    parts = urlsplit(location)
    place = f"{parts.scheme}://{parts.netloc}{parts.path}"
    assert place in {REDIRECT_URI, LAUNCH_URI, f"{target.stage.sandbox.issuer}/authorize"}, location


def _is_in_dialect(answer: Answer) -> bool:
    """Whether the error is written as errors on its path are."""
    kind = answer.headers.get("content-type", "")
    if answer.path.startswith("/oauth/"):
        is_page = answer.path == "/oauth/authorize" and kind == PAGE
        return is_page or (kind == "application/json" and set(_members(answer)) == {"error", "error_description"})
    if answer.path.startswith("/fhir/"):
        return kind.startswith("application/fhir+json") and _members(answer).get("resourceType") == "OperationOutcome"
    if kind == "application/problem+json":
        return set(_members(answer)) == {"type", "title", "status", "code", "request_id"}
    return kind == PAGE and b"<script" not in answer.body


def _members(answer: Answer) -> dict[str, object]:
    return dict(json.loads(answer.body))
