"""`broker apps secret`, and the command itself."""

import hashlib
import re
import tomllib
from datetime import UTC, datetime

import pytest

from broker import __version__
from tests.commands.program import Operator
from tests.stage import App, BrokerStage
from tests.stage.broker import days_ahead

SECRET = r"sbs_[0-9A-Za-z]{49}"


async def test_a_secret_is_made_anew_each_time_and_needs_nothing(operator: Operator) -> None:
    alone = operator.but(BROKER_REDIS_URL_FILE=None, BROKER_KEK_FILE=None, BROKER_CONFIG=None)
    plain, as_json = await alone.run("apps", "secret"), (await alone.run("apps", "secret", "--json")).json()

    (secret,) = re.findall(SECRET, plain.out)
    ((table,),) = [app["secret"] for app in tomllib.loads("[[app]]\n" + plain.out.partition("table:\n")[2])["app"]]
    assert (plain.status, plain.err, table.keys()) == (0, "", {"hash", "expires"})
    for made, hashed in ((secret, table["hash"]), (as_json["secret"], as_json["hash"])):
        assert hashed == "sha256:" + hashlib.sha256(made.encode()).hexdigest()
    assert as_json["secret"] != secret
    assert table["expires"].isoformat() == as_json["expires"]
    assert 179 <= (table["expires"] - datetime.now(UTC).date()).days <= 180
    assert not (operator.home / "audit.jsonl").exists()


@pytest.mark.parametrize("days", ["0", "400", "-1", "ever"])
async def test_a_secret_expires_within_400_days(operator: Operator, days: str) -> None:
    said = await operator.run("apps", "secret", "--days", days)

    assert (said.status, said.out) == (2, "")


async def test_a_listing_says_what_apps_may_have_and_when_their_secrets_were_used(
    at_stage: Operator, stage: BrokerStage, reports: App
) -> None:
    before = (await at_stage.run("apps", "list", "--json")).json()
    await reports.token(grant_type="client_credentials", scope="system/Patient.rs", resource=reports.base)
    await stage.broker.last_used.close()

    chart, nightly = (await at_stage.run("apps", "list", "--json")).json()
    listed = await at_stage.run("apps", "list")

    assert (chart["app"], chart["authentication"], chart["secrets"]) == ("growth-chart", "none", [])
    assert (nightly["app"], nightly["authentication"]) == ("reports", "client_secret_basic")
    assert nightly["access"] == [
        {
            "registration": "sandbox-backend",
            "flow": "backend",
            "ehrs": ["sandbox"],
            "scopes": "system/Observation.rs system/Patient.rs",
        },
        {
            "registration": "sandbox-launch",
            "flow": "launch",
            "ehrs": ["sandbox"],
            "scopes": "launch/patient patient/Patient.rs",
        },
    ]
    (secret,) = nightly["secrets"]
    assert before[1]["secrets"] == [{**secret, "last_used": None}]
    assert (secret["expires"], secret["expired"]) == (f"{days_ahead(399)}T00:00:00Z", False)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert secret["last_used"].startswith(today)
    assert f"{secret['id']} until {days_ahead(399)}, used {today}" in listed.out
    assert (listed.status, listed.err) == (0, "")


async def test_help_names_every_command_and_needs_nothing(operator: Operator) -> None:
    said = await operator.but(BROKER_REDIS_URL_FILE=None, BROKER_KEK_FILE=None, BROKER_CONFIG=None).run("--help")

    assert (said.status, said.err) == (0, "")
    assert {"serve", "check", "grants", "handles", "apps"} <= set(said.out.split())


async def test_an_unknown_command_is_a_usage_error(operator: Operator) -> None:
    said = await operator.run("launch-missiles")

    assert (said.status, said.out) == (2, "")
    assert "No such command" in said.err


async def test_the_version_needs_nothing_but_the_program(operator: Operator) -> None:
    said = await operator.but(BROKER_REDIS_URL_FILE=None, BROKER_KEK_FILE=None, BROKER_CONFIG=None).run("--version")

    assert (said.status, said.out) == (0, f"broker {__version__}\n")
