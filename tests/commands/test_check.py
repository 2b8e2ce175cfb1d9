"""`broker check`: everything that would stop a start, in one go."""

import re
from pathlib import Path

import pytest

from broker.store.embedded import EmbeddedServer
from tests.commands.program import Operator
from tests.stage import BrokerStage
from tests.stage.broker import days_ahead

FAULTY = """public_url = "http://broker.example.org"

[[ehr]]
id = "general"
fhir_base = "https://fhir.example.org/r4"
unknown_key = 1

[[registration]]
id = "general-launch"
ehr = "genral"
flow = "launch"
client_id = "broker"
authentication = "client_secret_basic"
client_secret = "literally-the-secret"
scopes = "patient/*.rs"
"""
CROSSED = """public_url = "http://broker.example.org"

[[ehr]]
id = "general"
fhir_base = "https://fhir.example.org/r4"

[[registration]]
id = "general-launch"
ehr = "genral"
flow = "launch"
client_id = "broker"
scopes = "patient/Patient.rs"

[[app]]
id = "chart"
authentication = "none"
redirect_uris = ["http://chart.example.org/callback"]

[[app.access]]
registration = "general-launch"
scopes = "patient/*.cruds"
"""


async def test_a_sound_deployment_passes_part_by_part(at_stage: Operator, stage: BrokerStage) -> None:
    said = await at_stage.run("check", "--json")

    assert (said.status, said.err) == (0, "")
    found = {(finding["part"], finding["level"]) for finding in said.json()}
    assert {("broker.toml", "ok"), ("key", "ok"), ("store", "ok"), ("ehr", "ok")} <= found
    assert "fault" not in {level for _, level in found}
    assert any("1 EHRs, 2 registrations, 2 apps" in finding["text"] for finding in said.json())


async def test_the_same_is_said_to_people(at_stage: Operator) -> None:
    said = await at_stage.run("check")

    assert (said.status, said.err) == (0, "")
    assert re.search(r"^ok +store +Valkey \d", said.out, re.MULTILINE)
    assert re.search(r"^ok +ehr +sandbox: token endpoint found by smart-configuration$", said.out, re.MULTILINE)
    assert re.search(r"^warning +broker\.toml +allow_loopback_http", said.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (
            FAULTY,
            {
                "6: ehr[1].unknown_key: unknown key 'unknown_key'",
                "14: registration[1].client_secret: a secret never stands in the file itself",
            },
        ),
        (
            CROSSED,
            {
                "1: public_url: http://broker.example.org is plain http",
                "9: registration[1].ehr: there is no EHR 'genral'; defined: general",
                "17: app[1].redirect_uris: http://chart.example.org/callback is plain http",
                "21: app[1].access[1].scopes: patient/*.cruds is more than registration 'general-launch'",
            },
        ),
        ("public_url = [", {" not TOML: "}),
        ("", {"1: public_url: is missing", "1: ehr: is missing", "1: registration: is missing"}),
    ],
    ids=["keys", "references", "syntax", "empty"],
)
async def test_every_fault_is_found_in_one_go_with_its_line(operator: Operator, text: str, faults: set[str]) -> None:
    (operator.home / "broker.toml").write_text(text)

    said = await operator.but(BROKER_KEK_FILE=None).run("check", "--offline", "--json")

    assert said.status == 78
    found = [finding["text"] for finding in said.json() if finding["part"] == "broker.toml"]
    assert {finding["level"] for finding in said.json()} == {"fault"}
    assert len(found) == len(faults), found
    for fault in faults:
        assert any(one.removeprefix(f"{operator.home}/broker.toml:").startswith(fault) for one in found), (fault, found)
    assert [finding["part"] for finding in said.json()][-1] == "key"
    assert "literally-the-secret" not in said.out


async def test_offline_asks_neither_store_nor_ehr(at_stage: Operator, stage: BrokerStage, tmp_path: Path) -> None:
    before = len(stage.sandbox.journal())
    (tmp_path / "nowhere").write_text("redis://127.0.0.1:1/0")

    said = await at_stage.but(BROKER_REDIS_URL_FILE=str(tmp_path / "nowhere")).run("check", "--offline", "--json")

    assert said.status == 0
    assert {finding["part"] for finding in said.json()} == {"broker.toml", "key"}
    assert len(stage.sandbox.journal()) == before


async def test_a_store_and_an_ehr_that_do_not_answer_are_faults(
    at_stage: Operator, stage: BrokerStage, tmp_path: Path
) -> None:
    (tmp_path / "nowhere").write_text("redis://:canary-password@127.0.0.1:1/0")
    stage.sandbox.fault("discovery_500")

    said = await at_stage.but(BROKER_REDIS_URL_FILE=str(tmp_path / "nowhere")).run("check", "--json")

    assert said.status == 78
    faults = {finding["part"]: finding["text"] for finding in said.json() if finding["level"] == "fault"}
    assert faults["store"].startswith("store_unavailable: ")
    assert faults["ehr"].startswith("sandbox: ehr_unreachable: ")
    assert "canary-password" not in said.out + said.err


async def test_an_environment_that_cannot_be_read_is_told_line_by_line(
    operator: Operator, valkey: EmbeddedServer
) -> None:
    said = await operator.but(BROKER_PORT="70000", BROKER_TYPO="1", BROKER_REDIS_URL=valkey.url().reveal()).run("check")

    assert said.status == 78
    lines = said.out.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("fault    environment  BROKER_") for line in lines)
    assert valkey.url().reveal() not in said.out


async def test_secrets_that_end_and_apps_that_cannot_authenticate_are_found(
    at_stage: Operator, stage: BrokerStage
) -> None:
    config = at_stage.home / "broker.toml"
    table = '\n[[app]]\nid = "etl"\nauthentication = "tls_client_auth"\ntls_client_auth_san_dns = "etl.example"\n'
    config.write_text(config.read_text().replace(f"expires = {days_ahead(399)}", f"expires = {days_ahead(3)}") + table)

    said = await at_stage.run("check", "--offline", "--json")
    declared = at_stage.but(BROKER_CLIENT_CERTIFICATE_HEADER="Client-Cert", BROKER_FORWARDED_ALLOW_IPS="10.0.0.1")

    assert said.status == 78
    texts = {finding["level"]: finding["text"] for finding in said.json() if finding["part"] == "broker.toml"}
    assert texts["fault"].startswith("app etl authenticates by tls_client_auth, and no proxy is declared")
    assert re.fullmatch(r"app reports: secret \w{8} expires in [23] days. Fix: broker apps secret", texts["warning"])
    assert (await declared.run("check", "--offline")).status == 0
