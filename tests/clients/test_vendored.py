"""The library in the browser is the one its authors published: a changed byte would make the tests prove nothing."""

import hashlib

import pytest

from tests.clients.page_server import PAGES

PUBLISHED = {
    "fhir-client.pure.min.js": "658dec434e308a6ba682158f1e94bfaa0f600bb500e78443369bfe7818133d90",
    "fhir-client.pure.min.js.LICENSE.txt": "28a2143c0c654d719d00f254e7a1e4bf376248b0f3ebb6e8ebc0e164e5418b1f",
    "LICENSE": "465cc184a5cb151932850734f91dec5acc7f4fe177783328be3eec0aa9504152",
}
"""SHA-256 of the files in the npm package fhirclient 2.6.3."""
VENDORED = PAGES / "vendor" / "fhirclient-2.6.3"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_vendored_file_is_as_published(name: str) -> None:
    assert hashlib.sha256((VENDORED / name).read_bytes()).hexdigest() == PUBLISHED[name]


def test_nothing_else_is_vendored() -> None:
    assert {path.name for path in VENDORED.iterdir()} == {*PUBLISHED, "README.md"}
