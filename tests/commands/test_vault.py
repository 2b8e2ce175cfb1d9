"""`broker vault`: what an operator sees of the vault's keys, and does to them, beside a broker that serves."""

import asyncio
import base64
import json
import re
from functools import partial

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from redis.asyncio import Redis

from broker.app.vault import open_vault
from broker.cli import vault
from broker.errors import ConfigurationError
from broker.store import keys
from broker.vault import DomainRecords
from broker.vault.keyring import kek_name
from tests.commands.conftest import write_private
from tests.commands.program import Operator
from tests.stage import App, BrokerStage
from tests.stage.broker import KEY
from tests.stories.held import Held, hold

WHEN = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
NEWER = bytes(reversed(range(32)))
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def held(stage: BrokerStage, app: App) -> Held:
    return await hold(stage, app)


async def test_the_key_of_each_ehr_is_shown_and_of_what_is_no_ehrs(
    at_stage: Operator, held: Held, redis: Redis
) -> None:
    rows = (await at_stage.run("vault", "status", "--json", "--records")).json()
    key, often = rows[1]["key"], 2**31 + 1
    await redis.hset(keys.domain(key[:8]), f"seals:{key}", str(often))
    plain = await at_stage.run("vault", "status")

    assert [(row["tenant"], row["ehr"], row["state"]) for row in rows] == [
        ("default", None, "active"),
        ("default", "sandbox", "active"),
    ]
    assert {row["kek"] for row in rows} == {kek_name(KEY)}
    assert all(re.fullmatch(WHEN, row["made"]) and re.fullmatch("[0-9a-f]{16}", row["key"]) for row in rows)
    assert rows[1]["records"] >= 4
    assert base64.b64encode(KEY).decode() not in plain.out
    assert plain.out.splitlines()[0].split() == ["tenant", "ehr", "key", "state", "made", "since", "kek", "seals"]
    assert plain.err == f"default/sandbox: key {key} has sealed {often} times. Fix: broker vault rotate\n"


async def lines_of(process: asyncio.subprocess.Process, count: int) -> list[str]:
    """Read what it says first, then kill it."""
    assert process.stderr is not None
    lines = [(await process.stderr.readline()).decode() for _ in range(count)]
    process.kill()
    await process.communicate()
    return lines


async def test_a_rotation_that_is_killed_while_it_waits_leaves_everything_readable_and_goes_on(
    at_stage: Operator, held: Held, redis: Redis
) -> None:
    began, waits = await lines_of(await at_stage.start("vault", "rotate", "sandbox"), 2)

    assert re.match(r"default/sandbox: key [0-9a-f]{16} seals from now on", began)
    assert re.match(r"waiting (299|300) s, until no broker can write", waits)
    assert (await held.read()).status_code == 200
    states = [key.state async for key, _ in DomainRecords(redis).all("default") if key.domain.ehr]
    assert sorted(states) == ["active", "retiring"]
    goes_on, waits = await lines_of(await at_stage.start("vault", "rotate", "sandbox"), 2)
    assert goes_on.startswith("default/sandbox: going on, key ")
    assert re.match(r"waiting 2\d\d s, ", waits)


async def test_a_new_kek_takes_over_and_the_old_line_can_go(at_stage: Operator, held: Held) -> None:
    """The broker reads on: it has both lines, and the key at hand."""
    line, newer = base64.b64encode(KEY).decode(), base64.b64encode(NEWER).decode()
    write_private(at_stage.home / "kek", f"{newer}\n{line}\n")

    said = await at_stage.run("vault", "rotate", "--kek")

    assert said.status == 0, said.err
    assert said.out == (
        f"2 keys rewrapped, 0 left under another KEK than {kek_name(NEWER)}\n"
        f"{kek_name(KEY)} wraps nothing in the store any more; backups from before need it\n"
    )
    write_private(at_stage.home / "kek", newer)
    verified = await at_stage.run("vault", "verify", "--json")
    assert (verified.status, [row["kind"] for row in verified.json() if row["unreadable"]]) == (0, [])


