"""What `broker check` says of the keys in the store."""

from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from broker.cli.check_keys import check_keys, key_findings
from broker.cli.finding import Level
from broker.kms.moving import MovingKeys
from broker.store.embedded import EmbeddedServer
from broker.vault import Domain, LocalKeyring, WrappedKey
from broker.vault.domain_key import DomainKey
from tests.stage.vault import KEY, UnsteadyKek
from tests.vault.stock import Stock

NEWER = bytes(reversed(range(32)))
A, B = "local:aaaaaaaaaaaaaaaa", "local:bbbbbbbbbbbbbbbb"
KEY_A = DomainKey(bytes(8), Domain("t", "epic"), "active", WrappedKey(A, b""), 1.0, 1.0, (A,))
KEY_B = replace(KEY_A, id=bytes(7) + b"b", domain=Domain("t"), wrapped=WrappedKey(B, b""))
AT_KMS = replace(KEY_A, wrapped=WrappedKey("transit:broker.t.epic:1", b""))
MISSING = "which is not on the keyring: nothing of theirs opens"
BACK = "Fix: put that line back"
REWRAP = "Fix: broker vault rotate --kek"


@pytest.mark.parametrize(
    ("found", "lines", "moves", "said"),
    [
        ([KEY_A], [A], False, []),
        ([KEY_A, KEY_B], [A, B], False, [("warning", f"1 keys are under {B} still. {REWRAP}")]),
        ([KEY_A], [A], True, [("warning", f"1 keys are under {A} still. {REWRAP}")]),
        ([AT_KMS], [], True, []),
        ([AT_KMS], [A], True, []),
        (
            [KEY_A, KEY_B],
            [B],
            False,
            [
                (
                    "fault",
                    f"1 keys in the store are under {A}, {MISSING}. {BACK}",
                )
            ],
        ),
        (
            [KEY_A, replace(KEY_A, id=bytes(7) + b"2", state="retiring")],
            [A],
            False,
            [
                (
                    "warning",
                    "a rotation of t/epic is under way, or was cut off. Fix: run broker vault rotate again, it goes on",
                )
            ],
        ),
        ([], [A], False, []),
    ],
)
def test_what_would_not_open_or_is_not_done_is_said_with_its_fix(
    found: list[DomainKey], lines: list[str], *, moves: bool, said: list[tuple[Level, str]]
) -> None:
    assert [(one.level, one.text) for one in key_findings(found, lines, moves=moves)] == said


async def test_the_keys_of_a_store_are_read_and_nobody_is_asked_to_unwrap_them(
    redis: Redis, valkey: EmbeddedServer, tmp_path: Path
) -> None:
    await Stock(redis, tmp_path).fill("epic", [1])
    service = UnsteadyKek(NEWER)
    service.down()

    async def levels(kek: LocalKeyring | MovingKeys, tenant: str = "t") -> list[Level]:
        return [finding.level async for finding in check_keys(valkey.url(), kek, tenant)]

    assert await levels(LocalKeyring([KEY])) == []
    assert await levels(LocalKeyring([NEWER, KEY])) == ["warning"]
    assert await levels(LocalKeyring([NEWER])) == ["fault"]
    assert await levels(LocalKeyring([NEWER]), tenant="another") == []
    assert await levels(MovingKeys(service, LocalKeyring([KEY]))) == ["warning"]
