import re
from collections.abc import Mapping
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from broker.errors import InvalidRequest, TooLarge
from broker.web.parameters import form_parameters, parse_parameters, query_parameters, request_id

FORM = "application/x-www-form-urlencoded"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def request(*, query: bytes = b"", content_type: str | None = FORM, chunks: tuple[bytes, ...] = (b"",)) -> Request:
    waiting = list(chunks)

    async def receive() -> Message:
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    headers = [] if content_type is None else [(b"content-type", content_type.encode())]
    return Request({"type": "http", "method": "POST", "query_string": query, "headers": headers}, receive)


@given(st.dictionaries(texts, texts.filter(bool), max_size=20))
def test_what_was_encoded_is_read_back(parameters: Mapping[str, str]) -> None:
    assert parse_parameters(urlencode(parameters).encode()) == parameters


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        (b"", {}),
        (b"a=1&b=2", {"a": "1", "b": "2"}),
        (b"a=%2B+%26%3D", {"a": "+ &="}),
        (b"a=&b=2&c", {"b": "2"}),
        (b"&&a=1&", {"a": "1"}),
        (b"a=1;b=2", {"a": "1;b=2"}),
        (b"a=x=y", {"a": "x=y"}),
        (b"A=1&a=2", {"A": "1", "a": "2"}),
        (b"a=%zz", {"a": "%zz"}),
    ],
)
def test_parameters_are_read_and_empty_ones_are_absent(text: bytes, parameters: dict[str, str]) -> None:
    """OA-01."""
    assert parse_parameters(text) == parameters


@pytest.mark.parametrize("text", [b"a=1&a=2", b"a=1&a=1", b"a=&a=1", b"a=1&%61=2", b"state=x&code=y&state=x"])
def test_a_repeated_parameter_is_refused(text: bytes) -> None:
    """OA-01."""
    with pytest.raises(InvalidRequest) as refused:
        parse_parameters(text)

    assert refused.value.public == "No parameter may be given twice."


@pytest.mark.parametrize(
    "text", [b"a=%ff", b"a=%ed%a0%80", b"a=\xc3\xa9", b"%c3=1", b"&".join(b"p%d=1" % n for n in range(101))]
)
def test_what_cannot_be_read_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_parameters(text)

    assert refused.value.public == "The parameters cannot be read."


def test_a_query_at_its_limit_is_read_and_one_byte_more_is_refused() -> None:
    assert len(query_parameters(request(query=b"a=" + b"x" * 65_534))["a"]) == 65_534
    with pytest.raises(TooLarge):
        query_parameters(request(query=b"a=" + b"x" * 65_535))


@pytest.mark.parametrize("content_type", [FORM, f"{FORM}; charset=utf-8", FORM.upper()])
async def test_a_form_is_read_from_its_chunks(content_type: str) -> None:
    form = request(content_type=content_type, chunks=(b"a=1&", b"", b"b=", b"2"))

    assert await form_parameters(form) == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    "content_type", [None, "", "application/json", "multipart/form-data; boundary=x", "text/plain"]
)
async def test_another_body_is_no_form(content_type: str | None) -> None:
    with pytest.raises(InvalidRequest, match="not a form"):
        await form_parameters(request(content_type=content_type, chunks=(b"a=1",)))


async def test_the_query_is_no_form() -> None:
    assert await form_parameters(request(query=b"a=1", chunks=(b"b=2",))) == {"b": "2"}


async def test_a_form_at_its_limit_is_read_and_one_byte_more_is_refused() -> None:
    form = await form_parameters(request(chunks=(b"a=", b"x" * 65_534)))
    assert len(form["a"]) == 65_534

    with pytest.raises(TooLarge):
        await form_parameters(request(chunks=(b"a=", b"x" * 65_534, b"x", b"never read")))


@pytest.mark.parametrize("given", ["0f" * 8, "0F" * 32, "123e4567-e89b-42d3-a456-426614174000"])
def test_a_plain_request_id_is_kept(given: str) -> None:
    assert request_id({"x-request-id": given}) == given


@pytest.mark.parametrize(
    "given", ["", "0" * 65, "0f" * 7, "MRN-4711", "Eva.Mustermann-1970", "a b", "a\nb", "é", "a/b", '{"a":1}']
)
def test_any_other_request_id_is_replaced(given: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", request_id({"x-request-id": given}))
    assert request_id({}) != request_id({})
