"""`broker registrations secret`: an EHR's client secret is replaced by hand, and none is ever printed."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.commands.program import Operator, Said
from tests.stage import BrokerStage, Sandbox, open_stage

NEW = "canary-new-secret-2/7+"


@pytest.fixture
async def by_secret(operator: Operator, sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[Operator]:
    async with open_stage(sandbox, redis, tmp_path, authentication="client_secret_basic") as stage:
        (operator.home / "broker.toml").write_text((stage.state / "broker.toml").read_text())
        yield operator.but(**secrets_of(stage))


def secrets_of(stage: BrokerStage) -> dict[str, str | None]:
    """What the file refers to as `env:NAME`."""
    text = (stage.state / "broker.toml").read_text()
    named = {part.partition('"')[0] for part in text.split("env:")[1:]}
    return dict.fromkeys(named, "an old secret of the ehr's")


async def add(operator: Operator, *options: str, text: str = NEW, registration: str = "sandbox-launch") -> Said:
    return await operator.run("registrations", "secret", "add", registration, *options, told=text)


async def test_a_secret_is_added_listed_and_retired_and_never_printed(by_secret: Operator) -> None:
    said = await add(by_secret, "--expires", "2099-12-31")
    added = said.out.strip()
    assert (said.status, len(added)) == (0, 12)

    rows = (await by_secret.run("registrations", "secret", "list", "sandbox-launch", "--json")).json()
    assert [(row["origin"], row["expires"], row["accepted"]) for row in rows] == [
        ("broker.toml", None, None),
        ("added", "2099-12-31", None),
    ]
    assert rows[1]["secret"] == added

    assert (await by_secret.run("registrations", "secret", "retire", "sandbox-launch", added)).status == 0
    left = (await by_secret.run("registrations", "secret", "list", "sandbox-launch", "--json")).json()
    assert [row["origin"] for row in left] == ["broker.toml"]
    assert not [one for one in by_secret.heard if NEW in one.out + one.err]


@pytest.mark.parametrize(
    ("text", "registration", "says"),
    [
        ("", "sandbox-launch", "no secret on standard input"),
        ("two\nlines", "sandbox-launch", "no secret on standard input"),
        ("x" * 4097, "sandbox-launch", "no secret on standard input"),
        (NEW, "sandbox-backend", "sandbox-backend authenticates by private_key_jwt, not by a secret"),
        (NEW, "nobody", "unknown registration"),
    ],
    ids=["empty", "two lines", "too long", "a key's", "unknown"],
)
async def test_what_is_no_secret_is_refused_with_the_fix(
    by_secret: Operator, text: str, registration: str, says: str
) -> None:
    said = await add(by_secret, text=text, registration=registration)

    assert (said.status, said.out) == (1, "")
    assert says in said.err
    assert NEW not in said.err


async def test_a_secret_of_the_file_is_retired_in_the_file(by_secret: Operator) -> None:
    (row,) = (await by_secret.run("registrations", "secret", "list", "sandbox-launch", "--json")).json()

    said = await by_secret.run("registrations", "secret", "retire", "sandbox-launch", row["secret"])

    assert said.status == 1
    assert "broker.toml's are taken out there" in said.err


async def test_the_check_warns_of_a_secret_that_soon_is_over(by_secret: Operator) -> None:
    """(RG-11)"""
    soon = datetime.now(UTC) + timedelta(days=9)
    await add(by_secret, "--expires", f"{soon:%Y-%m-%d}")

    findings = (await by_secret.run("check", "--json")).json()

    (text,) = [one["text"] for one in findings if one["part"] == "secret"]
    assert "expires in" in text
    assert text.endswith("Fix: broker registrations secret add sandbox-launch")
