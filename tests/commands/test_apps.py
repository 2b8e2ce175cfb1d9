"""`broker apps secret`, and the command itself."""

import hashlib
import re

from tests.commands.program import Operator

SECRET = r"sbs_[0-9A-Za-z]{49}"


async def test_a_secret_is_made_anew_each_time_and_needs_nothing(operator: Operator) -> None:
    alone = operator.but(BROKER_REDIS_URL_FILE=None, BROKER_KEK_FILE=None, BROKER_CONFIG=None)
    plain, as_json = await alone.run("apps", "secret"), (await alone.run("apps", "secret", "--json")).json()

    secret, digest = re.findall(SECRET, plain.out), re.findall(r'secret_hash = "(sha256:[0-9a-f]{64})"', plain.out)
    assert (plain.status, plain.err, len(secret), len(digest)) == (0, "", 1, 1)
    for made, hashed in ((secret[0], digest[0]), (as_json["secret"], as_json["secret_hash"])):
        assert hashed == "sha256:" + hashlib.sha256(made.encode()).hexdigest()
    assert as_json["secret"] != secret[0]
    assert not (operator.home / "audit.jsonl").exists()


async def test_help_names_every_command_and_needs_nothing(operator: Operator) -> None:
    said = await operator.but(BROKER_REDIS_URL_FILE=None, BROKER_KEK_FILE=None, BROKER_CONFIG=None).run("--help")

    assert (said.status, said.err) == (0, "")
    assert {"serve", "check", "grants", "handles", "apps"} <= set(said.out.split())


async def test_an_unknown_command_is_a_usage_error(operator: Operator) -> None:
    said = await operator.run("launch-missiles")

    assert (said.status, said.out) == (2, "")
    assert "No such command" in said.err
