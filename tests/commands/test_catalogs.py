"""`broker ehrs import|enable|disable`: thousands of endpoints become EHRs that nobody uses until somebody looks."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from broker.catalog import Catalog, parse
from broker.egress import Egress
from broker.errors import ConfigurationError
from broker.flows import import_ehrs
from tests.commands.program import Operator, Said
from tests.ehr.server import reply, scripted_server
from tests.stage import Sandbox

LOOPBACK = "--allow-loopback-http"


async def bring(operator: Operator, source: str, *more: str, status: int = 0) -> Said:
    said = await operator.run("ehrs", "import", source, "--catalog", "ehrs/all.json", LOOPBACK, *more)
    assert said.status == status, said.err
    return said


async def bring_one(operator: Operator) -> str:
    (operator.home / "list.json").write_text(bundle("Clinic", "https://clinic.example/r4"))
    await bring(operator, "list.json")
    (name,) = rows(operator)
    return name


def rows(operator: Operator) -> dict[str, Any]:
    found = parse((operator.home / "ehrs" / "all.json").read_text())
    return {entry.id: entry for entry in found.ehrs}


def bundle(name: str, address: str) -> str:
    endpoint = {"resourceType": "Endpoint", "id": "e", "status": "active", "name": name, "address": address}
    return json.dumps({"resourceType": "Bundle", "entry": [{"fullUrl": "urn:e", "resource": endpoint}]})


async def test_thousands_of_endpoints_are_imported_in_seconds_and_all_disabled(
    operator: Operator, sandbox: Sandbox
) -> None:
    """(BR-05, EP-01)"""
    began = time.monotonic()
    said = await bring(operator, f"{sandbox.origin}/endpoints.json?count=5000", "--profile", "epic")

    assert "5000 added, 0 changed, 0 no longer listed, 0 left out; 5000 EHRs in all" in said.out
    assert time.monotonic() - began < 15  # it takes about two seconds
    assert not any(entry.enabled for entry in rows(operator).values())
    assert {entry.profile for entry in rows(operator).values()} == {"epic"}


async def test_a_source_that_says_it_is_unchanged_is_not_read_again(operator: Operator, sandbox: Sandbox) -> None:
    """(BR-01)"""
    source = f"{sandbox.origin}/endpoints.json?count=3"
    await bring(operator, source)
    before = (operator.home / "ehrs" / "all.json").read_bytes()

    assert (await bring(operator, source)).out == "the source has not changed\n"
    assert (operator.home / "ehrs" / "all.json").read_bytes() == before


async def test_a_changed_address_is_shown_and_takes_an_enabled_ehr_out_of_use(
    operator: Operator, sandbox: Sandbox
) -> None:
    """(BR-05, DS-15)"""
    (operator.home / "list.json").write_text(bundle("Clinic", "https://clinic.example/r4"))
    await bring(operator, "list.json")
    (name,) = rows(operator)
    enabled = await operator.run("ehrs", "enable", name, "--catalog", "ehrs/all.json")
    assert (enabled.status, rows(operator)[name].enabled) == (0, True)

    (operator.home / "list.json").write_text(bundle("Clinic", "https://elsewhere.example/r4"))
    dry = await bring(operator, "list.json", "--dry-run")
    assert rows(operator)[name].fhir_base == "https://clinic.example/r4"
    said = await bring(operator, "list.json")

    change = f"~ {name}  fhir_base: https://clinic.example/r4 -> https://elsewhere.example/r4"
    assert change in dry.out.splitlines()
    assert change in said.out.splitlines()
    assert f"{name} was enabled and has another address now, so it is disabled" in said.out
    assert not rows(operator)[name].enabled


async def test_an_ehr_can_be_taken_out_of_use(operator: Operator) -> None:
    (operator.home / "list.json").write_text(bundle("Clinic", "https://clinic.example/r4"))
    await bring(operator, "list.json")
    (name,) = rows(operator)
    await operator.run("ehrs", "enable", name, "--catalog", "ehrs/all.json")

    assert (await operator.run("ehrs", "disable", name, "--catalog", "ehrs/all.json")).status == 0
    assert not rows(operator)[name].enabled


async def test_what_an_ehr_says_of_itself_beats_what_a_vendor_lists(operator: Operator, sandbox: Sandbox) -> None:
    """(BR-02, BR-03)"""
    own = await bring(operator, f"{sandbox.fhir_base}/.well-known/smart-configuration", "--json")
    (added,) = own.json()["added"]
    assert (added["name"], added["fhir_base"], added["own"]) == ("Lakeside Health", sandbox.fhir_base, True)
    assert own.json()["left_out"] == []

    (operator.home / "vendor.json").write_text(bundle("What the vendor calls it", sandbox.fhir_base))
    vendors = await bring(operator, "vendor.json", "--json")

    assert vendors.json()["changed"] == []
    assert rows(operator)[added["id"]].name == "Lakeside Health"


async def test_an_ambiguous_brand_is_reported(operator: Operator, sandbox: Sandbox) -> None:
    """(BR-03)"""
    nobody = {"system": "urn:ietf:rfc:3986", "value": "https://nobody.example"}
    sandbox.fault("discovery_members", set={"user_access_brand_identifier": nobody})
    said = await bring(operator, f"{sandbox.fhir_base}/.well-known/smart-configuration")

    assert "! user_access_brand_identifier fits 0 Organizations, not one (BR-03)" in said.out.splitlines()


@pytest.mark.parametrize(
    ("text", "cause"),
    [("<html>", "is not a JSON object"), ('{"resourceType": "Patient"}', "not a FHIR Bundle with entries")],
)
async def test_what_is_no_list_changes_nothing(operator: Operator, text: str, cause: str) -> None:
    (operator.home / "list.json").write_text(bundle("Clinic", "https://clinic.example/r4"))
    await bring(operator, "list.json")
    before = (operator.home / "ehrs" / "all.json").read_bytes()
    (operator.home / "broken.json").write_text(text)
    said = await operator.run("ehrs", "import", "broken.json", "--catalog", "ehrs/all.json")

    assert said.status != 0
    assert cause in said.err
    assert (operator.home / "ehrs" / "all.json").read_bytes() == before


async def test_plain_http_is_read_only_when_that_is_said(operator: Operator, sandbox: Sandbox) -> None:
    """(TK-08, DS-15)"""
    source = f"{sandbox.origin}/endpoints.json?count=3"
    said = await operator.run("ehrs", "import", source, "--catalog", "ehrs/all.json")

    assert (said.status, "not https" in said.err) == (1, True)
    assert not (operator.home / "ehrs").exists()


async def test_an_id_that_no_catalog_holds_is_named(operator: Operator) -> None:
    (operator.home / "list.json").write_text(bundle("Clinic", "https://clinic.example/r4"))
    await bring(operator, "list.json")
    said = await operator.run("ehrs", "enable", "nowhere", "--catalog", "ehrs/all.json")

    assert (said.status, "no catalog holds nowhere" in said.err) == (78, True)


async def test_all_that_is_listed_is_enabled_at_once_and_all_is_disabled_at_once(
    operator: Operator, sandbox: Sandbox
) -> None:
    """(EP-01, BR-05)"""
    await bring(operator, f"{sandbox.origin}/endpoints.json?count=30")
    (operator.home / "list.json").write_text(bundle("Clinic", "https://clinic.example/r4"))
    await bring(operator, "list.json")  # the thirty are not listed there

    said = await operator.run("ehrs", "enable", "--all", "--catalog", "ehrs/all.json")
    (name,) = (entry.id for entry in rows(operator).values() if entry.enabled)
    assert (said.status, rows(operator)[name].name) == (0, "Clinic")
    assert f"enabled {name}; restart the broker" in said.out

    await bring(operator, f"{sandbox.origin}/endpoints.json?count=30")
    said = await operator.run("ehrs", "enable", "--all", "--catalog", "ehrs/all.json")
    assert "enabled 30 EHRs; restart the broker" in said.out
    assert sum(entry.enabled for entry in rows(operator).values()) == 31

    said = await operator.run("ehrs", "disable", "--all", "--catalog", "ehrs/all.json")
    assert "disabled 31 EHRs; restart the broker" in said.out
    assert not any(entry.enabled for entry in rows(operator).values())


@pytest.mark.parametrize("given", [[], ["clinic", "--all"]])
@pytest.mark.parametrize("command", ["enable", "disable"])
async def test_which_ehrs_are_meant_is_said_once(operator: Operator, command: str, given: list[str]) -> None:
    await bring_one(operator)
    said = await operator.run("ehrs", command, *given, "--catalog", "ehrs/all.json")

    assert (said.status, "it is not said which EHRs" in said.err) == (78, True)


async def test_ehrs_are_imported_for_an_environment(operator: Operator) -> None:
    """(EP-02)"""
    (operator.home / "list.json").write_text(bundle("Clinic", "https://clinic.example/r4"))
    await bring(operator, "list.json", "--environment", "non_production")
    (name,) = rows(operator)

    assert rows(operator)[name].environment == "non_production"
    assert "is not one of" in (await bring(operator, "list.json", "--environment", "test", status=2)).err


async def test_a_list_at_a_private_address_is_read_only_when_its_host_is_named(operator: Operator) -> None:
    """(DS-15): else nothing is sent."""
    source = ("https://127.0.0.1:1/endpoints.json", "--catalog", "ehrs/all.json")
    unnamed = await operator.run("ehrs", "import", *source)
    named = await operator.run("ehrs", "import", *source, "--allow-private-host", "127.0.0.1")

    assert "allow_private_hosts does not name it" in unnamed.err
    assert "does not name" not in named.err
    assert named.status == 1  # nobody listens there


@pytest.mark.parametrize("written", ["{path}", "file://{path}", "local.json", "https://["])
async def test_a_server_cannot_have_a_file_of_this_machine_imported(operator: Operator, written: str) -> None:
    """What its smart-configuration names is looked for where that came from (BR-02)."""
    (operator.home / "local.json").write_text(bundle("Inside", "https://inside.example/r4"))
    named = written.format(path=operator.home / "local.json")
    async with scripted_server(
        {import_ehrs.WELL_KNOWN: reply(json.dumps({"user_access_brand_bundle": named}))}
    ) as server:
        await bring(operator, f"{server.url}{import_ehrs.WELL_KNOWN}", status=1)

    assert not (operator.home / "ehrs" / "all.json").exists()


async def test_a_file_without_end_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """(BR-01)"""
    monkeypatch.setattr(import_ehrs, "_BUNDLE_BYTES", 16)
    (tmp_path / "list.json").write_text(bundle("Clinic", "https://clinic.example/r4"))

    with pytest.raises(ConfigurationError, match=r"list\.json is longer than 16 bytes"):
        await import_ehrs.ImportEhrs(Egress(), time.time)(str(tmp_path / "list.json"), Catalog(), profile="generic")
