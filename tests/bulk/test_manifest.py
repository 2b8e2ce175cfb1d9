"""The EHR's manifest, and the broker's made of it (BD-08, BD-17)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.bulk import ListedFile, Manifest, parse_manifest, render_manifest
from broker.bulk import manifest as limits
from broker.errors import EhrMisbehaved

URL = "https://ehr.example/fhir/status/1"
REQUEST = "https://broker.example/fhir/ehr/$export"
GOOD: dict[str, Any] = {
    "transactionTime": "2026-11-29T12:00:00Z",
    "request": "https://ehr.example/fhir/$export?_type=Patient",
    "requiresAccessToken": True,
    "output": [
        {"type": "Patient", "url": "https://ehr.example/files/1", "count": 3, "extension": {"hash": "x"}},
        {"type": "Observation", "url": "https://files.example/2?sig=a%2Fb&x=1"},
    ],
    "deleted": [{"type": "Bundle", "url": "https://ehr.example/files/3"}],
    "error": [],
    "extension": {"https://ehr.example/ext": 1.10},
    "unknown": [{"deep": None}],
}


def parsed(**changes: Any) -> Manifest:
    return parse_manifest(json.dumps({**GOOD, **changes}).encode(), URL)


def rendered(manifest: Manifest, next_url: str | None = None) -> dict[str, Any]:
    text = render_manifest(
        manifest.head,
        enumerate(manifest.files),
        request=REQUEST,
        file_url=lambda number: f"https://broker.example/file/{number}",
        next_url=next_url,
    )
    return dict(json.loads(text))


def test_every_url_becomes_the_brokers_and_all_else_stays() -> None:
    """(BD-08)"""
    assert rendered(parsed()) == {
        **GOOD,
        "request": REQUEST,
        "output": [
            {"type": "Patient", "url": "https://broker.example/file/0", "count": 3, "extension": {"hash": "x"}},
            {"type": "Observation", "url": "https://broker.example/file/1"},
        ],
        "deleted": [{"type": "Bundle", "url": "https://broker.example/file/2"}],
    }


def test_files_are_listed_with_where_they_lie() -> None:
    assert parsed().files == (
        ListedFile(
            "output", "https://ehr.example/files/1", True, {"type": "Patient", "count": 3, "extension": {"hash": "x"}}
        ),
        ListedFile("output", "https://files.example/2?sig=a%2Fb&x=1", True, {"type": "Observation"}),
        ListedFile("deleted", "https://ehr.example/files/3", True, {"type": "Bundle"}),
    )


@pytest.mark.parametrize(
    ("said", "needs"),
    [
        (True, True),
        (False, False),
        ("true", True),
        ("false", False),
        (" False ", False),
        (None, True),
        ("no", True),
        (0, True),
    ],
)
def test_a_token_is_needed_unless_the_manifest_says_that_it_is_not(said: object, *, needs: bool) -> None:
    """(BD-09) (BD-10) (NC-07)"""
    found = parsed(requiresAccessToken=said)

    assert {file.needs_token for file in found.files} == {needs}
    assert rendered(found)["requiresAccessToken"] is True, "at the broker a handle always is"


def test_a_manifest_that_does_not_say_whether_a_token_is_needed_has_files_that_need_one() -> None:
    document = {name: GOOD[name] for name in GOOD if name != "requiresAccessToken"}

    assert parse_manifest(json.dumps(document).encode(), URL).files[0].needs_token


def test_relative_urls_are_of_the_manifest_s_place() -> None:
    found = parsed(output=[{"url": "../files/1"}], link=[{"relation": "next", "url": "?page=2"}])

    assert found.files[0].url == "https://ehr.example/fhir/files/1"
    assert found.next_url == "https://ehr.example/fhir/status/1?page=2"


@pytest.mark.parametrize(
    "link", [[{"relation": "next", "url": f"{URL}/2"}], {"relation": "next", "url": f"{URL}/2"}], ids=["list", "object"]
)
def test_the_next_manifest_is_the_brokers_and_other_links_are_left_out(link: object) -> None:
    """(BD-17)"""
    found = parsed(link=link)

    assert found.next_url == f"{URL}/2"
    assert rendered(found, "https://broker.example/next")["link"] == [
        {"relation": "next", "url": "https://broker.example/next"}
    ]


def test_links_to_elsewhere_are_left_out() -> None:
    found = parsed(link=[{"relation": "about", "url": "https://ehr.example/about"}])

    assert found.next_url is None
    assert "link" not in rendered(found)


def test_the_outcomes_of_4_0_are_files_too_and_no_request_is_made_up() -> None:
    """(BD-08)"""
    document = {"requiresAccessToken": True, "output": [], "outcome": [{"url": f"{URL}/o", "countSeverity": []}]}
    found = parse_manifest(json.dumps(document).encode(), URL)

    assert rendered(found) == {
        "requiresAccessToken": True,
        "output": [],
        "outcome": [{"url": "https://broker.example/file/0", "countSeverity": []}],
    }


def test_a_file_that_goes_on_in_another_one_names_it_by_the_brokers_url() -> None:
    """(BD-08)"""
    found = parsed(
        output=[
            {"url": f"{URL}/a", "continuesInFile": f"{URL}/b"},
            {"url": f"{URL}/b", "continuesInFile": "https://ehr.example/of/another/manifest"},
        ]
    )

    assert rendered(found)["output"] == [
        {"url": "https://broker.example/file/0", "continuesInFile": "https://broker.example/file/1"},
        {"url": "https://broker.example/file/1"},
    ]


def test_urls_that_are_signed_anew_do_not_make_another_manifest_but_other_files_do() -> None:
    moved = [{**entry, "url": f"{entry['url']}?again"} for entry in GOOD["output"]]

    assert parsed(output=moved).shape == parsed().shape
    assert parsed(output=moved[::-1]).shape != parsed().shape
    assert parsed(output=moved[:1]).shape != parsed().shape


REFUSED = {
    "no json": b"<html>",
    "not utf-8": b'{"output": "\xff"}',
    "utf-16": json.dumps({"output": []}).encode("utf-16"),
    "utf-16 without a mark": json.dumps({"output": []}).encode("utf-16-le"),
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "files that are no list": b'{"output": {}}',
    "a file that is text": b'{"output": ["https://ehr.example/1"]}',
    "a file without a url": b'{"output": [{"type": "Patient"}]}',
    "a url that is no text": b'{"output": [{"url": 1}]}',
    "an empty url": b'{"output": [{"url": ""}]}',
    "a url that cannot be read": b'{"output": [{"url": "https://[/"}]}',
    "a long url": json.dumps({"output": [{"url": "https://ehr.example/" + "x" * 9000}]}).encode(),
    "a next link without a url": b'{"output": [], "link": [{"relation": "next"}]}',
    "not a number": b'{"output": [], "x": NaN}',
    "infinity": b'{"output": [], "x": -Infinity}',
    "a number that is infinite": b'{"output": [], "x": 1e999}',
    "a long number": b'{"output": [], "x": ' + b"9" * 65 + b"}",
    "a long fraction": b'{"output": [], "x": 0.' + b"9" * 65 + b"}",
    "nested in a file": b'{"output": [{"url": "a", "x": ' + b"[" * 30 + b"]" * 30 + b"}]}",
    "nested beside": b'{"output": [], "x": ' + b"[" * 32 + b"]" * 32 + b"}",
    "much beside": json.dumps({"output": [], "extension": "x" * limits.HEAD_BYTES}).encode(),
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_what_is_no_manifest_is_refused(body: bytes) -> None:
    with pytest.raises(EhrMisbehaved):
        parse_manifest(body, URL)


def test_a_manifest_lists_no_more_files_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_FILES", 3)
    assert len(parsed(error=[]).files) == 3

    with pytest.raises(EhrMisbehaved):
        parsed(error=[{"url": URL}])


def test_what_is_nested_as_deep_as_it_may_be_comes_through() -> None:
    deep: list[Any] = []
    for _ in range(limits.MOST_LEVELS - 4):  # the manifest, its list, the file
        deep = [deep]

    assert rendered(parsed(output=[{"url": URL, "x": deep}]))["output"][0]["x"] == deep


def test_a_manifest_of_too_many_values_is_refused_before_one_is_made() -> None:
    """(PX-12) Text that is no JSON is refused for its commas, since nothing was read."""
    with pytest.raises(EhrMisbehaved, match="values"):
        parse_manifest(b'{"output": [' + b"{}," * limits.MOST_VALUES, URL)


def test_entries_are_looked_at_no_further_than_there_may_be() -> None:
    """(PX-12) The one that cannot be used comes after the last that is allowed."""
    with pytest.raises(EhrMisbehaved, match="files"):
        parsed(output=[{"url": "a"}] * (limits.MOST_FILES + 1) + [{}])


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.text(), st.lists, max_leaves=3)))
def test_no_url_of_the_ehr_comes_through_and_nothing_else_is_lost(members: dict[str, Any]) -> None:
    document = {**members, **GOOD, "link": [{"relation": "next", "url": f"{URL}/2"}], "extension": members}
    told = rendered(parse_manifest(json.dumps(document).encode(), URL), "https://broker.example/next")

    for name, value in members.items():
        if name not in GOOD and name != "link":
            assert told[name] == value
    urls = [entry["url"] for section in ("output", "deleted") for entry in told[section]]
    assert all(url.startswith("https://broker.example/") for url in [*urls, told["request"], told["link"][0]["url"]])
