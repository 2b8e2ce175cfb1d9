import asyncio
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import KeyUnavailable, SealBroken
from broker.vault import Domain, LocalKeyring, RecordContext, Vault

KEY = bytes(range(32))
OTHER_KEY = bytes(range(32, 64))
KEY_ID = bytes.fromhex("6cae8967cd435bbd")
CONTEXT = RecordContext(kind="grant-tokens", id="ABCdef012345", tenant="clinic", generation=3)
OTHER_CONTEXTS = [
    replace(CONTEXT, kind="grant-terms"),
    replace(CONTEXT, id="ABCdef012346"),
    replace(CONTEXT, tenant="clinic2"),
    replace(CONTEXT, generation=2),
    replace(CONTEXT, generation=4),
    replace(CONTEXT, kind=CONTEXT.id, id=CONTEXT.kind),
    replace(CONTEXT, kind="", id="grant-tokensABCdef012345"),
]
PLAINTEXT = b'{"access_token":"canary"}'

contexts = st.builds(RecordContext, kind=st.text(), id=st.text(), tenant=st.text(), generation=st.integers(0))


class Reports(list[tuple[RecordContext, str]]):
    def __call__(self, context: RecordContext, detail: str) -> None:
        self.append((context, detail))


class Counting:
    """Entropy that can be foretold: 00 01 02 …."""

    def __init__(self) -> None:
        self.at = 0

    def __call__(self, count: int) -> bytes:
        self.at += count
        return bytes(n % 256 for n in range(self.at - count, self.at))


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def vault(reports: Reports) -> Vault:
    return Vault(LocalKeyring([KEY]), report_broken=reports)


@given(contexts, st.binary())
def test_what_is_sealed_opens_in_its_context(context: RecordContext, plaintext: bytes) -> None:
    """HB-04."""

    async def round_trip() -> bytes:
        vault = Vault(LocalKeyring([KEY]), report_broken=Reports())
        sealed = await vault.seal(context, plaintext)
        assert len(sealed) == len(plaintext) + 97
        return await vault.open(context, sealed)

    assert asyncio.run(round_trip()) == plaintext


async def test_the_envelope_is_laid_out_as_documented() -> None:
    entropy = Counting()
    sealed = await Vault(LocalKeyring([KEY], entropy), report_broken=Reports(), entropy=entropy).seal(CONTEXT, b"text")
    bound_to = CONTEXT.associated_data()
    data_key, wrapping_nonce, nonce = bytes(range(32)), bytes(range(32, 44)), bytes(range(44, 56))

    assert sealed[0] == 1
    assert sealed[1:9] == KEY_ID
    assert sealed[9:69] == wrapping_nonce + AESGCM(KEY).encrypt(
        wrapping_nonce, data_key, KEY_ID + Domain(CONTEXT.tenant).associated_data() + bound_to
    )
    assert sealed[69:81] == nonce
    assert sealed[81:] == AESGCM(data_key).encrypt(nonce, b"text", sealed[:81] + bound_to)


def test_the_associated_data_is_five_fields_with_their_lengths() -> None:
    fields = [b"1", b"grant-tokens", b"ABCdef012345", b"clinic", b"3"]

    assert CONTEXT.associated_data() == b"".join(len(field).to_bytes(4, "big") + field for field in fields)


@given(contexts, contexts)
def test_no_two_contexts_share_their_associated_data(one: RecordContext, other: RecordContext) -> None:
    assert (one.associated_data() == other.associated_data()) is (one == other)


@given(st.text(), st.text(), st.integers(0, 8))
def test_moving_a_character_between_fields_changes_the_associated_data(kind: str, id_: str, cut: int) -> None:
    one = RecordContext(kind=kind + id_[:cut], id=id_[cut:], tenant="t")
    other = RecordContext(kind=kind, id=id_, tenant="t")

    assert (one.associated_data() == other.associated_data()) is (one == other)


@pytest.mark.parametrize("context", OTHER_CONTEXTS)
async def test_a_record_opens_in_no_other_context(vault: Vault, reports: Reports, context: RecordContext) -> None:
    """HB-04."""
    sealed = await vault.seal(CONTEXT, PLAINTEXT)

    with pytest.raises(SealBroken):
        await vault.open(context, sealed)

    assert [reported for reported, _ in reports] == [context]


async def test_two_swapped_records_do_not_open(vault: Vault, reports: Reports) -> None:
    mine, theirs = CONTEXT, replace(CONTEXT, id="another00000")
    sealed = {theirs: await vault.seal(mine, b"mine"), mine: await vault.seal(theirs, b"theirs")}

    for context, swapped in sealed.items():
        with pytest.raises(SealBroken):
            await vault.open(context, swapped)

    assert len(reports) == 2


