import re
import string
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.clock import system_entropy
from broker.credentials import (
    APP_SECRET,
    CODE,
    HANDLE,
    LAUNCH,
    REFRESH_HANDLE,
    KeyedHash,
    mint,
    new_tag,
    present,
    random_text,
)
from broker.secret import Secret

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
TAGGED = (HANDLE, REFRESH_HANDLE, CODE, LAUNCH)
TAG = "ABCdef012345"

prefixes = st.sampled_from(TAGGED)
tags = st.text(BASE62, min_size=12, max_size=12)
randomness = st.binary(min_size=32, max_size=32)


def zeros(count: int) -> bytes:
    return bytes(count)


def ones(count: int) -> bytes:
    return b"\xff" * count


@pytest.mark.parametrize(
    ("prefix", "text"),
    [
        (HANDLE, "sbh_00000000000000000000000000000000000000000000000000000003TGOSB"),
        (REFRESH_HANDLE, "sbr_00000000000000000000000000000000000000000000000000000000RZOeY"),
        (CODE, "sbc_00000000000000000000000000000000000000000000000000000001UFEsR"),
        (LAUNCH, "sbl_000000000000000000000000000000000000000000000000000000045Sl4F"),
    ],
)
def test_each_kind_of_credential_has_this_format(prefix: str, text: str) -> None:
    assert mint(prefix, "0" * 12, zeros).reveal() == text


def test_an_app_secret_has_no_tag() -> None:
    assert mint(APP_SECRET, "", zeros).reveal() == "sbs_00000000000000000000000000000000000000000002rH5QM"


def test_the_highest_random_number_fits() -> None:
    text = mint(HANDLE, TAG, ones).reveal()

    assert text == "sbh_ABCdef012345yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp10bEDgZ"


@given(prefixes, tags, randomness)
def test_a_credential_is_prefix_tag_256_bits_and_checksum(prefix: str, tag: str, random: bytes) -> None:
    """HB-01."""
    text = mint(prefix, tag, lambda _: random).reveal()

    assert re.fullmatch(r"sb[hrcla]_[0-9A-Za-z]{61}", text)
    assert text[:16] == prefix + tag
    assert number(text[16:59]) == int.from_bytes(random, "big")
    assert number(text[59:]) == zlib.crc32(text[:59].encode())


@given(prefixes, tags, randomness)
def test_what_is_minted_can_be_presented(prefix: str, tag: str, random: bytes) -> None:
    minted = mint(prefix, tag, lambda _: random)
    presented = present(prefix, minted.reveal())

    assert presented is not None
    assert (presented.prefix, presented.tag, presented.secret) == (prefix, tag, minted)


def test_an_app_secret_can_be_presented() -> None:
    presented = present(APP_SECRET, mint(APP_SECRET, "", ones).reveal())

    assert presented is not None
    assert presented.tag == ""


@given(randomness, st.integers(0, 64), st.characters(exclude_categories=[]))
def test_one_changed_character_is_refused(random: bytes, place: int, other: str) -> None:
    text = mint(HANDLE, TAG, lambda _: random).reveal()
    changed = text[:place] + other + text[place + 1 :]

    assert (present(HANDLE, changed) is None) is (changed != text)


@given(randomness, st.integers(0, 64))
def test_one_missing_or_doubled_character_is_refused(random: bytes, place: int) -> None:
    text = mint(HANDLE, TAG, lambda _: random).reveal()

    assert present(HANDLE, text[:place] + text[place + 1 :]) is None
    assert present(HANDLE, text[:place] + text[place] + text[place:]) is None


@pytest.mark.parametrize("prefix", [*TAGGED, APP_SECRET])
@pytest.mark.parametrize("minted", [*TAGGED, APP_SECRET])
def test_a_credential_is_of_one_kind_only(prefix: str, minted: str) -> None:
    text = mint(minted, "" if minted == APP_SECRET else TAG, system_entropy).reveal()

    assert (present(prefix, text) is not None) is (prefix == minted)
    assert (present(prefix, prefix + text[4:]) is not None) is (prefix == minted)


@pytest.mark.parametrize("text", ["", "sbh_", "Bearer", "sbh_" + "0" * 61, "０" * 65, "\ud800" * 65, "\n"])
def test_other_text_is_refused(text: str) -> None:
    assert present(HANDLE, text) is None


@pytest.mark.parametrize("around", [" {}", "{} ", "{}\n", "\n{}", "{}\0"])
def test_a_credential_with_something_around_it_is_refused(around: str) -> None:
    assert present(HANDLE, around.format(mint(HANDLE, TAG, zeros).reveal())) is None


def test_ten_thousand_credentials_are_distinct() -> None:
    minted = sorted(mint(HANDLE, TAG, system_entropy).reveal() for _ in range(10_000))

    assert all(one != other for one, other in pairwise(minted))


def test_a_presented_credential_does_not_show_its_text() -> None:
    text = mint(HANDLE, TAG, ones).reveal()

    assert text[16:] not in repr(present(HANDLE, text))


def test_a_tag_is_twelve_base62_digits() -> None:
    assert new_tag(ones) == "lk9n8mt7Fhc7"
    assert new_tag(zeros) == "000000000000"


def test_random_text_is_256_bits_in_base64url() -> None:
    """AL-10, OA-16."""
    assert random_text(ones) == "_" * 42 + "8"
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", random_text(system_entropy))


def test_ten_thousand_random_texts_are_distinct() -> None:
    """AL-10."""
    assert len({random_text(system_entropy) for _ in range(10_000)}) == 10_000


def test_the_keyed_hash_is_hmac_sha_256_of_purpose_and_text() -> None:
    """HB-04."""
    assert KeyedHash(b"k" * 32)("a", "x") == "9a2bbb117af7c89ec6655ecd4ba5de2df2739528090ef0c64d9ac36cb48349d5"


@pytest.mark.parametrize(
    ("key", "purpose", "text"),
    [(b"l" * 32, "a", "x"), (b"k" * 32, "b", "x"), (b"k" * 32, "a", "y"), (b"k" * 32, "", "a\0x")],
)
def test_the_keyed_hash_differs_by_key_purpose_and_text(key: bytes, purpose: str, text: str) -> None:
    assert KeyedHash(key)(purpose, text) != KeyedHash(b"k" * 32)("a", "x")


def test_a_secret_hashes_like_its_text() -> None:
    keyed_hash = KeyedHash(b"k" * 32)

    assert keyed_hash("a", Secret("x")) == keyed_hash("a", "x")


def test_the_hash_key_never_shows() -> None:
    assert repr(KeyedHash(b"canary")) == "KeyedHash()"


def number(text: str) -> int:
    value = 0
    for digit in text:
        value = value * 62 + BASE62.index(digit)
    return value
