"""`broker keys`: what an operator sees of signing keys, and does to them, beside a broker that serves."""

import re

import pytest

from tests.commands.program import Operator
from tests.stage import App, BrokerStage

WHEN = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


async def kids(stage: BrokerStage, app: App) -> list[str]:
    answer = await app.http.get(f"{stage.public_url}/jwks/sandbox-launch")
    return [key["kid"] for key in answer.json()["keys"]]


async def test_keys_are_listed_with_where_they_sign(at_stage: Operator, stage: BrokerStage, app: App) -> None:
    """RG-11."""
    await app.standalone()
    (kid,) = await kids(stage, app)

    listed = (await at_stage.run("keys", "list", "--json")).json()
    plain = await at_stage.run("keys", "list")

    (mine,) = [row for row in listed if row["registration"] == "sandbox-launch"]
    assert (mine["kid"], mine["algorithm"], mine["state"]) == (kid, "ES384", "active")
    assert mine["signs_at"] == ["sandbox"]
    assert re.fullmatch(WHEN, mine["since"])
    assert "1 EHRs" in plain.out
    assert "PRIVATE" not in plain.out


async def test_a_new_key_enters_the_set_and_the_old_one_goes_on_signing(
    at_stage: Operator, stage: BrokerStage, app: App
) -> None:
    """RG-11."""
    await app.standalone()
    (old,) = await kids(stage, app)

    said = await at_stage.run("keys", "rotate", "sandbox-launch", "--json")

    assert {row["kid"]: row["state"] for row in said.json()}[old] == "active"
    listed = (await at_stage.run("keys", "list", "--json")).json()
    states = {row["kid"]: row["state"] for row in listed if row["registration"] == "sandbox-launch"}
    assert sorted(states.values()) == ["active", "published"]
    again = await at_stage.run("keys", "rotate", "sandbox-launch")
    assert (again.status, "is waiting already" in again.err) == (1, True)


async def test_a_key_that_may_be_in_wrong_hands_leaves_the_set_at_once(
    at_stage: Operator, stage: BrokerStage, app: App
) -> None:
    await app.standalone()
    (old,) = await kids(stage, app)
    alone = await at_stage.run("keys", "retire", "sandbox-launch", old)
    assert alone.status == 1, "the only key cannot go"
    await at_stage.run("keys", "rotate", "sandbox-launch", "--now")

    said = await at_stage.run("keys", "retire", "sandbox-launch", old)

    assert said.status == 0
    listed = (await at_stage.run("keys", "list", "--json")).json()
    live = [row["kid"] for row in listed if row["registration"] == "sandbox-launch" and row["state"] != "retired"]
    assert old not in live
    assert len(live) == 1


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("rotate", "nobody"), "unknown registration"),
        (("retire", "sandbox-launch", "no-such-kid"), "no-such-kid"),
        (("retire", "sandbox-launch", "-_no-such-kid"), "-_no-such-kid"),
        (("retire", "sandbox-launch", "--no-such-kid"), "--no-such-kid"),
    ],
)
async def test_what_is_not_there_is_said(at_stage: Operator, app: App, arguments: tuple[str, ...], cause: str) -> None:
    await app.standalone()

    said = await at_stage.run("keys", *arguments)

    assert (said.status, cause in said.err) == (1, True), said.err
