import json
import re
import time
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.ehr.rewriting import REMOVED, WITHHELD, SecretRemover, UrlRewriter
from broker.ehr.url_map import UrlMap
from broker.secret import Secret

EHR = "https://ehr.example/fhir/R4"
OURS = "https://broker.example/fhir/epic"
ALIAS = "http://ehr.internal:8080/r4"
URLS = UrlMap(OURS, EHR, [ALIAS])
TOKEN = "eyJhbGciOi.eyJhbGciOj.abcabcabd-_~+/="

REWRITTEN = [
    ('{"fullUrl":"$/Patient/1"}', '{"fullUrl":"@/Patient/1"}'),
    ('{"fullUrl" : "$/Patient/1"}', '{"fullUrl" : "@/Patient/1"}'),
    ('{"fullUrl"\n\t: \r\n"$/Patient/1"}', '{"fullUrl"\n\t: \r\n"@/Patient/1"}'),
    ('{"fullUrl":"$"}', '{"fullUrl":"@"}'),
    ('{"relation":"next","url":"$/Patient?page=2"}', '{"relation":"next","url":"@/Patient?page=2"}'),
    ('{"relation" : "next" , "url" : "$/Patient"}', '{"relation" : "next" , "url" : "@/Patient"}'),
    ('{\n  "relation": "next",\n  "url": "$/A"\n}', '{\n  "relation": "next",\n  "url": "@/A"\n}'),
    ('{"url":"$/Patient?page=2","relation":"next"}', '{"url":"@/Patient?page=2","relation":"next"}'),
    ('{"url": "$" , "relation" : "self"}', '{"url": "@" , "relation" : "self"}'),
    ('{"relation":"next","url":"$?_getpages=a"}', '{"relation":"next","url":"@?_getpages=a"}'),
    (r'{"fullUrl":"https:\/\/ehr.example\/fhir\/R4\/A\/1"}', r'{"fullUrl":"@\/A\/1"}'),
    (
        r'{"url":"https:\/\/ehr.example\/fhir\/R4\/A?b=\"","relation":"next"}',
        r'{"url":"@/A?b=\"","relation":"next"}',
    ),
    (r'{"fullUrl":"\u0068ttps://ehr.example/fhir/R4/A/1"}', '{"fullUrl":"@/A/1"}'),
    ('{"fullUrl":"https://ehr.example:443/fhir/R4/A/1"}', '{"fullUrl":"@/A/1"}'),
    ('{"relation":"next","url":"https://ehr.example:443/fhir/R4?p=2"}', '{"relation":"next","url":"@?p=2"}'),
    ('{"fullUrl":"HTTPS://EHR.Example/fhir/R4/A/1"}', '{"fullUrl":"@/A/1"}'),
    (r'{"fullUrl":"\u0068TTPS:\u002f\u002Fehr.exam\u0070le\/fhir\/R4\u002fA\/1"}', r'{"fullUrl":"@\u002fA\/1"}'),
    ('{"fullUrl":"http://ehr.internal:8080/r4/A/1"}', '{"fullUrl":"@/A/1"}'),
    ('{"relation":"next","url":"http://EHR.internal:8080/r4?p=2"}', '{"relation":"next","url":"@?p=2"}'),
    ('{"subject":{"reference":"$/Patient/1"}}', '{"subject":{"reference":"@/Patient/1"}}'),
    ('{"reference" : "$/Patient/1/_history/2#x"}', '{"reference" : "@/Patient/1/_history/2#x"}'),
    ('{"reference":\n\t "http://ehr.internal:8080/r4/A/1"}', '{"reference":\n\t "@/A/1"}'),
    (
        '{"response":{"status":"201","location":"$/A/1/_history/1"}}',
        '{"response":{"status":"201","location":"@/A/1/_history/1"}}',
    ),
    (
        '{"attachment":{"contentType":"a/b","url":"$/Binary/1"}}',
        '{"attachment":{"contentType":"a/b","url":"@/Binary/1"}}',
    ),
    (r'{"url" : "https:\/\/ehr.example\/fhir\/R4\/Binary\/1"}', r'{"url" : "@\/Binary\/1"}'),
    (r'{"a":"\\","fullUrl":"$/A/1","b":"\""}', r'{"a":"\\","fullUrl":"@/A/1","b":"\""}'),
]
UNTOUCHED = [
    '{"fullUrl":"urn:uuid:1"}',
    '{"fullUrl":"$x/Patient/1"}',
    '{"fullUrl":"$-test/Patient/1"}',
    '{"fullUrl":"$:8443/Patient/1"}',
    '{"fullUrl":"https://ehr.example/fhir/R/Patient/1"}',
    '{"fullUrl":"https://other.example/fhir/R4/Patient/1"}',
    '{"fullUrl":"https://ehr.example.evil.example/fhir/R4/Patient/1"}',
    '{"fullUrl":"http://ehr.example/fhir/R4/Patient/1"}',
    '{"fullUrl":"https://ehr.example:8443/fhir/R4/Patient/1"}',
    '{"fullUrl":"https://x.example/?u=$/Patient/1"}',
    '{"fullurl":"$/Patient/1"}',
    '{"identifier":[{"system":"$/ids","value":"1"}]}',
    '{"extension":[{"url":"$/StructureDefinition/a","valueString":"b"}]}',
    '{"extension":[{"url":"$/StructureDefinition/a","extension":[]}]}',
    '{"meta":{"profile":["$/StructureDefinition/a"],"source":"$/x"}}',
    '{"subject":{"reference":"https://other.example/fhir/R4/Patient/1"}}',
    '{"subject":{"reference":"Patient/1"}}',
    '{"subject":{"display":"$/Patient/1"}}',
    '{"subject":{"reference":"$x/Patient/1"}}',
    '{"subject":{"reference":"https://ehr.example/fhir/r4/Patient/1"}}',
    '{"subject":{"reference":"http://ehr.internal/r4/Patient/1"}}',
    '{"subject":{"reference":"https://ehr.internal:8080/r4/Patient/1"}}',
    '{"subject":{"reference":["$/Patient/1"]}}',
    '{"attachment":{"url":"$/DocumentReference/1"}}',
    '{"attachment":{"url":"$/Binaryx/1"}}',
    '{"attachment":{"url":"https://other.example/fhir/R4/Binary/1"}}',
    r'{"text":"\"reference\":\"$/Patient/1\""}',
    '{"resourceType":"ValueSet","url":"$/ValueSet/a","version":"1"}',
    '{"url":"$/StructureDefinition/a","relationship":"x"}',
    '{"note":"see $/Patient/1"}',
    r'{"note":"\"fullUrl\":\"$/Patient/1\""}',
    r'{"note":"\"relation\":\"next\",\"url\":\"$/Patient/1\""}',
    '{"relation":"next","id":"1","other":"$/A"}',
    '{"valueDecimal":1.10,"b":0.0,"c":1e-10,"d":12345678901234567890.123456789}',
    "",
    "not json $/A",
    '{"fullUrl":"https://ehr.example/fhir/R',
]