async def test_records_are_verified_and_an_unreadable_one_is_named(
    at_stage: Operator, held: Held, redis: Redis
) -> None:

    whole = await at_stage.run("vault", "verify")
    await redis.hset(keys.grant(held.tag), "tokens", b"damaged")

    said = await at_stage.run("vault", "verify")

    assert (whole.status, said.status) == (0, 1)
    assert re.search(r"^grant-tokens +1 +0$", whole.out, re.MULTILINE)
    assert re.search(r"^grant-tokens +0 +1$", said.out, re.MULTILINE)
    assert said.err == f"unreadable: {keys.grant(held.tag)} tokens: it is no envelope\n"


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (None, {}),
        (["sandbox"], {"every": True}),
        (None, {"every": True, "kek": True}),
        (None, {"every": True, "new_version": True}),
        (["sandbox"], {"kek": True}),
    ],
)
def test_what_is_to_be_rotated_is_said_in_one_way(names: list[str] | None, options: dict[str, bool]) -> None:
    with pytest.raises(ConfigurationError, match="name EHRs, or say --all, or say --kek"):
        vault.rotate(names, **options)  # type: ignore[arg-type]  # these alone, by name


@pytest.fixture
def hasty(at_stage: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in this process, where nobody waits for brokers."""

    async def sleep(_: float) -> None:
        """Come back at once."""

    for name, text in at_stage.environ.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr(vault, "open_vault", partial(open_vault, sleep=sleep))


async def test_a_rotation_ends_with_a_count_that_proves_it(
    hasty: None, held: Held, capsys: pytest.CaptureFixture[str]
) -> None:
    await asyncio.to_thread(vault.rotate, ["sandbox", "default"], as_json=True)

    said = capsys.readouterr()
    rows = {row["ehr"]: row for row in json.loads(said.out)}
    assert rows.keys() == {"sandbox", None}
    assert all(row["rewrapped"] >= 2 and row["left"] == 0 and len(row["ended"]) == 1 for row in rows.values())
    assert said.err.splitlines()[-3].endswith(" records seen, 0 were under an old key and are rewrapped")
    assert (await held.read()).status_code == 200


@pytest.mark.parametrize("yes", ["", "sandbo", "default", "yes"])
async def test_a_shred_wants_the_name_once_more(hasty: None, held: Held, yes: str) -> None:
    with pytest.raises(ConfigurationError, match=r"sealed under 1 keys of sandbox, .* say --yes sandbox"):
        await asyncio.to_thread(vault.shred, ehr="sandbox", yes=yes)
    with pytest.raises(ConfigurationError, match="say --ehr EHR, or --tenant"):
        vault.shred(ehr="sandbox", tenant=True, yes="sandbox")

    assert (await held.read()).status_code == 200


async def test_a_shred_prints_its_certificate_and_says_what_it_cannot_reach(
    hasty: None, held: Held, capsys: pytest.CaptureFixture[str]
) -> None:
    published = (await held.app.http.get(f"{held.stage.public_url}/oauth/jwks")).json()["keys"][0]

    await asyncio.to_thread(vault.shred, ehr="sandbox", yes="sandbox")

    said = capsys.readouterr()
    claims = jwt.decode(said.out.strip(), RSAKey.import_key(published), algorithms=["RS256"]).claims
    assert (claims["iss"], claims["ehr"], claims["records_left"]) == (held.stage.public_url, "sandbox", 0)
    assert claims["records_deleted"]["grant"] == 1
    assert said.err.splitlines()[-3:] == [
        "a copy of Redis or a backup from before is still read by whoever has it and the KEK of then.",
        f"Fix: let these leave every copy of the keyring: {kek_name(KEY)}",
        "They wrap 1 other keys: put a new line first, and broker vault rotate --kek",
    ]
    assert (await held.read()).status_code == 401
    assert [key.state async for key, _ in DomainRecords(held.stage.redis).all("default") if key.domain.ehr] == ["gone"]
