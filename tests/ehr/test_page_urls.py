"""Links of the outermost Bundle: no spelling of JSON or of a URL brings a client to follow one elsewhere."""

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.ehr.page_urls import LONGEST_URL, PageUrls
from broker.ehr.rewriting import WITHHELD, UrlRewriter
from broker.ehr.url_map import UrlMap
from broker.errors import EhrMisbehaved

EHR = "https://ehr.example/fhir/R4"
OURS = "https://broker.example/fhir/epic"
ELSEWHERE = "https://evil.example/fhir?p=2"


def rewrite(*chunks: bytes) -> bytes:
    rewriter = UrlRewriter(UrlMap(OURS, EHR), lambda _path, _query: "&more")
    return b"".join([*map(rewriter.feed, chunks), rewriter.finish()])


def cut(body: bytes, places: list[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(borders)]


def link_urls(body: bytes) -> list[Any]:
    return [link["url"] for link in json.loads(body)["link"]]


LINKS = [
    '{"relation":"next","url":"$"}',
    '{"url":"$","relation":"next"}',
    '{"url":"$"}',
    '{"relation":"next","id":"1","url":"$"}',
    '{"url":"$","id":"1","relation":"next"}',
    '{"relation":"next","extension":[{"url":"u","valueString":"x"}],"url":"$"}',
    '{"url":"$","extension":[{"url":"u"}],"relation":"next"}',
    '{"relation":"n\\"ext","url":"$"}',
    '{"relation":"next","u\\u0072l":"$"}',
    '{"\\u0072elation":"next","\\u0075\\u0072\\u006c":"$"}',
    '{"relation":"next" , "url"' + " " * 99 + ":" + "\\n" * 99 + '"$"}',
    '{"relation":"' + "x" * 300 + '","url":"$"}',
    '{"' + "x" * 20_000 + '":1,"url":"$"}',
]
BUNDLES = [
    '{"resourceType":"Bundle","link":[*]}',
    '{"link" : [ {"relation":"self","url":"$"}, * ],"entry":[]}',
    '{"l\\u0069nk":[*]}',
    '{"entry":[{"resource":{"link":[{"x":"}"}],"a":[[],{},"\\"]"]}},{"b":{"c":[{}]}}],"link":[*]}',
    '{"link":[],"entry":[{}],"link":[*]}',
    '{"total":1,"a":"{\\"link\\":[","link":[*],"b":2}',
    '\ufeff{"link":[*]}',
]


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("link", LINKS)
def test_a_link_is_found_however_it_is_written(bundle: str, link: str) -> None:
    """(PX-02) (PX-06) (PX-07)."""
    body = bundle.replace("*", link).replace("\\n", "\n" if "\\n" in link else "\\n")

    for url, ours in ((f"{EHR}?p=2", f"{OURS}?p=2&more"), (ELSEWHERE, WITHHELD)):
        assert rewrite(body.replace("$", url).encode()) == body.replace("$", ours).encode()


@pytest.mark.parametrize(
    "url",
    [
        ELSEWHERE,
        "HTTPS://evil.example",
        "https:evil.example",
        "//evil.example",
        r"\\t//evil.example",
        r"\\u0000https://evil.example",
        r"\\u00a0//evil.example",
        r"ht\\ntps://evil.example",
        r"/\\t/evil.example",
        r"/\\\\evil.example",
        r"\\\\\\\\evil.example",
        r"\\/\\/evil.example",
        r"\\u002f\\u002fevil.example",
        "javascript:alert(1)",
        "x" * (LONGEST_URL + 1),
        ELSEWHERE + "x" * 50_000,
        EHR + "?" + "x" * LONGEST_URL,
    ],
)
def test_a_url_that_may_lead_elsewhere_is_withheld(url: str) -> None:
    """(PX-02)."""
    url = url.replace("\\\\", "\\")
    for body in ('{"link":[{"id":"1","url":"$"}]}', '{"link":[{"relation":"next","url":"$"}],"entry":[]}'):
        assert rewrite(body.replace("$", url).encode()) == body.replace("$", WITHHELD).encode()


@pytest.mark.parametrize("url", ["", "?page=2", "?t=10:30", "Patient?page=a/b:c", "/fhir/R4/Patient", "#x:y"])
def test_a_relative_url_stays(url: str) -> None:
    assert link_urls(rewrite(json.dumps({"link": [{"url": url}]}).encode())) == [url]


@pytest.mark.parametrize(
    "body",
    [
        '{"resourceType":"Patient","link":[{"other":{"reference":"Patient/2"},"extension":[{"url":"https://x.example"}]}]}',
        '{"a":{"link":[{"url":"https://x.example"}]}}',
        '[{"link":[{"url":"https://x.example"}]}]',
        '{"link":[{"relation":"https://x.example"}],"url":"https://x.example"}',
        '{"links":[{"url":"https://x.example"}],"a":{"link":1}}',
    ],
)
def test_another_url_stays(body: str) -> None:
    assert rewrite(body.encode()) == body.encode()


def test_a_list_in_place_of_a_url_leads_nowhere_else() -> None:
    """(PX-02): JavaScript makes text of it."""
    assert link_urls(rewrite(json.dumps({"link": [{"url": [[ELSEWHERE]]}]}).encode())) == [[[WITHHELD]]]


@pytest.mark.parametrize("link", LINKS)
def test_a_link_is_found_wherever_it_is_cut(link: str) -> None:
    """(PX-02)."""
    body = BUNDLES[3].replace("*", link).replace("$", ELSEWHERE).encode()
    whole = rewrite(body)

    assert rewrite(*(body[n : n + 1] for n in range(len(body)))) == whole
    for place in range(0, len(body), 1 + len(body) // 200):
        assert rewrite(body[:place], body[place:]) == whole


keys = st.sampled_from(["link", "url", "relation", "entry", "id"])
values = st.recursive(
    st.sampled_from(
        [
            ELSEWHERE,
            f"{EHR}?p=2",
            "x",
            "",
            '"',
            "\\",
            "[{",
            "}]",
            '{"link":[{"url":"',
            "link",
            '\\"',
            "é",
            1.5,
            None,
            True,
        ]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)
links = st.lists(st.dictionaries(st.sampled_from(["relation", "id", "extension", "a"]), values), min_size=1, max_size=4)


def leads_elsewhere(url: object) -> bool:
    return "evil.example" in str(url)


@given(found=links, before=values, after=values, comes_last=st.booleans(), places=st.lists(st.integers(0), max_size=5))
def test_no_link_of_any_bundle_leads_elsewhere(
    found: list[dict[str, Any]], before: object, after: object, *, comes_last: bool, places: list[int]
) -> None:
    """(PX-02): and nothing else of the Bundle is touched by where it is cut."""
    members = [{**link, "url": ELSEWHERE} if comes_last else {"url": ELSEWHERE, **link} for link in found]
    body = json.dumps({"before": before, "link": members, "entry": after}).encode()

    written = rewrite(*cut(body, places))

    assert written == rewrite(body)
    assert link_urls(written) == [WITHHELD] * len(found)


@given(
    st.dictionaries(st.sampled_from(["entry", "id", "[", '"', "lin\\u006b"]), values), values, st.lists(st.integers(0))
)
def test_nothing_but_links_of_the_outermost_bundle_is_taken(
    others: dict[str, Any], found: object, places: list[int]
) -> None:
    """(PX-07): whatever brackets, quotes and keys stand elsewhere."""
    for document in ({**others, "link": found}, {"link": found, **others}):
        page_urls = PageUrls()
        pieces = [piece for chunk in cut(json.dumps(document).encode(), places) for piece in page_urls.feed(chunk)]
        taken = b"".join([*(b'"taken"' if is_url else text for text, is_url in pieces), page_urls.finish()])

        assert {name: value for name, value in json.loads(taken).items() if name != "link"} == others


@pytest.mark.parametrize(
    "filling", ["[],", '{"url":"a"},', "[", '{"a":[{}]},"link":[', '{"extension":[{"url":"a"}],"url":"b"},']
)
def test_links_without_end_are_refused_before_they_take_long(filling: str) -> None:
    """PX-12: an app may have stored a Patient with them."""
    start = time.process_time()

    with pytest.raises(EhrMisbehaved, match="no end"):
        PageUrls().feed(b'{"link":[' + filling.encode() * (8_000_000 // len(filling)))

    assert time.process_time() - start < 2


def test_thousands_of_links_are_no_link_without_end() -> None:
    link = '{"target":{"reference":"Patient/1"},"assurance":"level2"}'
    body = f'{{"resourceType":"Person","link":[{",".join([link] * 5000)}]}}'.encode()

    assert rewrite(body) == body


@pytest.mark.parametrize("key", ["link", "Link", "LINK", r"l\u0069nk", r"\u004cin\u006B", r"lin\u212a", "lin\u212a"])
def test_a_link_is_found_however_its_key_is_spelt(key: str) -> None:
    """(PX-02)."""
    for body in (f'{{"{key}":[{{"url":"$"}}]}}', f'{{"entry":[{{"link":1,"text":"[é"}}],"{key}" :\n[{{"url":"$"}}]}}'):
        expected = body.replace("$", WITHHELD).encode()
        sent = body.replace("$", ELSEWHERE).encode()
        assert rewrite(sent) == expected
        assert rewrite(*(sent[n : n + 1] for n in range(len(sent)))) == expected


def marked(*chunks: bytes) -> bytes:
    """Return the body with brackets around what was taken for a page's URL."""
    page_urls = PageUrls()
    pieces = [piece for chunk in chunks for piece in page_urls.feed(chunk)]
    return b"".join([*(b"<" + text + b">" if is_url else text for text, is_url in pieces), page_urls.finish()])


long_strings = st.builds(
    lambda filling, length, end: filling * (length // len(filling)) + end,
    st.sampled_from(["a", "[{", "}]", r"\"", r"\\", r"\u0041", r"\",\"", r"{\"link\":[", "é"]),
    st.sampled_from([0, 100, LONGEST_URL - 1, LONGEST_URL, LONGEST_URL + 1, 17_000, 40_000]),
    st.sampled_from(["", "}]}", r"\"", r"\\"]),
)
long_links = st.lists(
    st.tuples(st.sampled_from(["title", "url", "link", "a"]), long_strings | st.just(ELSEWHERE)), max_size=3
)


@settings(max_examples=60)
@given(st.lists(long_links, min_size=1, max_size=3), long_strings, long_strings, st.lists(st.integers(0), max_size=4))
def test_a_long_string_loses_no_link_wherever_it_is_cut(
    found: list[list[tuple[str, str]]], before: str, after: str, places: list[int]
) -> None:
    """(PX-02): strings longer than a URL pass in parts."""
    members = [",".join(f'"{name}":"{text}"' for name, text in [*link, ("url", ELSEWHERE)]) for link in found]
    links = ",".join(f"{{{link}}}" for link in members)
    body = f'{{"before":"{before}","link":[{links}],"entry":[{{"a":"{after}"}}]}}'.encode()
    whole = rewrite(body)

    assert link_urls(whole) == [WITHHELD] * len(found)
    assert rewrite(*cut(body, places)) == whole
    assert marked(*cut(body, places)) == marked(body)


@pytest.mark.parametrize("text", ["a" * 9000, "}]}" * 3000, r"\"" * 5000], ids=["letters", "brackets", "quotes"])
def test_a_long_string_loses_no_link_cut_at_each_byte(text: str) -> None:
    """(PX-02)."""
    body = f'{{"a":[{{"b":"{text}"}}],"link":[{{"title":"{text}","url":"{text}"}},{{"url":"{ELSEWHERE}"}}]}}'.encode()
    whole = marked(body)
    assert whole.count(b"<") == 2
    assert f"<{text[: LONGEST_URL + 1]}>".encode() in whole

    assert marked(*(body[n : n + 1] for n in range(len(body)))) == whole
    for place in range(0, len(body), 97):
        assert marked(body[:place], body[place:]) == whole


@given(st.binary(max_size=300), st.lists(st.integers(0), max_size=5))
def test_pieces_are_the_same_bytes_whatever_they_are(body: bytes, places: list[int]) -> None:
    page_urls = PageUrls()
    pieces = [piece for chunk in cut(body, places) for piece, _ in page_urls.feed(chunk)]

    assert b"".join([*pieces, page_urls.finish()]) == body
