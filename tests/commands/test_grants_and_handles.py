"""`broker grants` and `broker handles`: what an operator sees and ends, beside a broker that serves."""

import json
import re

import pytest

from sandbox.marks import MARK
from tests.commands.program import Operator, Said
from tests.stage import App, BrokerStage
from tests.stage.broker import APP_SECRET_TEXT
from tests.stories.test_exchange import exchanged

WHEN = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
ID = r"[0-9a-f]{16}"


def rows(said: Said) -> list[list[str]]:
    """A printed table, split where columns are."""
    assert (said.status, said.err) == (0, "")
    return [re.split(r" {2,}", line) for line in said.out.splitlines()]


async def test_grants_are_listed_for_people_and_for_programs(at_stage: Operator, app: App) -> None:
    tag = (await app.standalone())["access_token"][4:16]

    table = rows(await at_stage.run("grants", "list"))
    assert table[0] == ["grant", "health", "ehr", "app", "flow", "generation", "expires_at", "evidence"]
    assert [row[:6] for row in table[1:]] == [[tag, "healthy", "sandbox", "growth-chart", "launch", "1"]]

    (listed,) = (await at_stage.run("grants", "list", "--json")).json()
    assert re.fullmatch(WHEN, listed.pop("created_at"))
    assert re.fullmatch(WHEN, listed.pop("since"))
    assert re.fullmatch(WHEN, listed.pop("expires_at"))
    assert re.fullmatch(WHEN, listed.pop("health_since"))
    assert listed == {
        "grant": tag,
        "health": "healthy",
        "evidence": "generation 1",
        "action": "nothing",
        "state": "active",
        "ehr": "sandbox",
        "registration": "sandbox-launch",
        "app": "growth-chart",
        "flow": "launch",
        "generation": 1,
        "refreshable": True,
        "cause": None,
    }


async def test_a_grant_is_refreshed_by_an_operator(at_stage: Operator, app: App, stage: BrokerStage) -> None:
    tag = (await app.standalone())["access_token"][4:16]

    said = await at_stage.run("grants", "refresh", tag)

    assert said.out.startswith(f"{tag}: generation 2, healthy; its token ends at ")
    assert stage.sandbox.counts()["token.refresh_token"] == 1


async def test_an_uncertain_grant_is_refreshed_by_an_operators_word_alone(
    at_stage: Operator, app: App, stage: BrokerStage
) -> None:
    """RF-05."""
    tag = (await app.standalone())["access_token"][4:16]
    stage.sandbox.fault("token_drop_before")
    lost = await at_stage.run("grants", "refresh", tag)
    sent = stage.sandbox.counts()["token.refresh_token"]

    again = await at_stage.run("grants", "refresh", tag)
    assert (lost.status, again.status) == (1, 1)
    assert "is uncertain" in again.err
    assert "--even-uncertain" in again.err
    assert stage.sandbox.counts()["token.refresh_token"] == sent

    said = await at_stage.run("grants", "refresh", tag, "--even-uncertain", "--json")
    assert said.json()[0]["generation"] == 2


async def test_nothing_to_list_is_said_beside_the_table(at_stage: Operator) -> None:
    said = await at_stage.run("grants", "list")
    assert (said.status, said.err) == (0, "(none)\n")
    assert said.out.startswith("grant ")
    assert (await at_stage.run("handles", "list", "--json")).json() == []


async def test_a_grant_is_shown_with_its_live_handles(at_stage: Operator, app: App) -> None:
    tag = (await app.standalone())["access_token"][4:16]

    shown = (await at_stage.run("grants", "show", tag)).out
    assert re.search(rf"^grant +{tag}$", shown, re.MULTILINE)
    assert re.search(r"^cause +-$", shown, re.MULTILINE)
    assert re.search(r"^scopes +.*patient/\*\.rs$", shown, re.MULTILINE)

    (one,) = (await at_stage.run("grants", "show", tag, "--json")).json()
    (handle,) = one["handles"]
    assert re.fullmatch(ID, handle["handle"])
    assert re.fullmatch(WHEN, handle["expires_at"])
    assert handle["app"] == "growth-chart"
    assert (one["scope_assumed"], one["context_missing"], one["expected_end"]) == (False, False, None)
    assert re.fullmatch(WHEN, one["last_used"])
    assert "differences" not in one