WITHHELD_LINKS = [
    "https://other.example/fhir/R4?page=2",
    "https://ehr.example/other",
    "https://ehr.example:8443/fhir/R4/A",
    "http://ehr.example/fhir/R4/A",
    "https://user@ehr.example/fhir/R4/A",
    "//other.example/fhir/R4",
    "javascript:alert(1)",
    r"https:\/\/other.example\/",
    r"\u0068ttps://other.example/",
    r"\\other.example",
    r"https://ehr.example/fhir/R4\x",
]

entries = st.lists(
    st.sampled_from(
        [
            *(before for before, _ in REWRITTEN),
            *UNTOUCHED,
            '{"text":"' + "x" * 3000 + '"}',
            '"url":"',
            '"fullUrl":"',
            "$",
            '","relation":"next"',
            " " * 70,
        ]
    ),
    max_size=12,
).map("".join)


def in_ehr(text: str) -> bytes:
    return text.replace("$", EHR).replace("@", OURS).encode()


def in_bundle(link: str) -> bytes:
    return in_ehr(f'{{"resourceType":"Bundle","link":[{link}]}}')


def rewrite(*chunks: bytes) -> bytes:
    rewriter = UrlRewriter(URLS, lambda path, query: "" if path else f"&_sbpage={len(query)}")
    return b"".join([*map(rewriter.feed, chunks), rewriter.finish()])


def rewrite_plainly(body: bytes) -> bytes:
    rewriter = UrlRewriter(URLS)
    return rewriter.feed(body) + rewriter.finish()


