"""A sealed record opens in its own place only: moved, swapped, put back or damaged, it opens nothing."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from broker.app import open_broker
from broker.errors import KeyUnavailable, SealBroken
from broker.store import keys
from broker.vault import LocalKeyring
from tests.stage.broker import KEY
from tests.stories.held import DUE, Held, audit_of, code_of, hold, upstream


def broken_seals(held: Held) -> list[str]:
    """The kinds of record that were reported."""
    return [line["reason"].partition(":")[0] for line in audit_of(held.stage, "seal.broken")]


async def test_a_broker_with_another_key_encryption_key_does_not_start(held: Held, tmp_path: Path) -> None:
    redis, settings = held.stage.redis, held.stage.broker.settings
    with pytest.raises(KeyUnavailable, match="is not on the keyring"):
        async with open_broker(
            settings, redis=redis, kek=LocalKeyring([KEY[::-1]]), audit_file=tmp_path / "other.jsonl"
        ):
            pytest.fail("it opened")


async def test_a_broker_whose_sealed_keys_were_exchanged_does_not_start(held: Held, tmp_path: Path) -> None:
    redis, settings = held.stage.redis, held.stage.broker.settings
    await held.app.http.get(f"{held.stage.public_url}/jwks/sandbox-backend")  # makes a signing key
    signing_key = await redis.get(keys.sealed_key("sandbox-backend:signing"))
    assert signing_key is not None
    await redis.set(keys.sealed_key("hash"), signing_key)
    with pytest.raises(SealBroken):
        async with open_broker(settings, redis=redis, kek=LocalKeyring([KEY]), audit_file=tmp_path / "other.jsonl"):
            pytest.fail("it opened")
    assert '"seal.broken"' in (tmp_path / "other.jsonl").read_text()


async def copy_field(field: str, mine: Held, other: Held) -> None:
    value = await mine.stage.redis.hget(keys.grant(other.tag), field)
    assert value is not None
    await mine.stage.redis.hset(keys.grant(mine.tag), field, value)


async def exchange_terms(mine: Held, other: Held) -> None:
    await copy_field("terms", mine, other)


async def exchange_tokens(mine: Held, other: Held) -> None:
    await copy_field("tokens", mine, other)


async def swap_terms_and_tokens(mine: Held, _other: Held) -> None:
    redis, key = mine.stage.redis, keys.grant(mine.tag)
    terms, tokens = await redis.hmget(key, ["terms", "tokens"])
    await redis.hset(key, "terms", tokens)
    await redis.hset(key, "tokens", terms)


async def put_back_old_tokens(mine: Held, _other: Held) -> None:
    redis, key = mine.stage.redis, keys.grant(mine.tag)
    old = await redis.hget(key, "tokens")
    mine.stage.clock.advance(DUE)
    assert (await mine.read()).status_code == 200
    assert old is not None
    await redis.hset(key, "tokens", old)


async def turn_back_the_generation(mine: Held, _other: Held) -> None:
    mine.stage.clock.advance(DUE)
    assert (await mine.read()).status_code == 200
    await mine.stage.redis.hset(keys.grant(mine.tag), "generation", "1")


async def flip_a_bit(mine: Held, _other: Held) -> None:
    redis, key = mine.stage.redis, keys.grant(mine.tag)
    sealed = await redis.hget(key, "tokens")
    assert isinstance(sealed, bytes)
    await redis.hset(key, "tokens", sealed[:-1] + bytes([sealed[-1] ^ 1]))


async def key_of(held: Held, kind: str) -> str:
    (key,) = [key async for key in held.stage.redis.scan_iter(f"sb:{{{held.tag}}}:{kind}:*")]
    return str(key.decode())


async def rename_a_handle(mine: Held, other: Held) -> None:
    await mine.stage.redis.copy(await key_of(other, "handle"), await key_of(mine, "handle"), replace=True)


@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        (exchange_terms, "grant-terms"),
        (exchange_tokens, "grant-tokens"),
        (swap_terms_and_tokens, "grant-terms"),
        (put_back_old_tokens, "grant-tokens"),
        (turn_back_the_generation, "grant-terms"),
        (flip_a_bit, "grant-tokens"),
        (rename_a_handle, "handle"),
    ],
)
async def test_a_sealed_record_that_was_moved_opens_nothing_and_is_reported(
    held: Held, tamper: Callable[[Held, Held], Awaitable[None]], kind: str
) -> None:
    """HB-04."""
    other = await hold(held.stage, held.app)
    await tamper(held, other)
    before = upstream(held.stage.sandbox)

    answer = await held.read()

    assert (answer.status_code, code_of(answer)) == (503, "seal_broken")
    assert upstream(held.stage.sandbox) == before
    assert broken_seals(held) == [kind]
    assert (await other.read()).status_code == 200


async def test_a_refresh_handle_put_under_the_name_of_another_is_not_taken(held: Held) -> None:
    other, redis = await hold(held.stage, held.app), held.stage.redis
    await redis.copy(await key_of(other, "refresh"), await key_of(held, "refresh"), replace=True)

    answer = await held.app.token(grant_type="refresh_token", refresh_token=held.refresh_handle)

    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert broken_seals(held) == ["refresh"]


async def test_a_grant_whose_tokens_do_not_open_can_still_be_revoked(held: Held) -> None:
    await flip_a_bit(held, held)

    assert await held.stage.broker.revoke_grant(held.tag, cause="test") == "failed"

    assert (await held.grant()).state == "revoked"
    assert (await held.read()).status_code == 401
