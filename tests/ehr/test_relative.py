"""What leads to the broker is relative at the EHR, in queries, headers and bodies (PX-06)."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.ehr.relative import RelativeReferences, RelativeUrls

HERE = "https://broker.example/fhir/epic"
EHR = "https://ehr.example/fhir/R4"
URLS = RelativeUrls(HERE, EHR)


def cut(body: bytes, places: list[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(borders)]


def turned(*chunks: bytes, is_patch: bool = False) -> bytes:
    references = RelativeReferences(URLS, is_patch=is_patch)
    return b"".join([*map(references.feed, chunks), references.finish()])


@pytest.mark.parametrize(
    ("query", "relative"),
    [
        (f"subject={HERE}/Patient/1", "subject=Patient/1"),
        (f"a=b&subject={HERE}/Patient/1&c=d", "a=b&subject=Patient/1&c=d"),
        (f"subject={HERE}/Patient/1,{HERE}/Group/2", "subject=Patient/1,Group/2"),
        (f"subject=Patient/1%2C{HERE}/Group/2", "subject=Patient/1%2CGroup/2"),
        ("subject=https%3A%2F%2Fbroker.example%2Ffhir%2Fepic%2FPatient%2F1", "subject=Patient%2F1"),
        ("subject=https%3a%2f%2fbroker%2eexample/fhir/epi%63/Patient/1", "subject=Patient/1"),
        ("subject=HTTPS://Broker.example/fhir/epic/Patient/1", "subject=Patient/1"),
        (f"subject:Patient={HERE}/Patient/1", "subject:Patient=Patient/1"),
    ],
)
def test_a_value_of_a_query_is_relative(query: str, relative: str) -> None:
    assert URLS.query(query.encode()) == relative.encode()


@pytest.mark.parametrize(
    "query",
    [
        "",
        "subject=Patient/1",
        f"subject={HERE}",
        f"subject={HERE}x/Patient/1",
        "subject=https://broker.example/fhir/other/Patient/1",
        "subject=https://broker.example/fhir/EPIC/Patient/1",
        "subject=http://broker.example/fhir/epic/Patient/1",
        f"subject={EHR}/Patient/1",
        f"url=https://other.example/?{HERE}/x",
        f"identifier=https://other.example/{HERE}/x|1",
        "a=%3&b=%",
    ],
)
def test_another_query_stays(query: str) -> None:
    assert URLS.query(query.encode()) == query.encode()


REFERENCES = [
    ('{"reference":"$/Patient/1"}', "Patient/1"),
    ('{"reference" : "$/Patient/1/_history/2#a"}', "Patient/1/_history/2#a"),
    ('{"reference":"HTTPS://BROKER.example/fhir/epic/Patient/1"}', "Patient/1"),
    ('{"reference":"https://broker.example:443/fhir/epic/Patient/1"}', "Patient/1"),
    (r'{"reference":"https:\/\/broker.example\/fhir\/epic\/Patient\/1"}', "Patient/1"),
    (r'{"reference":"\u0068ttps://broker.example/fhir/epic/Patient/1"}', "Patient/1"),
    ('{"url":"$/Binary/1"}', "Binary/1"),
]


@pytest.mark.parametrize(("body", "relative"), REFERENCES)
def test_a_reference_is_relative_and_the_body_as_long_as_it_was(body: str, relative: str) -> None:
    sent = body.replace("$", HERE).encode()
    for place in range(len(sent)):
        written = turned(sent[:place], sent[place:])

        assert list(json.loads(written).values()) == [relative]
        assert len(written) == len(sent)


@pytest.mark.parametrize(
    "body",
    [
        '{"reference":"Patient/1"}',
        '{"reference":"$"}',
        '{"reference":"$x/Patient/1"}',
        '{"reference":"https://broker.example/fhir/other/Patient/1"}',
        '{"reference":"https://ehr.example/fhir/R4/Patient/1"}',
        '{"value":"$/Patient/1"}',
        '{"system":"$/ids"}',
        '{"fullUrl":"$/Patient/1"}',
        r'{"div":"<a href=\"$/Patient/1\">"}',
        r'{"text":"\"reference\":\"$/Patient/1\""}',
        '{"value":1.10}',
        "",
        "not json",
        '{"reference":"https://broker.exam',
    ],
)
def test_all_else_passes_byte_for_byte(body: str) -> None:
    sent = body.replace("$", HERE).encode()

    assert turned(sent) == sent


def test_in_a_patch_a_value_may_be_a_reference() -> None:
    """RFC 6902."""
    patch = [{"op": "replace", "path": "/subject/reference", "value": f"{HERE}/Patient/1"}]

    assert json.loads(turned(json.dumps(patch).encode(), is_patch=True))[0]["value"] == "Patient/1"


@given(
    st.lists(st.sampled_from([*(body for body, _ in REFERENCES), '{"a":"' + "x" * 3000 + '"}', '"', "$", "\\"])),
    st.lists(st.integers(0)),
)
def test_chunks_give_the_same_bytes_as_the_whole(parts: list[str], places: list[int]) -> None:
    body = "".join(parts).replace("$", HERE).encode()

    assert turned(*cut(body, places)) == turned(body)
    assert len(turned(body)) == len(body)


@pytest.mark.parametrize("filling", [b"x", b'"', b'"reference":"', HERE.encode(), b'"reference":"' + HERE.encode()])
def test_what_is_held_back_is_bounded(filling: bytes) -> None:
    """PX-12."""
    references, fed, given_out = RelativeReferences(URLS), 0, 0
    for _ in range(100):
        chunk = filling * (1 + 1000 // len(filling))
        fed, given_out = fed + len(chunk), given_out + len(references.feed(chunk))
        assert fed - given_out <= 4096


def test_a_bundle_goes_on_with_the_urls_that_it_has_at_the_ehr() -> None:
    entry = {
        "fullUrl": f"{HERE}/Observation/1",
        "resource": {"subject": {"reference": f"{HERE}/Patient/1"}, "valueQuantity": {"value": 1.5}},
        "request": {
            "method": "PUT",
            "url": f"{HERE}/Observation?subject={HERE}/Patient/1",
            "ifNoneExist": f"subject={HERE}/Patient/1&code=x",
        },
    }

    (written,) = json.loads(URLS.bundle(json.dumps({"entry": [entry]}).encode()))["entry"]

    assert written == {
        "fullUrl": f"{EHR}/Observation/1",
        "resource": {"subject": {"reference": "Patient/1"}, "valueQuantity": {"value": 1.5}},
        "request": {
            "method": "PUT",
            "url": "Observation?subject=Patient/1",
            "ifNoneExist": "subject=Patient/1&code=x",
        },
    }
