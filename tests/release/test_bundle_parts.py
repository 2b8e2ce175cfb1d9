"""A Bundle taken apart as it passes, whatever the chunks."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.ehr import bundle_parts
from broker.ehr.bundle_parts import BundleParts, Part, read_whole
from broker.errors import EhrMisbehaved


def taken_apart(body: bytes, *cuts: int) -> list[Part]:
    parts, places = BundleParts(), [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    fed = [part for begin, end in pairwise(places) for part in parts.feed(body[begin:end])]
    return fed + parts.finish()


def put_together(parts: list[Part]) -> bytes:
    """Put the texts together, with a comma between two members and between two entries."""
    text, before = "", "begin"
    for part in parts:
        comma = part.kind in {"member", "open", "entry"} and before not in {"begin", "open"}
        text += ("," if comma else "") + part.text
        before = part.kind
    return text.encode()


def as_text(value: object) -> object:
    """Return a value as it is read: numbers as text."""
    if isinstance(value, dict):
        return {name: as_text(member) for name, member in value.items()}
    if isinstance(value, list):
        return [as_text(item) for item in value]
    return json.dumps(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


names = st.text(max_size=4)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
bodies = st.fixed_dictionaries(
    {"resourceType": st.just("Bundle")}, optional={"entry": st.lists(values, max_size=4), "total": st.integers()}
)


@given(bundle=bodies, indent=st.sampled_from([None, 1]), is_ascii=st.booleans(), cuts=st.lists(st.integers(0, 999)))
def test_the_parts_are_the_body_and_its_values(
    bundle: dict[str, Any], indent: int | None, *, is_ascii: bool, cuts: list[int]
) -> None:
    body = json.dumps(bundle, indent=indent, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    try:
        body.decode()
    except UnicodeDecodeError:
        return  # a lone surrogate is not UTF-8
    parts = taken_apart(b" \n" + body + b"\r\n", *cuts)

    assert put_together(parts) == b" \n" + body + b"\r\n"
    assert [part.value for part in parts if part.kind == "entry"] == as_text(bundle.get("entry", []))
    assert {part.name: part.value for part in parts if part.kind == "member"} == as_text(
        {name: value for name, value in bundle.items() if name != "entry"}
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"[]",
        b'"x"',
        b"{",
        b"{}}",
        b"{},",
        b"{} x",
        b'{"a"}',
        b'{"a":}',
        b'{"a":1',
        b'{"a":1,}',
        b'{"a":1 "b":2}',
        b'{,"a":1}',
        b"{a:1}",
        b"{1:2}",
        b"{'a':1}",
        b'{"a":01}',
        b'{"a":NaN}',
        b'{"a":[Infinity]}',
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":1,"A":2}',
        b'{"a":1,"\\u0061":2}',
        b'{"entry":[],"entry":[]}',
        b'{"entry":[],"Entry":[]}',
        b'{"entry":[],"\\u0065ntry":[]}',
        b'{"entry":[1,]}',
        b'{"entry":[,1]}',
        b'{"entry":[1 2]}',
        b'{"entry":[1}',
        b'{"entry":[{]}',
        b'{"entry":[{}}]',
        b'{"entry":[{"a":1,"a":2}]}',
        b'{"entry":["\n"]}',
        b'{"entry":[]]}',
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xc0\xaf"}',
        b'{"a":"\xe2\x82',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        b'{"entry":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
        b"/**/{}",
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_what_is_not_one_unambiguous_object_is_refused(body: bytes, size: int) -> None:
    with pytest.raises(EhrMisbehaved):
        taken_apart(body, *range(0, len(body), size if len(body) < 1000 else 1 << 20))


@pytest.mark.parametrize("body", [b'{"a":1,"a":1}', b"[", b"NaN", b"\xff", b"{} {}", b"[" * 100_000])
def test_one_resource_is_read_as_strictly(body: bytes) -> None:
    with pytest.raises(EhrMisbehaved):
        read_whole(body)


def test_an_entry_may_be_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_parts, "MOST_CHARACTERS", 1000)
    entry = json.dumps({"text": "x" * 900})
    whole = f'{{"entry":[{",".join([entry] * 50)}]}}'.encode()

    assert [part.kind for part in taken_apart(whole, *range(0, len(whole), 100))].count("entry") == 50
    with pytest.raises(EhrMisbehaved, match="more than"):
        taken_apart(json.dumps({"entry": ["x" * 2500]}).encode(), *range(0, 2500, 100))


@pytest.mark.parametrize("size", [1 << 14, 1 << 20])
def test_an_entry_may_have_so_many_values_and_no_more(size: int) -> None:
    """Reading them, and looking at each, keeps everybody else waiting."""
    few, many = ('{"entry":[{"a":[' + "{}," * count + "{}]}]}" for count in (124_990, 125_000))

    assert [part.kind for part in taken_apart(few.encode(), *range(0, len(few), size))].count("entry") == 1
    with pytest.raises(EhrMisbehaved, match="an entry of more than 250000 values"):
        taken_apart(many.encode(), *range(0, len(many), size))


def test_a_bundle_may_have_so_many_members_and_no_more() -> None:
    """PX-12: their names are held, since none may come twice."""
    few, many = (json.dumps({f"m{number}": 1 for number in range(count)}).encode() for count in (1000, 1001))

    assert [part.kind for part in taken_apart(few)].count("member") == 1000
    with pytest.raises(EhrMisbehaved, match="more than 1000 members"):
        taken_apart(many)


@pytest.mark.parametrize(("count", "allowed"), [(124_998, True), (124_999, False)])
def test_one_resource_may_have_so_many_values(count: int, *, allowed: bool) -> None:
    body = b'{"a":[' + b"{}," * count + b"{}]}"
    if allowed:
        assert len(read_whole(body)["a"]) == count + 1
    else:
        with pytest.raises(EhrMisbehaved, match="at most 250000 values"):
            read_whole(body)


@pytest.mark.parametrize("value", [b"[[", b'"x', b"{", b"tru"])
def test_what_never_ends_is_not_held_without_end(monkeypatch: pytest.MonkeyPatch, value: bytes) -> None:
    monkeypatch.setattr(bundle_parts, "MOST_CHARACTERS", 1000)
    parts = BundleParts()
    parts.feed(b'{"entry":[' + value)

    with pytest.raises(EhrMisbehaved, match="more than"):
        all(parts.feed(b" " * 100) == [] for _ in range(30))