async def test_what_is_odd_about_a_grant_is_shown(at_stage: Operator, stage: BrokerStage, app: App) -> None:
    """Q4, CX-10, RF-13."""
    edit = {"set": {"refresh_token_expires_in": 86_400}, "drop": ["scope", "patient"]}
    stage.sandbox.fault("token_members", **edit)
    tag = (await app.standalone())["access_token"][4:16]

    (one,) = (await at_stage.run("grants", "show", tag, "--json")).json()

    assert (one["scope_assumed"], one["context_missing"]) == (True, True)
    assert re.fullmatch(WHEN, one["expected_end"])


async def test_an_ehr_is_asked_about_a_grant_on_demand(at_stage: Operator, stage: BrokerStage, app: App) -> None:
    """IN-02, IN-05."""
    tag = (await app.standalone())["access_token"][4:16]

    (one,) = (await at_stage.run("grants", "show", tag, "--introspect", "--json")).json()
    assert one["differences"] == []
    again = await at_stage.run("grants", "show", tag, "--introspect")
    assert (again.status, again.err) == (1, "broker: invalid_request: introspected a moment ago\n")
    assert len(stage.sandbox.journal("introspect")) == 1


async def test_where_the_broker_can_end_nothing_at_the_ehr_the_person_is_told_where(
    at_stage: Operator, stage: BrokerStage, app: App
) -> None:
    """IN-07."""
    place = f"{stage.sandbox.origin}/my-apps"
    stage.sandbox.fault("discovery_members", times=-1, set={"management_endpoint": place}, drop=["revocation_endpoint"])
    tag = (await app.standalone())["access_token"][4:16]

    said = await at_stage.run("grants", "revoke", tag)

    assert said.out == f"{tag} is revoked; at the EHR: local_only\nthe person can end it at the EHR: {place}\n"


@pytest.mark.parametrize("as_json", [False, True])
async def test_a_revoked_grant_ends_here_at_once_and_at_the_ehr(
    at_stage: Operator, stage: BrokerStage, app: App, *, as_json: bool
) -> None:
    """HB-08, HB-09, IN-06."""
    answer = await app.standalone()
    tag, path = answer["access_token"][4:16], f"Patient/{answer['patient']}"

    said = await at_stage.run("grants", "revoke", tag, *(["--json"] if as_json else []))

    assert (said.status, said.err) == (0, "")
    if as_json:
        assert said.json() == [{"grant": tag, "state": "revoked", "at_ehr": "revoked"}]
    else:
        assert said.out == f"{tag} is revoked; at the EHR: revoked\n"
    assert (await app.fhir(answer["access_token"], path)).status_code == 401
    assert (await stage.broker.grants.read(tag)).cause == "revoked by an operator"
    assert stage.sandbox.counts()["revoke"] == 1
    audit = [json.loads(line) for line in (at_stage.home / "audit.jsonl").read_text().splitlines()]
    assert [(line["event"], line["reason"]) for line in audit] == [
        ("grant.revoke", "revoking: revoked by an operator"),
        ("grant.revoke", "revoked: revoked by an operator"),
    ]


async def test_handles_are_listed_and_one_is_ended_without_the_others(at_stage: Operator, app: App) -> None:
    first, second = await app.standalone(), await app.standalone()
    tags = {answer["access_token"][4:16]: answer for answer in (first, second)}

    table = rows(await at_stage.run("handles", "list"))
    assert table[0] == ["handle", "grant", "app", "ehr", "expires_at", "scopes", "limits"]
    assert {row[1] for row in table[1:]} == set(tags)
    listed = (await at_stage.run("handles", "list", "--json")).json()
    assert {(row["app"], row["ehr"], row["grant"]) for row in listed} == {
        ("growth-chart", "sandbox", tag) for tag in tags
    }
    assert [row["limits"] for row in listed] == ["", ""]
    ended = next(row["handle"] for row in listed if row["grant"] == first["access_token"][4:16])

    said = await at_stage.run("handles", "revoke", ended)

    assert (said.status, said.out, said.err) == (0, f"{ended} is revoked\n", "")
    assert (await app.fhir(first["access_token"], f"Patient/{first['patient']}")).status_code == 401
    assert (await app.fhir(second["access_token"], f"Patient/{second['patient']}")).status_code == 200


async def test_what_limits_a_handle_is_listed_by_name(at_stage: Operator, app: App) -> None:
    given = await app.standalone()
    await exchanged(app, given["access_token"], read_only="true", max_count="5")

    listed = (await at_stage.run("handles", "list", "--json")).json()

    assert {row["limits"] for row in listed} == {"", "max_count read_only"}


