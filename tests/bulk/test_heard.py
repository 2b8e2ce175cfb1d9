"""What the EHR said of an export, by its status or by a header in its stead (BD-04)."""

import pytest

from broker.errors import EhrMisbehaved
from broker.flows.bulk.ask import Heard

JSON = {"content-type": "application/fhir+json"}


@pytest.mark.parametrize(
    ("status", "header", "stands"),
    [
        (202, None, 202),
        (200, None, 200),
        (200, "202", 202),
        (200, " 500 ", 500),
        (200, "", 200),
        (200, "done", 200),
        (200, "\uff12\uff10\uff12", 200),
        (503, "200", 503),
    ],
)
def test_how_an_export_stands_is_the_status_or_what_a_header_says(status: int, header: str | None, stands: int) -> None:
    """(BD-04)"""
    headers = {} if header is None else {"x-export-status": header}

    assert Heard(status, headers, b"").export_status == stands


async def test_an_error_in_a_header_is_passed_on_as_one() -> None:
    """(BD-04)"""
    answer = Heard(200, {**JSON, "x-export-status": "500"}, b"{}").passed_on(**{"retry-after": "5"})

    assert (answer.status, dict(answer.headers)) == (500, {**JSON, "retry-after": "5"})
    assert b"".join([chunk async for chunk in answer.chunks]) == b"{}"


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, JSON, b"{}"),
        (302, {}, b""),
        (500, {"content-type": "text/html"}, b"<html>"),
        (500, {}, b"oops"),
        (500, JSON, "{}".encode("utf-16")),
        (500, JSON, "{}".encode("utf-16-be")),
        (500, {"content-type": "application/json;charset=utf-16"}, b"{}"),
    ],
)
def test_what_is_no_refusal_is_not_passed_on_as_one(status: int, headers: dict[str, str], body: bytes) -> None:
    """(OA-04)"""
    with pytest.raises(EhrMisbehaved):
        Heard(status, headers, body).passed_on()
