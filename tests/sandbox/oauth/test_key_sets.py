"""The clients' key sets: fetched when needed, kept as long as they allow, and never believed blindly."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from sandbox.journal import Journal
from sandbox.oauth.clients import Client
from sandbox.oauth.errors import OAuthError
from sandbox.oauth.key_sets import LARGEST, KeySets
from tests.sandbox.oauth.driver import Now

URL = "https://keys.example/jwks"
CLIENT = Client(client_id="app", client_name="App", authentication="private_key_jwt", jwks_uri=URL, scopes=("openid",))
GOOD = {"keys": [{"kid": "one"}]}


class Publisher:
    """A JWK Set URL that counts how often it is asked."""

    def __init__(self) -> None:
        self.answer = httpx2.Response(200, json=GOOD)
        self.asked = 0

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        assert str(request.url) == URL
        self.asked += 1
        return self.answer


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
async def key_sets(publisher: Publisher, now: Now) -> AsyncIterator[KeySets]:
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(publisher)) as http:
        yield KeySets(http, now, Journal(now))


@pytest.mark.parametrize(
    ("cache_control", "kept"),
    [
        (None, 300),
        ("max-age=60", 60),
        ("public, max-age=120", 120),
        ("max-age=86400", 300),
        ("max-age=0", 0),
        ("no-store", 0),
        ("no-cache, max-age=60", 0),
    ],
)
async def test_a_set_is_kept_as_long_as_it_allows_and_never_longer_than_five_minutes(
    key_sets: KeySets, publisher: Publisher, now: Now, cache_control: str | None, kept: int
) -> None:
    """CA-10."""
    headers = {"Cache-Control": cache_control} if cache_control else {}
    publisher.answer = httpx2.Response(200, json=GOOD, headers=headers)
    await key_sets.of(CLIENT, "one")
    if kept:
        now.seconds += kept - 1
        await key_sets.of(CLIENT, "one")
        assert publisher.asked == 1
        now.seconds += 1
    await key_sets.of(CLIENT, "one")
    assert publisher.asked == 2


async def test_an_unknown_kid_is_looked_for_once_more(key_sets: KeySets, publisher: Publisher) -> None:
    """CA-10."""
    await key_sets.of(CLIENT, "one")
    publisher.answer = httpx2.Response(200, json={"keys": [{"kid": "two"}]})
    assert await key_sets.of(CLIENT, "two") == {"keys": [{"kid": "two"}]}
    assert publisher.asked == 2


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(500, json=GOOD),
        httpx2.Response(302, headers={"Location": "https://elsewhere.example/"}),
        httpx2.Response(200, text="<html>"),
        httpx2.Response(200, json=[]),
        httpx2.Response(200, json={"keys": None}),
        httpx2.Response(200, json={"keys": ["k" * LARGEST]}),
    ],
)
async def test_an_answer_that_is_no_key_set_fails_the_client(
    key_sets: KeySets, publisher: Publisher, answer: httpx2.Response
) -> None:
    publisher.answer = answer
    with pytest.raises(OAuthError) as refusal:
        await key_sets.of(CLIENT, "one")
    assert (refusal.value.error, refusal.value.status) == ("invalid_client", 401)


async def test_an_unreachable_url_fails_the_client(now: Now) -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused", request=request)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(refuse)) as http:
        with pytest.raises(OAuthError, match="cannot be read"):
            await KeySets(http, now, Journal(now)).of(CLIENT, "one")