async def test_a_replayed_earlier_generation_does_not_open(vault: Vault, reports: Reports) -> None:
    earlier = await vault.seal(CONTEXT, PLAINTEXT)
    await vault.seal(replace(CONTEXT, generation=4), PLAINTEXT)

    with pytest.raises(SealBroken):
        await vault.open(replace(CONTEXT, generation=4), earlier)

    assert len(reports) == 1


async def test_any_flipped_byte_is_refused_and_reported_once(vault: Vault, reports: Reports) -> None:
    """A flip in the key id (bytes 1 to 8) names a key that nobody has; any other breaks the seal."""
    sealed = await vault.seal(CONTEXT, PLAINTEXT)
    for place in range(len(sealed)):
        reports.clear()
        flipped = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
        names_other_key = 1 <= place < 9

        with pytest.raises(KeyUnavailable if names_other_key else SealBroken):
            await vault.open(CONTEXT, flipped)

        assert len(reports) == (0 if names_other_key else 1)


async def test_any_truncation_is_refused_and_reported_once(vault: Vault, reports: Reports) -> None:
    sealed = await vault.seal(CONTEXT, PLAINTEXT)
    for length in range(len(sealed)):
        reports.clear()

        with pytest.raises(SealBroken):
            await vault.open(CONTEXT, sealed[:length])

        assert len(reports) == 1


@pytest.mark.parametrize("extra", [b"\0", b"canary"])
async def test_an_appended_byte_is_refused(vault: Vault, extra: bytes) -> None:
    with pytest.raises(SealBroken):
        await vault.open(CONTEXT, await vault.seal(CONTEXT, PLAINTEXT) + extra)


async def test_parts_of_two_envelopes_of_one_context_do_not_fit_together(vault: Vault) -> None:
    one, other = await vault.seal(CONTEXT, PLAINTEXT), await vault.seal(CONTEXT, PLAINTEXT)

    for cut in (21, 69, 81):
        with pytest.raises(SealBroken):
            await vault.open(CONTEXT, one[:cut] + other[cut:])


async def test_the_same_text_is_never_sealed_the_same(vault: Vault) -> None:
    assert len({await vault.seal(CONTEXT, PLAINTEXT) for _ in range(100)}) == 100


async def test_neither_report_nor_error_holds_what_was_sealed(vault: Vault, reports: Reports) -> None:
    sealed = await vault.seal(CONTEXT, PLAINTEXT)

    with pytest.raises(SealBroken) as raised:
        await vault.open(OTHER_CONTEXTS[0], sealed)

    assert reports == [(OTHER_CONTEXTS[0], "a key of clinic/ does not unwrap in its place")]
    assert "canary" not in f"{raised.value} {raised.value.public} {raised.value!r}"


async def test_a_refused_report_refuses_the_opening_too(vault: Vault) -> None:
    class AuditIsDownError(Exception):
        pass

    def refuse(_: RecordContext, __: str) -> None:
        raise AuditIsDownError

    sealed = await vault.seal(CONTEXT, PLAINTEXT)

    with pytest.raises(AuditIsDownError):
        await Vault(LocalKeyring([KEY]), report_broken=refuse).open(OTHER_CONTEXTS[0], sealed)


async def test_a_record_under_a_key_that_is_gone_is_unavailable_and_not_broken(vault: Vault, reports: Reports) -> None:
    sealed = await vault.seal(CONTEXT, PLAINTEXT)

    with pytest.raises(KeyUnavailable) as raised:
        await Vault(LocalKeyring([OTHER_KEY]), report_broken=reports).open(CONTEXT, sealed)

    assert raised.value.detail == f"key-encryption key local:{KEY_ID.hex()} is not on the keyring"
    assert reports == []


async def test_a_new_key_in_front_seals_and_the_old_one_still_opens(vault: Vault, reports: Reports) -> None:
    old = await vault.seal(CONTEXT, PLAINTEXT)
    rotated = Vault(LocalKeyring([OTHER_KEY, KEY]), report_broken=reports)

    new = await rotated.seal(CONTEXT, PLAINTEXT)

    assert await rotated.open(CONTEXT, old) == PLAINTEXT
    assert await Vault(LocalKeyring([OTHER_KEY]), report_broken=reports).open(CONTEXT, new) == PLAINTEXT
    with pytest.raises(KeyUnavailable):
        await vault.open(CONTEXT, new)
