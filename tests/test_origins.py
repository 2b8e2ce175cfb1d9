"""Where a URL leads, for the broker as for a browser (RFC 6454)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.origins import origin


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://ehr.example/r4?x=1#y", "https://ehr.example"),
        ("HTTPS://EHR.example:443/", "https://ehr.example"),
        ("https://ehr.example:0443/", "https://ehr.example"),
        ("https://ehr.example:", "https://ehr.example"),
        ("http://localhost:80", "http://localhost"),
        ("https://ehr.example:80", "https://ehr.example:80"),
        ("https://[::1]:8443/r4", "https://[::1]:8443"),
        ("https://[2001:DB8::1]", "https://[2001:db8::1]"),
        ("https://a_b.example", "https://a_b.example"),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(url: str, place: str) -> None:
    """RFC 6454 §6.2."""
    assert origin(url) == place


@pytest.mark.parametrize(
    "url",
    [
        "",
        "canary",
        "/r4",
        "//ehr.example",
        "ftp://ehr.example",
        "https://",
        "https://:443",
        "https://[",
        "https://[::1",
        "https://ehr.example:99999",
        "https://ehr.example:x",
        "http://evil.example\\@ehr.example/authorize",  # browsers go to evil.example
        "https:\\\\ehr.example",
        "https://user@ehr.example",
        "https://@ehr.example",
        "https://ehr.example@evil.example",
        "https://ehr .example",
        " https://ehr.example",
        "https://ehr.example/\n",
        "https://ehr\t.example",
        "https://ehr\u3002example",
        "https://%65hr.example",
        "https://bücher.example",
    ],
)
def test_what_readers_of_urls_may_read_differently_has_no_origin(url: str) -> None:
    """(DS-15)"""
    assert origin(url) == ""


@given(st.text())
def test_an_origin_is_its_own_origin_whatever_the_text(text: str) -> None:
    for url in (text, f"https://{text}", f"http://h:{text}"):
        assert origin(origin(url)) == origin(url)