@pytest.mark.parametrize(
    "arguments",
    [("grants", "show", "no-such-grant"), ("grants", "revoke", "no-such-grant"), ("handles", "revoke", "0" * 16)],
)
async def test_what_is_not_there_is_one_line_and_status_1(at_stage: Operator, arguments: tuple[str, ...]) -> None:
    said = await at_stage.run(*arguments, "--json")

    assert (said.status, said.out) == (1, "")
    assert re.fullmatch(rf"broker: not_found: .*{arguments[-1]}\n", said.err)


async def test_no_command_prints_a_token_a_handle_a_patient_or_a_key(
    at_stage: Operator, stage: BrokerStage, app: App, reports: App
) -> None:
    """HB-07, TR-09."""
    answer = await app.standalone()
    ask = {"grant_type": "client_credentials", "scope": "system/Patient.rs", "resource": reports.base}
    other = (await reports.token(**ask)).json()
    tag = answer["access_token"][4:16]

    for form in ([], ["--json"]):
        await at_stage.run("grants", "list", *form)
        await at_stage.run("handles", "list", *form)
        await at_stage.run("grants", "show", tag, *form)
        await at_stage.run("check", *form)
    await at_stage.run("grants", "revoke", tag)

    printed = "".join(said.out + said.err for said in at_stage.heard)
    printed += (at_stage.home / "audit.jsonl").read_text()
    url = (at_stage.home / "redis-url").read_text()
    secrets = {
        answer["access_token"],
        answer["refresh_token"],
        answer["patient"],
        other["access_token"],
        APP_SECRET_TEXT,
        MARK,  # in everything the sandbox issues
        (at_stage.home / "kek").read_text(),
        url.partition("@")[0].removeprefix("unix://:"),
    }
    assert len(at_stage.heard) == 9
    assert {said.status for said in at_stage.heard} == {0}
    assert tag in printed
    assert not [secret for secret in secrets if secret in printed]


async def test_a_link_to_authorize_again_is_printed_once_and_alone_on_standard_output(
    at_stage: Operator, app: App, stage: BrokerStage
) -> None:
    tag = (await app.standalone())["access_token"][4:16]

    said = await at_stage.run("grants", "reauthorize", tag)
    (told,) = (await at_stage.run("grants", "reauthorize", tag, "--lifetime", "300", "--json")).json()

    assert re.fullmatch(rf"{stage.public_url}/reauthorize/sba_{tag}[0-9A-Za-z]{{49}}\n", said.out)
    assert re.fullmatch(rf"give it to the person that {tag} is about; it works once, until {WHEN}\n", said.err)
    assert (told["grant"], told["handles"]) == (tag, 2)
    assert (await app.http.get(told["url"])).status_code == 200
    assert said.out.strip() not in (at_stage.home / "audit.jsonl").read_text()


async def test_no_link_is_made_for_a_revoked_grant(at_stage: Operator, app: App) -> None:
    tag = (await app.standalone())["access_token"][4:16]
    await at_stage.run("grants", "revoke", tag)

    said = await at_stage.run("grants", "reauthorize", tag)

    assert (said.status, said.out) == (1, "")
    assert said.err == f"broker: invalid_request: grant {tag} is revoked: it was ended here\n"


async def test_the_next_week_is_forecast_for_people_and_for_programs(
    at_stage: Operator, app: App, stage: BrokerStage
) -> None:
    """RF-13."""
    await app.standalone()
    stage.sandbox.fault("token_members", set={"refresh_token_expires_in": 86_400})
    await app.standalone()

    said = await at_stage.run("grants", "forecast")
    (found,) = (await at_stage.run("grants", "forecast", "--days", "30", "--json")).json()

    first, header, line = said.out.splitlines()
    assert first == "1 of 2 grants end within 7 days"
    assert re.split(r" {2,}", header) == ["ehr", "grants", "over", "first_end", "because"]
    assert re.fullmatch(rf"sandbox +1 +- +{WHEN} +the EHR said so", line)
    assert said.err == "of 1 grants nothing tells when they end\n"
    (told,) = found.pop("lines")
    assert found == {"days": 30, "ending": 1, "living": 2, "unknown": 1, "unreadable": 0}
    assert re.fullmatch(WHEN, told.pop("first_end"))
    assert told == {"ehr": "sandbox", "basis": "said", "because": "the EHR said so", "grants": 1, "over": 0}
