"""Pages that go on by themselves: whatever stands in them, nothing but their own script runs (CB-05, CB-11, OA-06)."""

import base64
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response

from broker.web.pages import go_on_page, look_in_tab_page
from tests.stories.tab import Page

HOSTILE = ['"><script>alert(1)</script>', "' onload='x", "</form><form action=//evil>", "a\r\nb", "&quot;", "é", "{}"]
URL = "https://auth.example/authorize?x=1&y=%22"


def text_of(response: Response) -> str:
    return bytes(response.body).decode()


def pages(value: str) -> list[Response]:
    return [
        go_on_page(URL, {value: value}, keep=(value, value), frame_ancestors=["https://ehr.example"]),
        go_on_page(f"https://auth.example/{value}", None, keep=(value, value), frame_ancestors=[]),
        look_in_tab_page(value, {"state": value, value: "x"}, url=URL, frame_ancestors=[]),
    ]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("index", range(3))
def test_a_page_runs_its_own_script_and_no_other(index: int, value: str) -> None:
    """CB-05, CB-11, OA-06: its hash is the only one in the policy, and nothing is loaded."""
    page = pages(value)[index]
    (script,) = re.findall(r"<script>(.*?)</script>", text_of(page), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = page.headers["content-security-policy"]

    assert f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'sha256-" in policy
    assert "base-uri 'none'; form-action https:; frame-ancestors " in policy
    assert "unsafe" not in policy
    assert not re.search(r"\b(src|onload|onclick)\s*=", re.sub(r'"[^"]*"', "", text_of(page)))
    assert (page.headers["cache-control"], page.headers["referrer-policy"]) == ("no-store", "strict-origin")


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=4))
def test_a_form_posts_exactly_what_it_was_given(fields: dict[str, str]) -> None:
    """AL-06, AL-14, TK-01, NC-16: whatever the value holds, the page changes nothing in it."""
    readable = {name: value for name, value in fields.items() if not re.search("[\0\r\ud800-\udfff]", name + value)}

    assert Page.read(text_of(go_on_page(URL, readable, keep=None, frame_ancestors=[]))).fields == readable


def test_a_page_that_keeps_nothing_has_nothing_to_keep() -> None:
    """AL-14."""
    page = Page.read(text_of(go_on_page(URL, {"state": "s"}, keep=None, frame_ancestors=[])))

    assert (page.main, page.action, page.looks_in_tab) == ({}, URL, False)


def test_a_proof_that_the_query_brings_is_not_posted_on() -> None:
    """AL-22, CB-02: only what the tab itself has kept is."""
    page = Page.read(text_of(look_in_tab_page("n", {"code": "c", "tab_key": "planted"}, url=URL, frame_ancestors=[])))

    assert page.fields == {"code": "c", "tab_key": "none"}


@pytest.mark.parametrize(("url", "schemes"), [(URL, "https:"), ("http://127.0.0.1:1/x", "http: https:")])
def test_plain_http_is_posted_to_only_where_the_page_itself_goes_there(url: str, schemes: str) -> None:
    """CB-11, TK-08."""
    policy = go_on_page(url, {}, keep=None, frame_ancestors=[]).headers["content-security-policy"]

    assert f"form-action {schemes}; frame-ancestors 'none'" in policy
