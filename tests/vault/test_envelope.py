from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from broker.clock import system_entropy
from broker.errors import KeyUnavailable, SealBroken
from broker.vault import RecordContext, Vault, envelope
from tests.stage.vault import a_vault

KEY, OTHER_KEY = bytes(range(32)), bytes(range(32, 64))
CIPHER, OTHER_CIPHER = AESGCM(KEY), AESGCM(OTHER_KEY)
KEY_ID, OTHER_ID = b"domain-1", b"domain-2"
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
def vault(redis: Redis, reports: Reports) -> Vault:
    return a_vault(redis, tenant="clinic", report_broken=reports)


@given(contexts, st.binary())
def test_what_is_sealed_opens_in_its_context(context: RecordContext, plaintext: bytes) -> None:
    """HB-04."""
    sealed = envelope.seal(CIPHER, KEY_ID, context, plaintext, system_entropy)

    assert len(sealed) == len(plaintext) + 97
    assert envelope.open_with(CIPHER, context, sealed) == plaintext


def test_the_envelope_is_laid_out_as_documented() -> None:
    sealed = envelope.seal(CIPHER, KEY_ID, CONTEXT, b"text", Counting())
    data_key, nonce, wrapping_nonce = bytes(range(32)), bytes(range(32, 44)), bytes(range(44, 56))

    assert sealed[0] == 2
    assert sealed[1:9] == KEY_ID == envelope.key_id_of(sealed)
    assert sealed[9:69] == wrapping_nonce + AESGCM(KEY).encrypt(wrapping_nonce, data_key, b"\x02" + KEY_ID)
    assert sealed[69:81] == nonce
    assert sealed[81:] == AESGCM(data_key).encrypt(nonce, b"text", CONTEXT.associated_data())


@given(contexts, st.binary())
def test_a_record_moves_to_another_key_by_its_first_bytes_alone(context: RecordContext, plaintext: bytes) -> None:
    """It opens under the new key in its own place, and no more under the old one; the rest of it stays as it is."""
    sealed = envelope.seal(CIPHER, KEY_ID, context, plaintext, system_entropy)

    header = envelope.rewrap(sealed[:69], CIPHER, OTHER_CIPHER, OTHER_ID, system_entropy)
    moved = header + sealed[69:]

    assert (len(header), envelope.key_id_of(header)) == (69, OTHER_ID)
    assert envelope.open_with(OTHER_CIPHER, context, moved) == plaintext
    for cipher, place in ((CIPHER, context), (OTHER_CIPHER, replace(context, generation=context.generation + 1))):
        with pytest.raises(SealBroken):
            envelope.open_with(cipher, place, moved)


def test_the_first_bytes_of_one_record_fit_no_other() -> None:
    """Re-wrapped or not, and though both have one place, and one domain key."""
    one, other = (envelope.seal(CIPHER, KEY_ID, CONTEXT, text, system_entropy) for text in (b"one", b"other"))
    again = envelope.rewrap(one[:69], CIPHER, CIPHER, KEY_ID, system_entropy)

    assert envelope.open_with(CIPHER, CONTEXT, again + one[69:]) == b"one"
    for header in (one[:69], again):
        with pytest.raises(SealBroken):
            envelope.open_with(CIPHER, CONTEXT, header + other[69:])


@pytest.mark.parametrize("place", range(69))
def test_a_damaged_header_is_not_re_wrapped(place: int) -> None:
    """Else what nobody can read would look whole afterwards."""
    header = envelope.seal(CIPHER, KEY_ID, CONTEXT, PLAINTEXT, system_entropy)[:69]
    damaged = header[:place] + bytes([header[place] ^ 1]) + header[place + 1 :]

    assert envelope.is_readable(header, CIPHER)
    assert not envelope.is_readable(damaged, CIPHER)
    with pytest.raises(SealBroken):
        envelope.rewrap(damaged, CIPHER, OTHER_CIPHER, OTHER_ID, system_entropy)


@pytest.mark.parametrize("text", [b"", b"\x02", b"\x02" + bytes(67), b"\x01" + bytes(96), b'{"v":1}' + bytes(90)])
def test_what_is_no_envelope_names_no_key(text: bytes) -> None:
    assert envelope.key_id_of(text) is None


def test_the_associated_data_is_five_fields_with_their_lengths() -> None:
    fields = [b"2", b"grant-tokens", b"ABCdef012345", b"clinic", b"3"]

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

    assert reports == [(OTHER_CONTEXTS[0], "a grant-terms record does not open in its place")]
    assert "canary" not in f"{raised.value} {raised.value.public} {raised.value!r}"


async def test_a_refused_report_refuses_the_opening_too(redis: Redis, vault: Vault) -> None:
    class AuditIsDownError(Exception):
        pass

    def refuse(_: RecordContext, __: str) -> None:
        raise AuditIsDownError

    sealed = await vault.seal(CONTEXT, PLAINTEXT)

    with pytest.raises(AuditIsDownError):
        await a_vault(redis, tenant="clinic", report_broken=refuse).open(OTHER_CONTEXTS[0], sealed)