def cut(body: bytes, places: list[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(borders)]


@pytest.mark.parametrize(("before", "after"), REWRITTEN)
def test_a_link_to_the_ehr_becomes_a_link_to_the_broker(before: str, after: str) -> None:
    """PX-06."""
    assert rewrite_plainly(in_ehr(before)) == in_ehr(after)


@pytest.mark.parametrize("text", UNTOUCHED)
def test_nothing_else_is_touched(text: str) -> None:
    assert rewrite_plainly(in_ehr(text)) == in_ehr(text)


@pytest.mark.parametrize("url", WITHHELD_LINKS)
def test_a_link_that_leaves_the_base_is_withheld(url: str) -> None:
    """PX-02: whoever followed it would send its handle there."""
    for link in ('{{"relation":"next","url":"{}"}}', '{{"url":"{}","relation":"next"}}'):
        assert rewrite_plainly(link.format(url).encode()) == link.format(WITHHELD).encode()


@pytest.mark.parametrize("url", ["?page=2", "Patient?page=2", "/fhir/R4/Patient", "", "a/b:c"])
def test_a_relative_link_stays_with_the_broker_anyway(url: str) -> None:
    body = f'{{"relation":"next","url":"{url}"}}'.encode()

    assert rewrite_plainly(body) == body


@pytest.mark.parametrize(("before", "after"), REWRITTEN)
def test_a_link_is_rewritten_wherever_it_is_cut(before: str, after: str) -> None:
    body = b'{"a":1}' + in_ehr(before)
    for place in range(len(body)):
        rewriter = UrlRewriter(URLS)
        written = rewriter.feed(body[:place]) + rewriter.feed(body[place:]) + rewriter.finish()

        assert written == b'{"a":1}' + in_ehr(after)


@given(entries, st.lists(st.integers(0)))
def test_chunks_give_the_same_bytes_as_the_whole(text: str, places: list[int]) -> None:
    body = in_ehr(text)

    assert rewrite(*cut(body, places)) == rewrite(body)


def test_single_bytes_give_the_same_bytes_as_the_whole() -> None:
    body = in_ehr("".join(before for before, _ in REWRITTEN) + "".join(UNTOUCHED))

    assert rewrite(*(body[i : i + 1] for i in range(len(body)))) == rewrite(body)


@given(st.binary(max_size=200), st.lists(st.integers(0), max_size=5))
def test_a_body_without_links_passes_byte_for_byte(body: bytes, places: list[int]) -> None:
    text = b"{ " + body  # what begins otherwise may be refused for its encoding

    assert rewrite(*cut(text, places)) == text


def test_a_large_bundle_is_the_same_but_for_its_links() -> None:
    """PX-12: decimals keep their digits, and links far apart are all found."""
    entry = '{"fullUrl":"$/Observation/1","resource":{"value":1.10,"text":"' + "é" * 700 + '"}},'
    bundle = '{"link":[{"relation":"next","url":"$/Observation?p=2"}],"entry":[' + entry * 300 + "{}]}"
    body = in_ehr(bundle)

    written = rewrite(*(body[i : i + 4096] for i in range(0, len(body), 4096)))

    assert written == in_ehr(bundle.replace("$", "@"))
    assert json.loads(written)["entry"][299]["fullUrl"] == f"{OURS}/Observation/1"


@pytest.mark.parametrize("size", [1000, 65_536])
@pytest.mark.parametrize(
    "filling",
    [b"x", b" ", b'"', b"[", b'{"', b"\\", b'{"fullUrl":"', EHR.encode(), b'"url":"' + EHR.encode(), b'"link"'],
)
def test_what_is_held_back_is_bounded(filling: bytes, size: int) -> None:
    """PX-12: no body makes it keep more than 60 KiB between chunks, and once more as much of what it still counts."""
    rewriter = UrlRewriter(URLS)
    fed = given_out = 0
    for _ in range(10 * 65_536 // size):
        chunk = filling * (size // len(filling))
        fed, given_out = fed + len(chunk), given_out + len(rewriter.feed(chunk))
        assert fed - given_out <= 60 * 1024
        assert len(rewriter._page_urls._uncounted) <= 60 * 1024 + size


@pytest.mark.parametrize("attachments", [True, False])
def test_urls_of_attachments_are_turned_unless_the_settings_say_otherwise(*, attachments: bool) -> None:
    """PX-06: a signature of a resource holds for its very bytes."""
    body = in_ehr('{"fullUrl":"$/A/1","content":[{"attachment":{"url":"$/Binary/1"}}]}')
    rewriter = UrlRewriter(UrlMap(OURS, EHR, attachments=attachments))

    written = json.loads(rewriter.feed(body) + rewriter.finish())

    assert written["fullUrl"] == f"{OURS}/A/1"
    assert written["content"][0]["attachment"]["url"] == f"{OURS if attachments else EHR}/Binary/1"


@pytest.mark.parametrize("name", ["link", "url", "reference"])
def test_a_body_of_one_word_takes_no_longer_than_another(name: str) -> None:
    """PX-12: what an app has stored at the EHR holds nobody up."""
    body = b'{"a":{' + (f'"{name}":"{EHR}/A","' + 20 * r"\"" + '":1,').encode() * 5000 + b'"b":1}}'
    start = time.process_time()

    assert len(rewrite(body)) >= len(body) // 2

    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("before", "query", "after"),
    [
        ('{"relation":"next","url":"$?_getpages=a"}', "_getpages=a", '{"relation":"next","url":"@?_getpages=a+"}'),
        ('{"relation":"next","url":"$/?p=1"}', "p=1", '{"relation":"next","url":"@/?p=1+"}'),
        ('{"url":"$?a=b%20c&d=e","relation":"next"}', "a=b%20c&d=e", '{"url":"@?a=b%20c&d=e+","relation":"next"}'),
        (r'{"relation":"next","url":"$?a=1\u0026b=2"}', "a=1&b=2", '{"relation":"next","url":"@?a=1&b=2+"}'),
        (r'{"relation":"next","url":"$?a=\/x"}', "a=/x", '{"relation":"next","url":"@?a=/x+"}'),
        ('{"relation":"next","url":"$?a=é"}', "a=é", r'{"relation":"next","url":"@?a=\u00e9+"}'),
        ('{"relation":"next","url":"$?"}', "", '{"relation":"next","url":"@?+"}'),
        ('{"relation":"next","url":"$/Observation?-p=1"}', "-p=1", '{"relation":"next","url":"@/Observation?-p=1+"}'),
    ],
)
def test_a_link_with_a_query_can_be_extended(before: str, query: str, after: str) -> None:
    """PX-07."""
    asked: list[tuple[str, str]] = []

    def extend(link_path: str, link_query: str) -> str:
        asked.append((link_path, link_query))
        return "+"

    rewriter = UrlRewriter(URLS, extend)

    assert rewriter.feed(in_bundle(before)) + rewriter.finish() == in_bundle(after)
    assert asked == [("Observation" if "Observation" in before else "", query)]


@pytest.mark.parametrize(
    "text",
    [
        '{"relation":"next","url":"$/Patient?page=2"}',
        '{"relation":"next","url":"$"}',
        '{"relation":"next","url":"$?a=' + "x" * 8193 + '"}',
        '{"identifier":{"system":"$?a=1"}}',
    ],
)
def test_another_link_is_not_extended(text: str) -> None:
    assert b"_sbpage" not in rewrite(in_bundle(text))


@pytest.mark.parametrize("where", ["contained", "entry", "a"])
def test_a_link_that_an_app_may_have_written_is_not_extended(where: str) -> None:
    """(PX-07)."""
    bundle = in_bundle('{"relation":"next","url":"$?_getpages=a"}').decode()

    written = rewrite(f'{{"{where}":[{{"resource":{bundle}}}],"link":[]}}'.encode())

    assert written.decode() == f'{{"{where}":[{{"resource":{bundle}}}],"link":[]}}'.replace(EHR, OURS)


@pytest.mark.parametrize("broken", [b"\xff", b"\\x", b"\n", b"\\ud8"])
def test_a_link_that_is_not_json_is_withheld(broken: bytes) -> None:
    assert rewrite(in_ehr('{"relation":"next","url":"$?a=') + broken + b'"}') == (
        b'{"relation":"next","url":"' + WITHHELD.encode() + b'"}'
    )


@pytest.mark.parametrize("query", ["a=" + r"\u0041" * 8000, "a=" + "x" * 8180, r"a=\/" * 2700])
def test_a_long_link_is_treated_the_same_in_chunks(query: str) -> None:
    body = in_ehr('{"relation":"next","url":"$?' + query + '"}' + " " * 20_000)

    assert rewrite(*(body[i : i + 1000] for i in range(0, len(body), 1000))) == rewrite(body)


@pytest.mark.parametrize(
    ("url", "ours"),
    [
        (EHR, OURS),
        (f"{EHR}/Patient/1", f"{OURS}/Patient/1"),
        (f"{EHR}/Patient/1/_history/2", f"{OURS}/Patient/1/_history/2"),
        (f"{EHR}?page=2", f"{OURS}?page=2"),
        (f"{EHR}/", f"{OURS}/"),
        ("https://ehr.example:443/fhir/R4/Patient/1", f"{OURS}/Patient/1"),
        (f"{EHR}x", None),
        (f"{EHR}#fragment", None),
        (f"{EHR}:443/Patient/1", None),
        ("https://ehr.example:8443/fhir/R4/Patient/1", None),
        ("https://ehr.example/fhir/r4/Patient/1", None),
        ("https://ehr.example/other", None),
        ("https://other.example/fhir/R4/Patient/1", None),
        ("http://ehr.example/fhir/R4/Patient/1", None),
        ("https://user@ehr.example/fhir/R4/Patient/1", None),
        (f"https://evil.example/?{EHR}", None),
        ("Patient/1", None),
        ("/fhir/R4/Patient/1", None),
        ("", None),
    ],
)
def test_a_url_is_mapped_only_below_the_base(url: str, ours: str | None) -> None:
    """PX-03, PX-06."""
    assert URLS.at_broker(url) == ours


@pytest.mark.parametrize("base", ["https://ehr.example/r4", "https://ehr.example:443/r4"])
def test_a_base_is_recognised_with_and_without_its_default_port(base: str) -> None:
    """PX-06, NC-17."""
    for written in ("https://ehr.example", "https://ehr.example:443"):
        assert UrlMap(OURS, base).at_broker(f"{written}/r4/A") == f"{OURS}/A"


def test_another_port_is_part_of_the_base() -> None:
    urls = UrlMap(OURS, "http://127.0.0.1:9400/fhir")

    assert urls.at_broker("http://127.0.0.1:9400/fhir/A") == f"{OURS}/A"
    assert urls.at_broker("http://127.0.0.1/fhir/A") is None
    assert urls.at_broker("http://127.0.0.1:80/fhir/A") is None


@pytest.mark.parametrize(
    ("said", "ours"),
    [
        (f'{{"url":"{EHR}"}}', f'{{"url":"{OURS}"}}'),
        (
            f'["see {EHR}/x, https://EHR.example:443/fhir/R4?a#b", "{ALIAS}#c"]',
            f'["see {OURS}/x, {OURS}?a#b", "{OURS}#c"]',
        ),
        (f'["{EHR}x", "https://ehr.example/fhir/r4/x"]', f'["{EHR}x", "https://ehr.example/fhir/r4/x"]'),
    ],
)
def test_a_document_names_the_broker_instead(said: str, ours: str) -> None:
    """PX-06."""
    assert URLS.name_broker(said) == ours


def remove(*chunks: bytes, token: str = TOKEN) -> bytes:
    remover = SecretRemover(Secret(token))
    return b"".join([*map(remover.feed, chunks), remover.finish()])


@given(
    st.lists(st.sampled_from([TOKEN, TOKEN[:20], TOKEN[5:], TOKEN[:-1], "e", "abc", " "]), max_size=10).map("".join),
    st.lists(st.integers(0)),
)
def test_a_token_is_removed_however_it_is_cut(text: str, places: list[int]) -> None:
    """HB-07."""
    removed = remove(*cut(text.encode(), places))

    assert removed == text.replace(TOKEN, REMOVED).encode()
    assert TOKEN.encode() not in removed


def spellings_of(letter: str) -> list[str]:
    code = f"{ord(letter):02x}"
    forms = [letter, f"\\u00{code}", f"\\u00{code.upper()}", f"%{code}", f"%{code.upper()}"]
    return [*forms, f"\\{letter}"] if letter == "/" else forms


def spelt(token: str) -> st.SearchStrategy[str]:
    return st.tuples(*(st.sampled_from(spellings_of(letter)) for letter in token)).map("".join)


@pytest.mark.parametrize(
    "form",
    [
        TOKEN.replace("/", r"\/"),
        TOKEN.replace("=", r"\u003d"),
        TOKEN.replace("+", r"\u002B"),
        TOKEN.replace("e", r"\u0065"),
        quote(TOKEN, safe=""),
        "".join(f"\\u{ord(letter):04X}" for letter in TOKEN),
    ],
    ids=["slash", "equals sign", "plus", "letter", "in a URL", "each letter"],
)
def test_a_token_is_removed_as_serializers_write_it(form: str) -> None:
    """HB-07."""
    body = f'{{"a":"%41\\u0065{form}","b":"{form}{TOKEN}"}}'
    removed = f'{{"a":"%41\\u0065{REMOVED}","b":"{REMOVED}{REMOVED}"}}'

    for place in range(len(body) + 1):
        assert remove(body[:place].encode(), body[place:].encode()).decode() == removed
    assert SecretRemover(Secret(TOKEN)).text(f"https://broker.example/?a={form}%41") == (
        f"https://broker.example/?a={REMOVED}%41"
    )


@given(
    st.lists(
        spelt(TOKEN)
        | spelt(TOKEN[:20])
        | spelt(TOKEN[5:])
        | st.sampled_from(["e", "%6", r"\u006", r"\\", r"\"", "%", r"\/", " ", r"\u00e9"]),
        max_size=8,
    ),
    st.lists(st.integers(0)),
)
def test_a_token_is_removed_however_it_is_spelt_and_cut(texts: list[str], places: list[int]) -> None:
    """HB-07."""
    body = "\n".join(texts).encode()
    removed = remove(*cut(body, places))

    assert removed == "\n".join(REMOVED if unescaped(text) == TOKEN else text for text in texts).encode()


def unescaped(text: str) -> str:
    """Return what URLs and JSON may mean."""
    text = re.sub(r"\\u([0-9a-fA-F]{4})|\\(/)", lambda found: found[2] or chr(int(found[1], 16)), text)
    return re.sub("%([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), text)


@given(st.text('a%"/\\', min_size=1, max_size=6), st.data())
def test_a_token_that_looks_escaped_itself_is_removed_however_it_is_cut(token: str, data: st.DataObject) -> None:
    text = "".join(data.draw(st.lists(st.sampled_from(["a", "%", '"', "/", "\\", "u0061", token]), max_size=20)))
    places = data.draw(st.lists(st.integers(0), max_size=5))

    assert token not in remove(*cut(text.encode(), places), token=token).decode().replace(REMOVED, "\n")


@pytest.mark.parametrize(
    ("token", "filling"),
    [
        (TOKEN, b"%65"),
        (TOKEN, rb"\u0065"),
        (TOKEN, TOKEN.encode()[:-1]),
        ("a" * 65_535 + "b", b"a"),
        ("a" * 65_535 + "b", b"%61"),
        ("a" * 30_000 + "b" * 35_000, b"a" * 40_000 + b"b"),
        ("ab" * 30_000 + "c", b"ababab%61"),
    ],
    ids=["codes", "escapes", "beginnings", "one letter", "one code", "late difference", "period"],
)
def test_looking_for_a_token_takes_no_longer_whatever_the_body_is(token: str, filling: bytes) -> None:
    """PX-12: nor whatever token a hostile EHR gave."""
    body = filling * (2_000_000 // len(filling))
    start = time.process_time()

    assert remove(*cut(body, list(range(0, len(body), 65_536))), token=token) == body

    assert time.process_time() - start < 3


@given(st.text("ab-", min_size=1, max_size=6), st.text("ab-", max_size=60), st.lists(st.integers(0)))
def test_a_token_that_repeats_itself_is_removed_however_it_is_cut(token: str, text: str, places: list[int]) -> None:
    assert remove(*cut(text.encode(), places), token=token) == text.replace(token, REMOVED).encode()


@given(
    st.binary(max_size=200) | st.text("eyJ%\\u0065", max_size=200).map(str.encode), st.lists(st.integers(0), max_size=5)
)
def test_a_body_without_the_token_passes_byte_for_byte(body: bytes, places: list[int]) -> None:
    assert remove(*cut(body, places)) == body


def test_no_more_than_a_token_is_held_back() -> None:
    remover = SecretRemover(Secret("a" * 100))

    assert len(remover.feed(b"a" * 99)) == 0
    assert remover.feed(b"b") == b"a" * 99 + b"b"


def test_a_token_is_removed_from_a_header() -> None:
    assert SecretRemover(Secret("t0ken")).text("a t0ken, t0ken") == f"a {REMOVED}, {REMOVED}"


def test_a_remover_does_not_show_its_token() -> None:
    assert repr(SecretRemover(Secret("canary"))) == "SecretRemover()"
